package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sbxnet/tapdev/linktest"
)

// A result is what a finished sbxnet left on its streams and its exit status.
type result struct {
	stdout, stderr string
	status         int
}

// process is a running sbxnet.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	done   chan struct{}
	status int
}

// lockedBuffer is a buffer that a test may read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// command prepares sbxnet with the test's marker in its environment, so that
// whatever is left of it can be found, and with temporary directories of its
// own, so that files it leaves behind can be. Its link is what SBXNET_TEST_LINK
// says, as far as args do not; under another name, which has no such arguments,
// what sbxnet was built with.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	scene := sceneOf(t)
	cmd := exec.Command(sbxnet, linktest.Chosen().Arguments(args...)...)
	cmd.Env = append(os.Environ(), scene.marker(), "TMPDIR="+scene.tmp, "XDG_RUNTIME_DIR="+scene.runtime,
		"GORACE=atexit_sleep_ms=0") // else each process of a race build stays a second longer
	return cmd
}

// runLine is the beginning of a command line that runs a sandbox, for a shell.
func runLine(flags ...string) string {
	return strings.Join(append([]string{sbxnet}, linktest.Chosen().Arguments(append([]string{"run"}, flags...)...)...), " ")
}

// start runs sbxnet in the background; the test ends it if it still runs then.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startCommand(t, command(t, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	// A grandchild that holds the pipes must not hold the test.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", cmd.Args, err)
	}
	go func() {
		err := cmd.Wait()
		p.status = exitStatus(err)
		close(p.done)
	}()
	t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			p.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-p.done:
			case <-time.After(20 * time.Second):
				t.Errorf("sbxnet did not end within 20 s of SIGTERM")
				p.cmd.Process.Kill()
				<-p.done
			}
		}
		if t.Failed() {
			t.Logf("%v\nstdout:\n%s\nstderr:\n%s", cmd.Args, p.stdout.String(), p.stderr.String())
		}
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			t.Errorf("data race in sbxnet:\n%s", p.stderr.String())
		}
	})
	return p
}

// wait returns the exit status; the test fails if there is none in time.
func (p *process) wait(limit time.Duration) result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%v still runs after %v", p.cmd.Args, limit)
	}
	return result{p.stdout.String(), p.stderr.String(), p.status}
}

// run starts sbxnet and waits for its end.
func runSbxnet(t *testing.T, args ...string) result {
	t.Helper()
	return start(t, args...).wait(60 * time.Second)
}

// sh runs a shell script in a sandbox and returns its standard output; the
// script's failure is the test's.
func sh(t *testing.T, flags []string, script string) string {
	t.Helper()
	args := append([]string{"run"}, flags...)
	r := runSbxnet(t, append(args, "--", "sh", "-ec", script)...)
	if r.status != 0 {
		t.Fatalf("status %d from %q with %v\nstdout: %s\nstderr: %s", r.status, script, flags, r.stdout, r.stderr)
	}
	return r.stdout
}

// waitOutput waits until one of the process's streams holds text.
func (p *process) waitOutput(text string, limit time.Duration) {
	p.t.Helper()
	p.until(fmt.Sprintf("output %q", text), limit, func() bool {
		return strings.Contains(p.stdout.String(), text) || strings.Contains(p.stderr.String(), text)
	})
}

func (p *process) until(what string, limit time.Duration, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("no %s within %v\nstdout: %s\nstderr: %s", what, limit, p.stdout.String(), p.stderr.String())
		}
		select {
		case <-p.done:
			if ok() {
				return
			}
			p.t.Fatalf("sbxnet ended with %d before %s\nstdout: %s\nstderr: %s", p.status, what, p.stdout.String(), p.stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// exitStatus is the shell's view of how a process ended.
func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &exit):
		ws := exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
	return -1
}

// outside runs a program on the host side and returns its standard output.
func outside(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

// need skips the test where a program is missing, and fails it in CI, which
// installs them all.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			unavailable(t, "this test runs %s, which is not installed", p)
		}
	}
}

// unavailable skips a test for something the machine cannot do. In CI the
// machine is ours, so there it is a failure.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("in CI: "+format, args...)
	}
	t.Skipf(format, args...)
}

// needTAP skips the test where the caller may not open /dev/net/tun.
func needTAP(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		unavailable(t, "no TAP: %v", err)
	}
	f.Close()
}

// scratch is a directory for the test's own files.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
