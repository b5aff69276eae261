package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// The worker shares its network's process tree, but not its costs.
func TestCarriersAreEverythingButTheWorker(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sleep 60 & echo $!; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	root, child := cmd.Process.Pid, 0
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(child); err == nil {
		defer p.Kill()
	}
	for !runs(child, "sleep") { // it is the shell's copy yet
		time.Sleep(time.Millisecond)
	}
	if got := carriers(root, "/another/program"); !slices.Equal(got, []int{root, child}) {
		t.Errorf("%v, want %v", got, []int{root, child})
	}
	if got := carriers(root, "sleep"); !slices.Equal(got, []int{root}) {
		t.Errorf("%v, want the root alone: the other one is the worker", got)
	}
	if one, both := resident([]int{root}), resident([]int{root, root}); both <= one || both >= 2*one {
		t.Errorf("%d bytes in one process, %d in two of its kind: not as if they shared a program", one, both)
	}
	if resident([]int{root}) < 100<<10 || switches([]int{root}) < 1 {
		t.Errorf("a shell in %d bytes that was never on a core (%d)", resident([]int{root}), switches([]int{root}))
	}
}

// A tool that leaves a process behind, which even holds its output open, costs
// neither the time that it lives nor what it does.
func TestWhatAToolLeavesBehindIsEnded(t *testing.T) {
	if err := adoptOrphans(); err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("3600.%d", os.Getpid())
	took, err := startToExit(exec.Command("sh", "-c", "sleep "+mark+" & true"))
	if err != nil && !strings.Contains(err.Error(), "WaitDelay") || took > 30*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if left := children(os.Getpid()); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestStartToExitOfWhatFailsIsAnError(t *testing.T) {
	if _, err := startToExit(exec.Command("sh", "-c", "echo no such luck; exit 3")); err == nil || !strings.Contains(err.Error(), "exit status 3: no such luck") {
		t.Errorf("%v", err)
	}
	if _, err := startToExit(exec.Command("/nonexistent")); err == nil {
		t.Error("what is not there ran")
	}
}
