package slirp4netns

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"sbxnet/cmd/sbxnet/console"
)

const (
	exitOK = 0
	// exitFailure is all that the original ever exits with besides 0.
	exitFailure = 1
)

// Main runs one command line, args[0] being the name that it was called by, and
// returns the exit status.
func Main(args []string) int {
	status, err := run(args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "slirp4netns: "+console.OneLine(err.Error()))
	}
	return status
}

// run does what the arguments say until it is told to end.
func run(args []string, stdout, stderr io.Writer) (int, error) {
	o, err := parse(args)
	if err != nil {
		return exitFailure, err
	}
	switch {
	case o.Help:
		fmt.Fprint(stdout, help)
		return exitOK, nil
	case o.Version:
		fmt.Fprint(stdout, versionText())
		return exitOK, nil
	}
	if err := o.inheritAll(); err != nil {
		return exitFailure, err
	}
	r, err := o.reach(console.NewLogger(stderr, "slirp4netns", "text", slog.LevelWarn))
	if err != nil {
		return exitFailure, err
	}
	// From here on a signal is an end like the others, with ports to free and a
	// socket to remove.
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	s, err := start(o, r)
	if err != nil {
		return exitFailure, err
	}
	if err := announce(o.ReadyFD); err != nil {
		s.close()
		return exitFailure, err
	}
	sig := s.wait(hangUp(o.ExitFD), signals)
	if sig == nil {
		s.drain(signals)
	}
	err = s.close()
	if sig != nil {
		return dieOf(sig), err
	}
	if err != nil {
		return exitFailure, err
	}
	return exitOK, nil
}

// inheritAll checks the descriptors that the caller has for us.
func (o *options) inheritAll() error {
	for _, d := range []struct {
		what string
		fd   int
	}{{"--exit-fd", o.ExitFD}, {"--ready-fd", o.ReadyFD}, {"the TAP", o.FD}} {
		if d.fd == noFD {
			continue
		}
		if err := inherit(d.what, d.fd); err != nil {
			return err
		}
	}
	return nil
}

// dieOf ends this process by the signal that it survived until now, so that its
// parent sees what happened. Should that fail, it returns the status that a
// shell has for it.
func dieOf(sig os.Signal) int {
	signal.Reset(sig)
	n, _ := sig.(syscall.Signal)
	syscall.Kill(syscall.Getpid(), n)
	return 128 + int(n)
}
