package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// joinEnv holds what a process of its own is to join, as sbxnet exec does.
const joinEnv = "SBXNET_TEST_JOIN"

type joinSpec struct {
	PID  int
	Argv []string
	Dir  string
}

func runJoinParent(spec string) int {
	os.Unsetenv(joinEnv)
	var s joinSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	status, err := Join(s.PID, s.Argv, nil, s.Dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// joinCommand is a process that joins a sandbox and runs a script there.
func joinCommand(t testing.TB, pid int, script string) *exec.Cmd {
	t.Helper()
	spec, err := json.Marshal(joinSpec{PID: pid, Argv: []string{"sh", "-c", script}})
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), joinEnv+"="+string(spec))
	cmd.Stderr = os.Stderr // a file: Wait is not to wait for what inherits it
	return cmd
}

// running starts a sandbox whose command sleeps.
func runningSandbox(t *testing.T, cfg Config) *Sandbox {
	t.Helper()
	cfg.Command = []string{"sleep", marker()}
	sb := started(t, cfg)
	if err := sb.Exec(); err != nil {
		t.Fatal(err)
	}
	return sb
}

// sandboxForms are those that differ in what there is to join.
var sandboxForms = map[string]Config{
	"plain":         unlinked(),
	"pid-namespace": {Network: NetworkNone, NetRaw: true, PIDNamespace: true, Hostname: "joined"},
	"no-net-raw":    {Network: NetworkNone},
	"single-map":    {Network: NetworkNone, NetRaw: true, UserMap: MapSingle},
}

func TestJoinedCommandIsLikeTheSandboxesOwn(t *testing.T) {
	const look = `for n in user mnt net uts ipc pid cgroup; do readlink /proc/self/ns/$n; done; id -u; id -g; id -G; grep ^Cap /proc/self/status; ulimit -n; umask; hostname; pwd; ls /proc/self/fd | wc -l`
	for name, cfg := range sandboxForms {
		t.Run(name, func(t *testing.T) {
			want, status := shell(t, cfg, look)
			if status != 0 {
				t.Fatalf("status %d: %s", status, want)
			}
			sb := runningSandbox(t, cfg)
			out, err := joinCommand(t, sb.PID(), look).Output()
			must(t, err)
			wantLines, gotLines := strings.Split(want, "\n"), strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(wantLines) != len(gotLines) {
				t.Fatalf("got\n%s\nwant\n%s", out, want)
			}
			for i := range wantLines {
				// Those of another sandbox have other numbers.
				if strings.HasSuffix(wantLines[i], "]") {
					kind, _, _ := strings.Cut(wantLines[i], ":")
					ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", sb.PID(), kind))
					must(t, err)
					wantLines[i] = ns
				}
				if gotLines[i] != wantLines[i] {
					t.Errorf("got %q, want %q", gotLines[i], wantLines[i])
				}
			}
		})
	}
}

func TestJoinPassesInputOutputAndStatus(t *testing.T) {
	for name, cfg := range sandboxForms {
		sb := runningSandbox(t, cfg)
		cmd := joinCommand(t, sb.PID(), "cat; exit 42")
		cmd.Stdin = strings.NewReader("hello")
		out, err := cmd.Output()
		if cmd.ProcessState.ExitCode() != 42 || string(out) != "hello" {
			t.Errorf("%s: %v, %q", name, err, out)
		}
		cmd = joinCommand(t, sb.PID(), "kill -TERM $$")
		if cmd.Run(); cmd.ProcessState.ExitCode() != 128+15 {
			t.Errorf("%s: killed: %v", name, cmd.ProcessState)
		}
		if !alive(sb.PID()) {
			t.Errorf("%s: the sandbox ended with a command that joined it", name)
		}
	}
}

func TestJoinForwardsSignals(t *testing.T) {
	for name, cfg := range sandboxForms {
		sb := runningSandbox(t, cfg)
		cmd := joinCommand(t, sb.PID(), "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		b := make([]byte, 64)
		n, err := out.Read(b)
		if string(b[:n]) != "ready\n" {
			t.Fatalf("%s: %q, %v", name, b[:n], err)
		}
		must(t, cmd.Process.Signal(syscall.SIGUSR1))
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 7 || string(rest) != "got\n" {
			t.Errorf("%s: %v, %q", name, cmd.ProcessState, rest)
		}
	}
}

func TestJoinedCommandEndsWithWhoJoined(t *testing.T) {
	for name, cfg := range sandboxForms {
		sb := runningSandbox(t, cfg)
		mark := marker()
		cmd := joinCommand(t, sb.PID(), "sleep "+mark+"; true")
		must(t, cmd.Start())
		until(t, name+": it sleeps", func() bool { return len(processesWith(t, mark)) >= 3 })
		inside := childrenOf(cmd.Process.Pid)
		must(t, cmd.Process.Kill())
		cmd.Wait()
		for _, pid := range inside {
			reapWithin(pid, 10*time.Second) // it is ours now: we are a subreaper
		}
		// A shell's child is the kernel's to end in a PID namespace only with
		// that, so look for what was started.
		if !cfg.PIDNamespace {
			noneLeft(t, mark)
		} else {
			until(t, name+": its command ends", func() bool { return len(processesWith(t, mark)) <= 1 })
		}
		if !alive(sb.PID()) {
			t.Errorf("%s: the sandbox ended too", name)
		}
	}
}

func TestJoinedCommandEndsWithTheSandbox(t *testing.T) {
	for name, cfg := range sandboxForms {
		sb := runningSandbox(t, cfg)
		mark := marker()
		cmd := joinCommand(t, sb.PID(), "setsid sleep "+mark+" & sleep "+mark+"; true")
		must(t, cmd.Start())
		until(t, name+": both sleep", func() bool { return len(processesWith(t, mark)) >= 4 })
		must(t, sb.Close())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: still there", name)
		}
		if code := cmd.ProcessState.ExitCode(); code != StatusFailed && code != 128+9 {
			t.Errorf("%s: %v", name, cmd.ProcessState)
		}
		noneLeft(t, mark)
	}
}

func TestJoinFromTheProcessThatRunsTheSandbox(t *testing.T) {
	sb := runningSandbox(t, unlinked())
	before := openFiles(t)
	for range 3 {
		if status, err := Join(sb.PID(), []string{"sh", "-c", "exit 5"}, nil, ""); status != 5 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if !alive(sb.PID()) {
		t.Error("the sandbox ended")
	}
}

func TestJoinThatCannotBe(t *testing.T) {
	sb := runningSandbox(t, unlinked())
	for _, c := range []struct {
		pid    int
		argv   []string
		dir    string
		status int
		want   string
	}{
		{sb.PID(), []string{"/none"}, "", StatusNotFound, "/none: no such file"},
		{sb.PID(), []string{"/etc/passwd"}, "", StatusNotExecutable, "not executable"},
		{sb.PID(), []string{"true"}, "/none", StatusFailed, "working directory"},
		{os.Getpid(), []string{"true"}, "", StatusFailed, "it is in no sandbox"},
		{0, []string{"true"}, "", StatusFailed, "from 1 on"},
		{1<<22 + 1, []string{"true"}, "", StatusFailed, "it has ended"},
		{sb.PID(), []string{"true\x00"}, "", StatusFailed, "invalid argument"},
	} {
		status, err := Join(c.pid, c.argv, nil, c.dir)
		if status != c.status || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %d, %v", c, status, err)
		}
		var e *ExecError
		if errors.As(err, &e) != (c.status != StatusFailed) {
			t.Errorf("%+v: a %T", c, err)
		}
	}
}
