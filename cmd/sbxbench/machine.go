package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what a table needs beside it to be understood.
type machine struct {
	Kernel            string `json:"kernel"`
	Cores             int    `json:"cores"`
	CongestionControl string `json:"congestion_control"`
	ReceiveMax        int    `json:"rmem_max"`
}

func thisMachine() machine {
	var u unix.Utsname
	unix.Uname(&u)
	rmem, _ := strconv.Atoi(sysctl("net/core/rmem_max"))
	return machine{
		Kernel:            unix.ByteSliceToString(u.Release[:]),
		Cores:             runtime.NumCPU(),
		CongestionControl: sysctl("net/ipv4/tcp_congestion_control"),
		ReceiveMax:        rmem,
	}
}

func (m machine) String() string {
	return fmt.Sprintf("Linux %s, %d cores, %s, rmem_max %d KiB", m.Kernel, m.Cores, m.CongestionControl, m.ReceiveMax>>10)
}

func sysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(b))
}

// busy is the time that all cores have spent working since boot. The kernel
// counts it in ticks of 10 ms (USER_HZ).
func busy() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var ticks int64
	for i, f := range strings.Fields(string(line)) {
		const idle, iowait, guest = 4, 5, 9
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != idle && i != iowait && i < guest {
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is the memory that the processes of one network hold, in bytes. They
// run one program: its pages count once, for the process that has most of them.
func resident(pids []int) int64 {
	var own, shared int64
	for _, pid := range pids {
		status := fmt.Sprintf("/proc/%d/status", pid)
		own += statusField(status, "RssAnon:") + statusField(status, "RssShmem:")
		shared = max(shared, statusField(status, "RssFile:"))
	}
	return (own + shared) << 10
}

// switches is how often the processes' threads have been put on a core.
func switches(pids []int) int64 {
	var total int64
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, task := range tasks {
			total += statusField(task, "voluntary_ctxt_switches:") + statusField(task, "nonvoluntary_ctxt_switches:")
		}
	}
	return total
}

func statusField(file, field string) int64 {
	b, _ := os.ReadFile(file)
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field); ok {
			f := strings.Fields(rest)
			n, _ := strconv.ParseInt(f[0], 10, 64)
			return n
		}
	}
	return 0
}
