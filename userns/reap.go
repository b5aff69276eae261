package userns

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// subreaper makes this process the heir of its orphaned descendants while at
// least one sandbox lives.
var subreaper struct {
	sync.Mutex
	sandboxes int
	before    int32 // the attribute as it was
}

func holdSubreaper() {
	subreaper.Lock()
	defer subreaper.Unlock()
	if subreaper.sandboxes++; subreaper.sandboxes > 1 {
		return
	}
	// Neither call can fail on a kernel that has user namespaces.
	subreaper.before = 0
	_ = unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper.before)), 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

func releaseSubreaper() {
	subreaper.Lock()
	defer subreaper.Unlock()
	if subreaper.sandboxes--; subreaper.sandboxes == 0 && subreaper.before == 0 {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
}

// killChildren kills and reaps children of this process that match accepts,
// and what becomes its child when they die, until there is none or the deadline
// has passed. It reports whether none is left.
//
// Only children are killed: their process IDs cannot be reused before they are
// reaped here.
func killChildren(match func(pid int) bool, deadline time.Time) bool {
	for {
		if noChildren() {
			return true
		}
		left := 0
		for _, pid := range childrenOf(os.Getpid()) {
			if !match(pid) {
				continue
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if left == 0 {
			return true
		}
		for _, pid := range childrenOf(os.Getpid()) {
			if match(pid) {
				reapWithin(pid, 10*time.Millisecond)
			}
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// noChildren reports whether this process has no child at all, dead or alive,
// without taking one's status.
func noChildren() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	return err == unix.ECHILD
}

// reapWithin waits for a child that was killed, and no longer than d: it may
// hang in the kernel, or be reaped by somebody else.
func reapWithin(pid int, d time.Duration) {
	for end := time.Now().Add(d); ; time.Sleep(200 * time.Microsecond) {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		if got == pid || err == unix.ECHILD || time.Now().After(end) {
			return
		}
	}
}

// childrenOf lists the children of process parent, zombies included. It reads
// all of /proc, because /proc/PID/task/TID/children is a kernel option.
func childrenOf(parent int) []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var children []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if parentOf(pid) == parent {
			children = append(children, pid)
		}
	}
	return children
}

// parentOf returns the parent of process pid, 0 where it has none.
func parentOf(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything, parentheses included.
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return 0
	}
	fields := strings.Fields(string(b[i+1:])) // state, parent, …
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
