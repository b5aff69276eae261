package userns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The child is a copy of a process in which everything may be going on: it must
// get to its exec nevertheless, every time.
func TestCloneAmongThreadsSignalsAndCollections(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGURG)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			var kept [][]byte
			for {
				select {
				case <-stop:
					return
				default:
				}
				kept = append(kept, make([]byte, 64<<10))
				if len(kept) > 32 {
					kept = nil
					runtime.GC()
				}
				_ = syscall.Kill(os.Getpid(), syscall.SIGUSR2)
			}
		})
	}
	ns := makeNamespace(t, "", rootInside...)
	tgt, err := openTarget(&AttachConfig{PID: ns.pid, Link: linked().Link})
	must(t, err)
	defer tgt.close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer null.Close()
	for range 100 {
		// Init takes that for a name given for fun, and main for no test.
		e := &entry{argv: []string{"sbxnet", "-test.run=^$"}, env: os.Environ(), files: []*os.File{null, null, null}, namespaces: tgt.namespaces()}
		p, err := e.start()
		must(t, err)
		done := make(chan *os.ProcessState, 1)
		go func() { state, _ := p.Wait(); done <- state }()
		select {
		case state := <-done:
			if !state.Success() {
				t.Fatal(state)
			}
		case <-time.After(30 * time.Second):
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
			p.Kill()
			t.Fatalf("the child hangs:\n%s", b)
		}
	}
	close(stop)
	busy.Wait()
}

func TestChildKeepsTheSignalMaskAndWhatIsIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)                                // one of two that Go leaves ignored when it starts
	defer signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // Reset would leave it ignored
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	sb := runningSandbox(t, unlinked())
	run, err := openRunning(sb.PID())
	must(t, err)
	defer run.close()
	e := &entry{
		argv: []string{"sbxnet"}, env: append(os.Environ(), statusEnv+"=1"),
		files: []*os.File{w, w, w}, namespaces: run.namespaces, asRoot: true,
	}
	p, err := e.start()
	must(t, err)
	w.Close()
	b := make([]byte, 8192)
	n, _ := r.Read(b)
	_, _ = p.Wait()
	want := map[string]string{"SigBlk": "0000000000000000", "SigIgn": "0000000000000001"}
	for line := range strings.Lines(string(b[:n])) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if w, ok := want[name]; ok && value == w {
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Errorf("not as wanted %v:\n%s", want, b[:n])
	}
}

// statusEnv has a process print what /proc says of it.
const statusEnv = "SBXNET_TEST_STATUS"

func TestEntryThatFailsSaysWhereAndLeavesNothing(t *testing.T) {
	before := openFiles(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	ours, err := os.Open("/proc/self/ns/user")
	must(t, err)
	e := &entry{argv: []string{"x"}, files: []*os.File{null}, namespaces: []*os.File{ours}}
	var failed *entryError
	if _, err := e.start(); !errors.As(err, &failed) || failed.stage != stageNamespace || failed.errno != unix.EINVAL {
		t.Errorf("our own user namespace: %v", err)
	}
	e.namespaces = []*os.File{null}
	if _, err := e.start(); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "enter the namespace") {
		t.Errorf("no namespace: %v", err)
	}
	null.Close()
	ours.Close()
	if _, err := e.start(); err == nil || !strings.Contains(err.Error(), "closed file") {
		t.Errorf("closed file: %v", err)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if children := childrenOf(os.Getpid()); len(children) > 0 {
		t.Errorf("children %v are left", children)
	}
}

// Root must not bring its user ID or its groups into the sandbox of another.
func TestRootJoinsAsTheSandboxesUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can join the sandboxes of others")
	}
	dir, err := os.MkdirTemp("/tmp", "join")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	exe := filepath.Join(dir, "exe")
	b, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(exe, b, 0o755))
	cfg := unlinked()
	cfg.UserMap = MapSingle
	cfg.Command = []string{"sleep", marker()}
	p := startParent(t, cfg, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = exe, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12346, Groups: []uint32{12347}}}
	})
	mark := marker()
	cmd := joinCommand(t, p.init, "id -u; sleep "+mark+"; true")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var id int
	if fmt.Fscan(out, &id); id != 0 {
		t.Errorf("user ID %d inside", id)
	}
	// All but the process that called Join, and is us.
	for _, pid := range processesWith(t, mark) {
		if pid == cmd.Process.Pid {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(t, err)
		s := strings.Join(strings.Fields(string(b)), " ")
		if !strings.Contains(s, "Uid: 12345 12345 12345 12345 Gid: 12346 12346 12346 12346 ") || !strings.Contains(s, "Groups: 12347 ") {
			t.Errorf("process %d is somebody else:\n%s", pid, b)
		}
	}
}
