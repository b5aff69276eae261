package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rootOf lists what a process has below its root directory.
func rootOf(t *testing.T, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// openFiles are what a process's descriptors lead to, but for standard streams.
func openFiles(t *testing.T, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		n, _ := strconv.Atoi(e.Name())
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n)); err == nil && n > 2 {
			all = append(all, to)
		}
	}
	return all
}

// With --enable-sandbox the process that the caller started sees what it needs and
// nothing else, and does its work all the same.
func TestCompatSlirp4netnsSandboxHidesFiles(t *testing.T) {
	for name, target := range map[string]func(g *guest) []string{
		"process": func(g *guest) []string { return []string{g.pid()} },
		"path": func(g *guest) []string {
			return []string{"--netns-type=path", "--userns-path=/proc/" + g.pid() + "/ns/user", "/proc/" + g.pid() + "/ns/net"}
		},
		"link": func(g *guest) []string {
			link := filepath.Join(scratch(g.t), "ns")
			if err := os.Symlink("/proc/"+g.pid()+"/ns/net", link); err != nil {
				g.t.Fatal(err)
			}
			return []string{"--netns-type=path", "--userns-path=/proc/" + g.pid() + "/ns/user", link}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			dir := scratch(t)
			api := filepath.Join(dir, "api.sock")
			secret := filepath.Join(filepath.Dir(dir), "secret")
			if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := startSlirp(t, append([]string{"-c", "-r", "3", "-e", "4", "--enable-sandbox", "--enable-seccomp", "-a", api}, append(target(g), "tap0")...)...)
			s.waitReady()
			pid := s.cmd.Process.Pid
			allowed := []string{"etc", "run", strings.Split(dir, "/")[1]}
			if name != "process" {
				allowed = append(allowed, "proc")
			}
			names := rootOf(t, pid)
			for _, n := range names {
				if !slices.Contains(allowed, n) {
					t.Errorf("/%s can be seen", n)
				}
			}
			if !slices.Contains(names, "etc") || !slices.Contains(names, "run") {
				t.Errorf("only %q can be seen", names)
			}
			root := fmt.Sprintf("/proc/%d/root", pid)
			if b, err := os.ReadFile(root + "/etc/passwd"); err != nil || len(b) == 0 {
				t.Errorf("/etc: %v", err)
			}
			if _, err := os.Stat(root + secret); err == nil && name != "link" { // the link lies beside it
				t.Errorf("%s can be seen", secret)
			}
			for _, at := range []string{"/new", "/etc/new", "/run/new"} {
				if err := os.WriteFile(root+at, nil, 0o600); err == nil {
					os.Remove(root + at)
					t.Errorf("%s can be written", at)
				}
			}
			for _, fd := range openFiles(t, pid) {
				// The kernel's own are its list of mounts and the Go runtime's cgroup.
				kernels := strings.HasPrefix(fd, "/proc/") || strings.HasPrefix(fd, "/sys/")
				if st, err := os.Stat(fd); err == nil && st.Mode().IsRegular() && !kernels {
					t.Errorf("%s is open", fd)
				}
			}
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(b) != "slirp4netns\n" {
				t.Errorf("its name is %q", b)
			}
			assertCarries(t, g, s, api)
			// An end by itself leaves no socket; nor does the namespace's.
			g.end()
			if r := s.wait(10 * time.Second); r.status != 0 || r.stderr != "" {
				t.Errorf("after the namespace's end: %+v", r)
			}
			if _, err := os.Lstat(api); err == nil {
				t.Error("the API socket is still there")
			}
		})
	}
}

// assertCarries asserts that connections get out and in.
func assertCarries(t *testing.T, g *guest, s *slirp, api string) {
	t.Helper()
	g.sh(toolLine("exchange", "10.0.2.2:"+serveExchange(t, "127.0.0.1", 1<<20), fmt.Sprint(1<<20)))
	inside := exec.Command("nsenter", append([]string{"-t", g.pid(), "-U", "-n", "--preserve-credentials"}, strings.Fields(toolLine("who", "tcp", ":8000"))...)...)
	inside.Env = append(os.Environ(), sceneOf(t).marker())
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { inside.Process.Kill(); inside.Wait() }()
	port := freePort(t)
	id := hostfwd(t, api, "tcp", "127.0.0.1", port, 8000)
	s.until("answer", 10*time.Second, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		defer c.Close()
		return strings.Contains(talk(c, ""), ":")
	})
	if answer := askSlirp(t, api, fmt.Sprintf(`{"execute":"remove_hostfwd","arguments":{"id":%d}}`, id)); answer != `{"return":{}}` {
		t.Errorf("remove: %s", answer)
	}
}

// Killed, it leaves nothing either: its process inside sees to that.
func TestCompatSlirp4netnsSandboxKilled(t *testing.T) {
	g := newGuest(t)
	api := filepath.Join(scratch(t), "api.sock")
	s := startSlirp(t, "-c", "-r", "3", "--enable-sandbox", "-a", api, g.pid(), "tap0")
	s.waitReady()
	s.cmd.Process.Kill()
	s.wait(5 * time.Second)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Lstat(api); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the API socket is still there")
		}
	}
}

// Root of the sandbox has no power over the process, which is in the host's
// network.
func TestCompatSlirp4netnsSandboxIsOutOfTheGuestsReach(t *testing.T) {
	g := newGuest(t)
	s := startSlirp(t, "-c", "-r", "3", "--enable-sandbox", g.pid(), "tap0")
	s.waitReady()
	pid := s.cmd.Process.Pid
	if out := g.sh(fmt.Sprintf("ls /proc/%d/root/ >/dev/null 2>&1 && echo reached; readlink /proc/%[1]d/ns/net || true", pid)); strings.TrimSpace(out) != "" {
		t.Errorf("the guest's root sees the process's: %s", out)
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink("/proc/" + g.pid() + "/ns/user")
	if err != nil || own == theirs {
		t.Errorf("the user namespaces are %s and %s, %v", own, theirs, err)
	}
}

// Callers ask for it as a matter of course: where the host lets nobody make a mount
// namespace, all else is as ever.
func TestCompatSlirp4netnsSandboxWithoutMountNamespaces(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	// It holds for the world's user namespace alone.
	if err := os.WriteFile("/proc/sys/user/max_mnt_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t)
	api := filepath.Join(scratch(t), "api.sock")
	s := startSlirp(t, "-c", "-r", "3", "-e", "4", "--enable-sandbox", "--enable-seccomp", "-a", api, g.pid(), "tap0")
	s.waitReady()
	if names := rootOf(t, s.cmd.Process.Pid); !slices.Contains(names, "proc") {
		t.Fatalf("it has a root directory of its own, with %q", names)
	}
	assertCarries(t, g, s, api)
	s.exit.Close()
	if r := s.wait(10 * time.Second); r.status != 0 || r.stderr != "" {
		t.Errorf("after a hang-up: %+v", r)
	}
	if _, err := os.Lstat(api); err == nil {
		t.Error("the API socket is still there")
	}
}
