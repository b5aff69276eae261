package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A netnsFile is a network namespace that is kept by a path, as container engines
// have theirs.
type netnsFile struct {
	t    *testing.T
	path string
	gone bool
}

// newNetNSFile makes one, in a world, where there may be mounts.
func newNetNSFile(t *testing.T) *netnsFile {
	t.Helper()
	sceneOf(t) // without the mount
	f, err := os.CreateTemp(scratch(t), "netns")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	ns, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", int(ns)), f.Name(), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	n := &netnsFile{t: t, path: f.Name()}
	t.Cleanup(func() {
		if !n.gone {
			n.remove()
		}
	})
	return n
}

// remove is what engines do when a container has ended.
func (n *netnsFile) remove() {
	n.t.Helper()
	n.gone = true
	if err := unix.Unmount(n.path, unix.MNT_DETACH); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Remove(n.path); err != nil {
		n.t.Fatal(err)
	}
}

// enter prepares a program in the namespace.
func (n *netnsFile) enter(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=" + n.path}, args...)...)
	cmd.Env = append(os.Environ(), sceneOf(n.t).marker())
	return cmd
}

// inside runs a shell script in the namespace and returns all that it prints.
func (n *netnsFile) inside(script string) string {
	out, err := n.enter("sh", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return string(out)
}

// serve has one of the test's tools serve in the namespace, from when it says so.
func (n *netnsFile) serve(args ...string) *process {
	n.t.Helper()
	p := startCommand(n.t, n.enter(append([]string{self, toolArg}, args...)...))
	p.waitOutput("listening", 10*time.Second)
	return p
}

// pastaBin is the directory with our program under pasta's names.
func pastaBin(t *testing.T) string {
	t.Helper()
	dir := scratch(t)
	for _, name := range []string{"pasta", "pesto"} {
		if err := os.Symlink(sbxnet, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pastaCommand prepares pasta, or pesto, as a caller starts it.
func pastaCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, args...)
	cmd.Path = filepath.Join(pastaBin(t), name)
	cmd.Args[0] = name
	return cmd
}

// callPasta runs pasta, or pesto, as exec.Command.CombinedOutput does, which
// returns at the end of its output: nothing in the background may keep that.
func callPasta(t *testing.T, name string, args ...string) (out string, status int) {
	t.Helper()
	cmd := pastaCommand(t, name, args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return b.String(), exitStatus(err)
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		t.Fatalf("%s %s: its output has no end", name, strings.Join(args, " "))
		return "", 0
	}
}

// startPasta starts it for a namespace and returns the process in the background.
func startPasta(t *testing.T, args ...string) *background {
	t.Helper()
	file := filepath.Join(scratch(t), "pid")
	out, status := callPasta(t, "pasta", append([]string{"--pid", file}, args...)...)
	if status != 0 || out != "" {
		t.Fatalf("pasta %s: %d\n%s", strings.Join(args, " "), status, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("pid file: %q", b)
	}
	bg := &background{t: t, pid: pid, pidFile: file}
	t.Cleanup(func() {
		if bg.alive() {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	})
	return bg
}

// A background is a pasta in the background.
type background struct {
	t       *testing.T
	pid     int
	pidFile string
}

// alive reports whether it runs: nobody may have waited for it.
func (b *background) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// ends waits for its end.
func (b *background) ends() {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); b.alive(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatal("pasta still runs after 20 s")
		}
	}
	if _, err := os.Stat(b.pidFile); !os.IsNotExist(err) {
		b.t.Errorf("the PID file is left: %v", err)
	}
}

// routeToWorld gives the world's host the remote one as its router, so that there
// is something to copy.
func routeToWorld(t *testing.T) {
	t.Helper()
	link, err := netlink.LinkByName("host0")
	if err != nil {
		t.Fatal(err)
	}
	for _, gw := range []string{remoteAddr4, remoteAddr6} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			t.Fatal(err)
		}
	}
}

// says connects and returns the line that comes, or why none does.
func says(network, addr string) string {
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if strings.HasPrefix(network, "udp") {
		c.Write([]byte("who"))
	}
	b := make([]byte, 256)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[:n]))
}

// eventuallySays waits for an answer that begins with want, which a follower may
// take a second or two for.
func eventuallySays(t *testing.T, network, addr, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if got = says(network, addr); strings.HasPrefix(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: %q, want %q", network, addr, got, want)
		}
	}
}

// greeter serves on a free port of the host's side: each connection gets a line.
func greeter(t *testing.T, addr, line string) (port string) {
	t.Helper()
	l := greetAt(t, net.JoinHostPort(addr, "0"), line)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// greetAt is greeter at a port of the caller's choice.
func greetAt(t *testing.T, addr, line string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, line)
			c.Close()
		}
	}()
	return l
}
