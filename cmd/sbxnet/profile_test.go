package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/trace"
	"strings"
	"syscall"
	"testing"
)

// profilingArgs are every flag of the group, with a file for each in dir.
func profilingArgs(dir string) (args []string, files map[string]string) {
	files = map[string]string{}
	for _, p := range profileKinds() {
		files[p.flag] = filepath.Join(dir, p.flag+".out")
		args = append(args, "--"+p.flag, files[p.flag])
	}
	return args, files
}

// wantProfiles holds every file against the tool that reads it.
func wantProfiles(t *testing.T, files map[string]string) {
	t.Helper()
	for flag, file := range files {
		st, err := os.Stat(file)
		if err != nil {
			t.Errorf("--%s: %v", flag, err)
			continue
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("--%s: others may do %v", flag, st.Mode())
		}
		args := []string{"tool", "pprof", "-top", file}
		if flag == "trace" {
			args = []string{"tool", "trace", "-d=parsed", file}
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("--%s: go %v: %v\n%.400s", flag, args, err, out)
		}
	}
}

func TestProfilesAreWrittenWhenTheCommandHasEnded(t *testing.T) {
	args, files := profilingArgs(t.TempDir())
	if out, err := sbxnet(append(append([]string{"run", "-q"}, args...), "--", "sh", "-c", "exit 3")...).CombinedOutput(); exitCode(err) != 3 || len(out) != 0 {
		t.Errorf("%v, %q", err, out)
	}
	wantProfiles(t, files)
}

// A signal to sbxnet is one to its command, and ends the profiles with it.
func TestProfilesAreWrittenWhenASignalEndsTheCommand(t *testing.T) {
	args, files := profilingArgs(t.TempDir())
	cmd := sbxnet(append(append([]string{"run", "-q"}, args...), "--", "sh", "-c", "echo up; exec sleep 60")...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if _, err := io.ReadFull(stdout, make([]byte, len("up\n"))); err != nil {
		t.Fatalf("the command does not run: %v", err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); exitCode(err) != 128+int(syscall.SIGTERM) {
		t.Errorf("%v", err)
	}
	wantProfiles(t, files)
}

// What a file had in it, and who could read it, is no longer.
func TestAProfileReplacesTheFileThatIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "heap")
	if err := os.WriteFile(file, bytes.Repeat([]byte("old"), 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	stop, err := (&settings{Profiles: map[string]string{"profile-heap": file}}).startProfiles(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	wantProfiles(t, map[string]string{"profile-heap": file})
}

func TestBadProfileFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--profile-cpu", ""}, `--profile-cpu "": no file named; write one like profile-cpu.out`},
		{[]string{"--trace", "/nonexistent/t"}, "--trace /nonexistent/t: no directory /nonexistent; make it first"},
		{[]string{"--profile-heap", "/"}, "--profile-heap /: is a directory"},
		{[]string{"--profile-block", "f", "--profile-mutex", "./f"}, "--profile-mutex ./f: --profile-block has the same file; name another"},
		{[]string{"--pcap", "f", "--trace", filepath.Join(dir, "f")}, "--trace " + dir + "/f: --pcap has the same file"},
	} {
		got := typeIn(t, append(append([]string{"run"}, c.args...), "--", "true")...)
		if got.settings != nil || got.status != exitFailure || !strings.HasPrefix(got.stderr, "sbxnet: "+c.want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%q: status %d, stderr %q", c.args, got.status, got.stderr)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("refused, and yet made: %v", left)
	}
}

// A file that cannot be made is the only line, and the command is not run.
func TestAProfileThatCannotBeMadeStopsTheRun(t *testing.T) {
	out, err := sbxnet("run", "--trace", "/proc/profile", "--", "echo", "ran").CombinedOutput()
	if want := "sbxnet: --trace /proc/profile: no such file or directory; name a file that can be written\n"; exitCode(err) != exitFailure || string(out) != want {
		t.Errorf("%v, %q", err, out)
	}
}

// A full disk costs the profile, not the command's status.
func TestAProfileThatCannotBeWrittenIsAWarning(t *testing.T) {
	out, err := sbxnet("run", "-q", "--profile-cpu", "/dev/full", "--", "true").CombinedOutput()
	if want := "sbxnet: warning: --profile-cpu /dev/full: write /dev/full: no space left on device; the file is not complete\n"; err != nil || string(out) != want {
		t.Errorf("%v, %q", err, out)
	}
}

func TestAProfileThatCannotBeginUndoesTheOthers(t *testing.T) {
	if err := trace.Start(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer trace.Stop()
	dir := t.TempDir()
	s := &settings{Profiles: map[string]string{"profile-cpu": filepath.Join(dir, "cpu"), "trace": filepath.Join(dir, "trace")}}
	if _, err := s.startProfiles(slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "--trace ") {
		t.Errorf("%v", err)
	}
	delete(s.Profiles, "trace")
	stop, err := s.startProfiles(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("the processor's profile still runs: %v", err)
	}
	stop()
}

// exitCode is 0 for a nil error and -1 for one that is no exit status.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func TestAllocationsAreRecordedForWhoAsks(t *testing.T) {
	for line, want := range map[string]bool{
		"sbxnet run --profile-heap heap.out -- true": true,
		"sbxnet run -profile-heap=heap.out":          true,
		"sbxnet run --profile-cpu cpu.out -- true":   false,
		"sbxnet": false,
	} {
		if got := wantsHeapProfile(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
