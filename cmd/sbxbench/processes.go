package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Some tools leave processes behind that go on, and may spin, after what
// started them has ended. Whatever loses its parent becomes a child of the
// bench (adoptOrphans): each child that it did not start itself is such a one,
// and killOrphans ends it before it falsifies what is measured next.

// started are the children that the bench has started and not yet waited for.
var started = map[int]bool{}

func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt what peers leave behind: %w", err)
	}
	return nil
}

// launch starts cmd; finish, which waits for it, must follow.
func launch(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	started[cmd.Process.Pid] = true
	return nil
}

func finish(cmd *exec.Cmd) error {
	err := cmd.Wait()
	delete(started, cmd.Process.Pid)
	return err
}

// killOrphans kills and reaps, until there are no more: those of an orphan come
// to light with its end.
func killOrphans() {
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		found := false
		for _, pid := range children(os.Getpid()) {
			if !started[pid] {
				found = true
				unix.Kill(pid, unix.SIGKILL)
				unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
		if !found {
			return
		}
	}
}

// children of a process, those of all its threads.
func children(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// carriers are a process and its descendants, without the worker, which is the
// one that runs program, and what it started. Its process ID would not do: it
// may be one of a namespace's.
func carriers(root int, program string) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for _, pid := range children(pids[i]) {
			if !runs(pid, program) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// runs says whether a process runs a program, by its first argument: whoever
// may not trace a process may not see which file it executes.
func runs(pid int, program string) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	first, _, _ := strings.Cut(string(b), "\x00")
	return first == program
}

// startToExit runs a command and returns how long it took, and an error if it
// did not succeed.
func startToExit(c *exec.Cmd) (time.Duration, error) {
	const most = 5 * time.Second
	ctx, stop := context.WithTimeout(context.Background(), most)
	defer stop()
	tail := &tailWriter{}
	c.Stdout, c.Stderr, c.WaitDelay = tail, tail, 100*time.Millisecond
	defer killOrphans()
	began := time.Now()
	if err := launch(c); err != nil {
		return 0, err
	}
	kill := context.AfterFunc(ctx, func() { c.Process.Kill() })
	err := finish(c)
	took := time.Since(began)
	kill()
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%v: still there after %v", c.Args, most)
	case err != nil:
		return 0, fmt.Errorf("%v: %w: %s", c.Args, err, tail)
	}
	return took, nil
}
