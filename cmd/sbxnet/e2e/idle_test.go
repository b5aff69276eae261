package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIdleSandboxHoldsLittleMemory weighs both processes as sbxbench does: what is
// each one's own, and the program that they share once. It is 19 MB where there
// are two cores; the bound leaves room for more of them and other kernels.
func TestIdleSandboxHoldsLittleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory would be weighed")
	}
	const most = 24_000_000
	start(t, "run", "--name", "idle", "--", "sleep", "1000")
	i := inspectUp(t, "idle")
	own, shared := 0, 0
	for _, pid := range []int{i.PID, i.ChildPID} {
		m := residentOf(t, pid)
		own += m["RssAnon"] + m["RssShmem"]
		shared = max(shared, m["RssFile"])
	}
	if got := (own + shared) << 10; got > most {
		t.Errorf("%d bytes are resident, of which %d kB are the program; want %d at most", got, shared, most)
	} else if own == 0 || shared == 0 {
		t.Errorf("%d kB of its own, %d kB of the program: this is no sandbox's memory", own, shared)
	}
}

// residentOf is what /proc says of a process' memory, in KiB.
func residentOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], "Rss") {
			m[strings.TrimSuffix(f[0], ":")], _ = strconv.Atoi(f[1])
		}
	}
	return m
}

// TestIdleSandboxSleeps counts how often its threads are switched to in ten seconds,
// after a first client: also what that has set in motion is over by then.
func TestIdleSandboxSleeps(t *testing.T) {
	p := start(t, "run", "--name", "asleep", "-p", "80", "--", hello)
	get(t, "http://127.0.0.1:"+p.publishedPort("80", "tcp"))
	i := inspectUp(t, "asleep")
	time.Sleep(3 * time.Second)
	before := switchesOf(t, i.PID) + switchesOf(t, i.ChildPID)
	time.Sleep(10 * time.Second)
	if n := switchesOf(t, i.PID) + switchesOf(t, i.ChildPID) - before; n > 5 {
		t.Errorf("woken %d times in 10 s", n)
	}
}

// switchesOf is how often a process' threads have been switched from.
func switchesOf(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 2 && strings.HasSuffix(f[0], "_ctxt_switches:") {
				k, _ := strconv.Atoi(f[1])
				n += k
			}
		}
	}
	return n
}
