package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
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
