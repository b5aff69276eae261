package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

const groupProfiling = "Profiling"

const heapProfileFlag = "profile-heap"

// wantsHeapProfile reports whether a command line may ask for one, before flags
// are read: that decides whether the runtime notes, for one allocation in 512 KiB,
// who is on the stack. To find that out it reads its tables for each of them, and
// an idle sandbox keeps those pages, 0.3 MB.
func wantsHeapProfile(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, heapProfileFlag) })
}

// A profile is one record of how sbxnet itself spends its time and memory.
type profile struct {
	flag, usage string
	// begin turns recording on; nil where the runtime records anyway.
	begin func(io.Writer) error
	// end turns it off and writes what is not written yet.
	end func(io.Writer) error
}

// profileKinds are all profiles, as `go tool pprof` and `go tool trace` read
// them. What blocks and who waits for a lock is recorded event by event: that
// is slow, and these two are for looking, not for measuring.
func profileKinds() []profile {
	return []profile{
		{
			flag: "profile-cpu", usage: "`FILE` write where sbxnet's processor time goes, for go tool pprof",
			begin: pprof.StartCPUProfile,
			end:   func(io.Writer) error { pprof.StopCPUProfile(); return nil },
		},
		{
			flag: heapProfileFlag, usage: "`FILE` write what holds its memory at the end",
			end: func(w io.Writer) error {
				runtime.GC() // the profile is as of the last collection
				return pprof.Lookup("heap").WriteTo(w, 0)
			},
		},
		{
			flag: "profile-block", usage: "`FILE` write where its goroutines wait",
			begin: func(io.Writer) error { runtime.SetBlockProfileRate(1); return nil },
			end: func(w io.Writer) error {
				runtime.SetBlockProfileRate(0)
				return pprof.Lookup("block").WriteTo(w, 0)
			},
		},
		{
			flag: "profile-mutex", usage: "`FILE` write which locks are waited for",
			begin: func(io.Writer) error { runtime.SetMutexProfileFraction(1); return nil },
			end: func(w io.Writer) error {
				runtime.SetMutexProfileFraction(0)
				return pprof.Lookup("mutex").WriteTo(w, 0)
			},
		},
		{
			flag: "trace", usage: "`FILE` write what its goroutines do when, for go tool trace",
			begin: trace.Start,
			end:   func(io.Writer) error { trace.Stop(); return nil },
		},
	}
}

func profileFlags() []cli.Flag {
	var flags []cli.Flag
	for _, p := range profileKinds() {
		flags = append(flags, &cli.StringFlag{Name: p.flag, Usage: p.usage})
	}
	return grouped(groupProfiling, flags...)
}

// readProfiles checks the files of --profile-* and --trace. No two of them, nor
// that of --pcap, may be the same: they would overwrite each other.
func (s *settings) readProfiles(c *cli.Context) error {
	taken := map[string]string{}
	if s.PCAP != "" {
		taken[absolute(s.PCAP)] = "pcap"
	}
	for _, p := range profileKinds() {
		if !c.IsSet(p.flag) {
			continue
		}
		path := c.String(p.flag)
		if path == "" {
			return usagef("--%s %q: no file named; write one like %s.out", p.flag, path, p.flag)
		}
		if err := checkNewFile("--"+p.flag, path); err != nil {
			return err
		}
		if other, ok := taken[absolute(path)]; ok {
			return usagef("--%s %s: --%s has the same file; name another", p.flag, shown(path), other)
		}
		taken[absolute(path)] = p.flag
		if s.Profiles == nil {
			s.Profiles = map[string]string{}
		}
		s.Profiles[p.flag] = path
	}
	return nil
}

// absolute tells files apart that are named in different ways. Without a
// working directory the name is as good as any.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// startProfiles makes the files and begins to record. The returned function
// ends that and completes the files. What goes wrong then is logged: the
// command's status is more than a profile.
func (s *settings) startProfiles(log *slog.Logger) (stop func(), err error) {
	var running []*profiling
	stop = func() {
		defer heldOff()() // a second Ctrl-C must not cut a file short
		for i := len(running) - 1; i >= 0; i-- {
			if err := running[i].finish(); err != nil {
				log.Warn(err.Error())
			}
		}
	}
	for _, p := range profileKinds() {
		path, ok := s.Profiles[p.flag]
		if !ok {
			continue
		}
		r, err := p.start(path)
		if err != nil {
			stop()
			return nil, err
		}
		running = append(running, r)
	}
	return stop, nil
}

// heldOff keeps the signals that end sbxnet from doing so until the returned
// function is called.
func heldOff() func() {
	held := make(chan os.Signal, 1)
	signal.Notify(held, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return func() { signal.Stop(held) }
}

// A profiling is a profile on its way into its file.
type profiling struct {
	profile
	path string
	file *os.File
	// err is the first that writing met: pprof does not report its own.
	err error
}

// start makes the file and begins to record. A profile names what runs on this
// machine: other users do not get to read it.
func (p profile) start(path string) (*profiling, error) {
	r := &profiling{profile: p, path: path}
	var err error
	if r.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, usagef("--%s %s: %w; name a file that can be written", p.flag, shown(path), errors.Unwrap(err))
	}
	if err = r.hide(); err == nil && p.begin != nil {
		err = p.begin(r)
	}
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("--%s %s: %w", p.flag, shown(path), err)
	}
	return r, nil
}

// hide takes a file that was there before away from other users too. What is no
// regular file, such as /dev/null, is left alone.
func (r *profiling) hide() error {
	st, err := r.file.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm() == 0o600 {
		return err
	}
	return r.file.Chmod(0o600)
}

// Write passes on to the file and remembers what went wrong.
func (r *profiling) Write(b []byte) (int, error) {
	n, err := r.file.Write(b)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// finish ends the recording and completes the file.
func (r *profiling) finish() error {
	err := r.end(r)
	if err == nil {
		err = r.err
	}
	if closeErr := r.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("--%s %s: %w; the file is not complete", r.flag, shown(r.path), err)
	}
	return nil
}
