package rootlesskit

import (
	"os"
	"path/filepath"
	"strconv"
)

// inDetachedNetwork is a thread of the sandbox's first process pid that is in
// another network namespace than the process itself, as one is while a network is
// detached: proc_pid_net(5) has it by the number of a thread too. 0 if there is
// none (any more).
func inDetachedNetwork(pid int) int {
	process := filepath.Join("/proc", strconv.Itoa(pid))
	own, err := os.Readlink(process + "/ns/net")
	if err != nil {
		return 0
	}
	threads, err := os.ReadDir(process + "/task")
	if err != nil {
		return 0
	}
	for _, t := range threads {
		network, err := os.Readlink(filepath.Join(process, "task", t.Name(), "ns/net"))
		if err != nil || network == own {
			continue
		}
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			return tid
		}
	}
	return 0
}
