package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pasta that runs a command and is killed takes along the command, the PID file,
// the control socket and the ports; what was there before it stays.
func TestCompatPastaKilledWithItsCommand(t *testing.T) {
	needTAP(t)
	for _, flags := range []string{"--config-net", "--config-net -T none -U none", "-T none -U none"} {
		dir := scratch(t)
		exists := func(name string) bool { _, err := os.Lstat(filepath.Join(dir, name)); return err == nil }
		if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		args := append([]string{"-q", "-u", "none", "-t", fmt.Sprintf("127.0.0.1/%d:80", port), "-I", "foo0",
			"-P", filepath.Join(dir, "pid"), "-c", filepath.Join(dir, "sock")}, strings.Fields(flags)...)
		p := startCommand(t, pastaCommand(t, "pasta", append(args, "sleep", "1000")...))
		var command []int
		p.until("the command to run", 10*time.Second, func() bool {
			command = childrenNamed(t, p.cmd.Process.Pid, "sleep")
			return len(command) == 1
		})
		if !exists("pid") || !exists("sock") {
			t.Fatalf("%s: there is no PID file or no socket", flags)
		}
		p.cmd.Process.Signal(syscall.SIGKILL)
		<-p.done
		for deadline := time.Now().Add(10 * time.Second); exists("pid") || exists("sock") || alivePID(command[0]); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: left: PID file %v, socket %v, command %v", flags, exists("pid"), exists("sock"), alivePID(command[0]))
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "precious")); string(b) != "mine" {
			t.Errorf("%s: another file of the directory: %q, %v", flags, b, err)
		}
		assertFree(t, port)
	}
}

// childrenNamed are the descendants of a process that have a name.
func childrenNamed(t *testing.T, pid int, name string) []int {
	t.Helper()
	var found []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(b)) {
			var child int
			fmt.Sscan(field, &child)
			if comm, _ := os.ReadFile("/proc/" + field + "/comm"); strings.TrimSpace(string(comm)) == name {
				found = append(found, child)
			}
			found = append(found, childrenNamed(t, child, name)...)
		}
	}
	return found
}

// alivePID reports whether a process is there and no zombie.
func alivePID(pid int) bool { return (&background{pid: pid}).alive() }
