package userns

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withDaemon is a command with a daemon: in a session of its own, and orphaned.
func withDaemon(cfg Config, mark string) Config {
	cfg.Command = []string{"sh", "-c", "setsid sh -c 'sleep " + mark + " & sleep " + mark + "' & sleep " + mark}
	return cfg
}

// sleepers waits until command and daemon are there. Besides the three sleeps
// there are two shells and init.
func sleepers(t *testing.T, mark string) {
	t.Helper()
	until(t, "the daemon starts", func() bool { return len(processesWith(t, mark)) >= 6 })
}

func noneLeft(t *testing.T, mark string) {
	t.Helper()
	until(t, "everything in the sandbox ends", func() bool { return len(processesWith(t, mark)) == 0 })
}

func TestKillingSbxnetEndsTheSandbox(t *testing.T) {
	for _, own := range []bool{false, true} {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV} {
			t.Run(fmt.Sprintf("pid-namespace=%v,%v", own, sig), func(t *testing.T) {
				mark := marker()
				cfg := withDaemon(unlinked(), mark)
				cfg.PIDNamespace = own
				p := startParent(t, cfg, nil)
				sleepers(t, mark)
				p.Process.Signal(sig)
				p.Wait()
				gone(t, p.init)
				noneLeft(t, mark)
			})
		}
	}
}

func TestKillingAStoppedSbxnetEndsTheSandbox(t *testing.T) {
	for _, own := range []bool{false, true} {
		mark := marker()
		cfg := withDaemon(unlinked(), mark)
		cfg.PIDNamespace = own
		p := startParent(t, cfg, nil)
		sleepers(t, mark)
		for _, pid := range append(processesWith(t, mark), p.Process.Pid) {
			must(t, syscall.Kill(pid, syscall.SIGSTOP))
		}
		p.Process.Kill()
		p.Wait()
		noneLeft(t, mark)
	}
}

func TestKillingInitEndsTheSandbox(t *testing.T) {
	for _, own := range []bool{false, true} {
		mark := marker()
		cfg := withDaemon(unlinked(), mark)
		cfg.PIDNamespace = own
		sb := started(t, cfg)
		if err := sb.Exec(); err != nil {
			t.Fatal(err)
		}
		sleepers(t, mark)
		bystander := exec.Command("sleep", "1000")
		if err := bystander.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { bystander.Process.Kill(); bystander.Wait() }()
		other := started(t, unlinked())

		syscall.Kill(sb.PID(), syscall.SIGKILL)
		status, err := sb.Wait()
		if status != StatusFailed || err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("Wait: %d, %v", status, err)
		}
		noneLeft(t, mark)
		if !alive(bystander.Process.Pid) || !alive(other.PID()) {
			t.Error("another child of this process was killed")
		}
	}
}

func TestEndOfTheCommandEndsTheRest(t *testing.T) {
	for _, own := range []bool{false, true} {
		mark := marker()
		cfg := unlinked()
		cfg.PIDNamespace = own
		cfg.Command = []string{"sh", "-c", "setsid sh -c 'sleep " + mark + "' & sleep 0.1; exit 3"}
		sb := started(t, cfg)
		if err := sb.Exec(); err != nil {
			t.Fatal(err)
		}
		if status, err := sb.Wait(); status != 3 || err != nil {
			t.Errorf("Wait: %d, %v", status, err)
		}
		if left := processesWith(t, mark); len(left) > 0 {
			t.Errorf("processes %v outlived the command", left)
		}
	}
}

func TestCloseEndsTheSandboxAtAnyMoment(t *testing.T) {
	before := openFiles(t)
	for range 3 {
		started(t, unlinked()).Close() // before Exec
	}
	mark := marker()
	sb := started(t, withDaemon(unlinked(), mark))
	if err := sb.Exec(); err != nil {
		t.Fatal(err)
	}
	sleepers(t, mark)
	waited := make(chan error)
	go func() { _, err := sb.Wait(); waited <- err }()
	time.Sleep(10 * time.Millisecond)
	sb.Close()
	if err := <-waited; err == nil {
		t.Error("Wait returned a status of a sandbox that was closed")
	}
	if left := processesWith(t, mark); len(left) > 0 {
		t.Errorf("processes %v outlived Close", left)
	}
	if sb.Close() != nil {
		t.Error("second Close failed")
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// openFiles counts descriptors, after one sandbox so that the poller's are in.
func openFiles(t *testing.T) int {
	t.Helper()
	started(t, unlinked()).Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestZombieOfTheSandboxIsToldByItsNamespace(t *testing.T) {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	until(t, "it is a zombie", func() bool { return !alive(cmd.Process.Pid) })
	fd, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	id, err := namespaceOf(int(fd.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if !withinUserNamespace(cmd.Process.Pid, id) {
		t.Error("not recognised")
	}
	if withinUserNamespace(os.Getpid(), id) {
		t.Error("this process was taken for one of the sandbox")
	}
}
