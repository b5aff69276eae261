package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A podman is the real rootless Podman of a test: an ordinary user with
// subordinate IDs, a home directory with nothing in it but the two
// configuration files that docs/podman.md names, an image, and our link in
// slirp4netns's place. Everything is gone when the test ends.
type podman struct {
	t *testing.T
	// dir is the user's: home, runtime directory, image and tools.
	dir  string
	user podmanUser
	// path is looked into for programs first.
	path string
}

// podmanUser is whom containers belong to: the caller, or where that is root,
// some ordinary user with subordinate IDs.
type podmanUser struct {
	uid, gid int
	name     string
}

// The image: busybox, made by podman import. Below tools in each container lies
// this test binary with what it needs to run.
const (
	image         = "localhost/busybox"
	imageTools    = "/tools"
	podmanTimeout = 60 * time.Second
)

// applets are the commands of the image.
var applets = []string{"sh", "cat", "echo", "false", "grep", "head", "httpd", "id", "ip", "nc", "nslookup", "ping", "seq", "sleep", "true", "wget"}

func newPodman(t *testing.T) *podman {
	t.Helper()
	need(t, "podman", "runc", "newuidmap", "newgidmap", "busybox")
	needTAP(t)
	sceneOf(t) // ends after what follows
	p := &podman{t: t, user: findPodmanUser(t), path: "/usr/local/bin"}
	// Podman puts a socket with a long name below; a socket's path may have 107
	// bytes.
	dir, err := os.MkdirTemp("/tmp", "sbxp")
	if err != nil {
		t.Fatal(err)
	}
	p.dir = dir
	t.Cleanup(p.end)
	if err := os.Chmod(dir, 0o711); err != nil { // the user gets through
		t.Fatal(err)
	}
	p.makeHome()
	p.ok("import", p.makeImage(), image)
	return p
}

// findPodmanUser is the caller unless that is root.
func findPodmanUser(t *testing.T) podmanUser {
	t.Helper()
	b, _ := os.ReadFile("/etc/subuid")
	for _, line := range strings.Split(string(b), "\n") {
		name, _, _ := strings.Cut(line, ":")
		u, err := user.Lookup(name)
		if err != nil {
			u, err = user.LookupId(name)
		}
		if err != nil || u.Uid == "0" {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if me := os.Getuid(); me == 0 || me == uid {
			return podmanUser{uid, gid, u.Username}
		}
	}
	unavailable(t, "rootless Podman needs an ordinary user with lines in /etc/subuid and /etc/subgid")
	return podmanUser{}
}

// makeHome makes the user's directories and configuration, as docs/podman.md
// says, and the tools.
func (p *podman) makeHome() {
	p.t.Helper()
	for _, d := range []string{p.home(), p.runtime(), p.home() + "/.config", p.home() + "/.config/containers", p.dir + "/bin", p.dir + "/tools"} {
		p.must(os.Mkdir(d, 0o700))
		p.own(d)
	}
	p.must(os.Symlink(sbxnet, p.slirp()))
	p.write(p.home()+"/.config/containers/containers.conf", fmt.Sprintf(`[engine]
network_cmd_path = %q
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
`, p.slirp()))
	p.write(p.home()+"/.config/containers/storage.conf", "[storage]\ndriver = \"vfs\"\n")
	in, err := os.Open(self)
	p.must(err)
	defer in.Close()
	out, err := os.OpenFile(p.dir+"/tools/tool", os.O_WRONLY|os.O_CREATE, 0o755)
	p.must(err)
	defer out.Close()
	_, err = io.Copy(out, in)
	p.must(err)
	p.own(out.Name())
}

func (p *podman) home() string    { return p.dir + "/home" }
func (p *podman) runtime() string { return p.dir + "/run" }

// slirp is our program under the name that Podman is told.
func (p *podman) slirp() string { return p.dir + "/bin/slirp4netns" }

func (p *podman) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *podman) own(path string) {
	p.t.Helper()
	p.must(os.Chown(path, p.user.uid, p.user.gid))
}

func (p *podman) write(path, text string) {
	p.t.Helper()
	p.must(os.WriteFile(path, []byte(text), 0o644))
	p.own(path)
}

// makeImage is the archive of a root directory with busybox in it.
func (p *podman) makeImage() string {
	p.t.Helper()
	path, err := exec.LookPath("busybox")
	p.must(err)
	busybox, err := os.ReadFile(path)
	p.must(err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range []string{"bin", "dev", "etc", "lib", "lib64", "proc", "sys", "tmp", "tools", "www"} {
		p.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}))
	}
	file := func(name string, mode int64, content []byte) {
		p.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}))
		_, err := w.Write(content)
		p.must(err)
	}
	file("bin/busybox", 0o755, busybox)
	file("www/index.html", 0o644, []byte("hello from a container\n"))
	for _, a := range applets {
		p.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}))
	}
	p.must(w.Close())
	archive := p.dir + "/image.tar"
	p.write(archive, b.String())
	return archive
}

// command prepares podman as the user would type it.
func (p *podman) command(args ...string) *exec.Cmd {
	cmd := exec.Command("podman", args...)
	cmd.Dir = p.home()
	cmd.Env = []string{
		"HOME=" + p.home(), "XDG_RUNTIME_DIR=" + p.runtime(), "USER=" + p.user.name, "LOGNAME=" + p.user.name,
		"PATH=" + p.path + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "TMPDIR=/tmp", sceneOf(p.t).marker(), "GORACE=atexit_sleep_ms=0",
	}
	if os.Getuid() != p.user.uid {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.user.uid), Gid: uint32(p.user.gid)}}
	}
	return cmd
}

// try runs podman to its end and returns its standard output, and an error with
// all that it said.
func (p *podman) try(args ...string) (string, error) {
	p.t.Helper()
	cmd := p.command(args...)
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// What it leaves running, such as conmon, keeps its standard error.
	cmd.WaitDelay = 2 * time.Second
	p.must(cmd.Start())
	ctx, cancel := context.WithTimeout(context.Background(), podmanTimeout)
	defer cancel()
	go func() {
		<-ctx.Done()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cmd.Process.Kill()
		}
	}()
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("podman %s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	if strings.Contains(stderr.String(), "DATA RACE") {
		p.t.Errorf("data race:\n%s", stderr.String())
	}
	return strings.TrimSpace(stdout.String()), err
}

// ok is try where an error ends the test.
func (p *podman) ok(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	p.must(err)
	return out
}

// A container is what podman run is told, but for the command.
type container struct {
	network string // options after slirp4netns:
	flags   []string
}

func (c container) args(verb []string, command ...string) []string {
	args := append(verb, "--network", "slirp4netns")
	if c.network != "" {
		args[len(args)-1] += ":" + c.network
	}
	args = append(args, c.flags...)
	return append(append(args, image), command...)
}

// sh runs a shell script in a container of its own and returns what it prints.
func (p *podman) sh(c container, script string) string {
	p.t.Helper()
	return p.ok(c.args(append([]string{"run", "--rm"}, p.tools()...), "sh", "-c", script)...)
}

// start runs a command in a container in the background, which the test ends,
// and returns the container's ID.
func (p *podman) start(c container, command ...string) string {
	p.t.Helper()
	return p.ok(c.args(append([]string{"run", "-d"}, p.tools()...), command...)...)
}

// tools are the flags that show a container the test's own programs.
func (p *podman) tools() []string {
	flags := []string{"-v", p.dir + "/tools:" + imageTools + ":ro"}
	for _, d := range []string{"/lib", "/lib64"} { // the test binary may have been linked to libc
		if _, err := os.Stat(d); err == nil {
			flags = append(flags, "-v", d+":"+d+":ro")
		}
	}
	return flags
}

// toolIn is a command line that runs one of the test's tools in a container.
func toolIn(args ...string) []string {
	return append([]string{imageTools + "/tool", toolArg}, args...)
}

// toolScript is the same for a shell.
func toolScript(args ...string) string { return strings.Join(toolIn(args...), " ") }

// waitLog waits until a container has printed text.
func (p *podman) waitLog(id, text string) {
	p.t.Helper()
	p.eventually("log with "+text, func() bool { return strings.Contains(p.ok("logs", id), text) })
}

func (p *podman) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("no %s within 15 s", what)
		}
	}
}

// networks are the processes of ours that carry the test's containers.
func (p *podman) networks() []int {
	var ours []int
	for _, pid := range sceneOf(p.t).processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && exe == sbxnet {
			ours = append(ours, pid)
		}
	}
	return ours
}

// assertNoNetworks asserts that nothing of ours is left of containers that have
// ended: no process, API socket or network namespace.
func (p *podman) assertNoNetworks() {
	p.t.Helper()
	p.eventually("end of our processes", func() bool { return len(p.networks()) == 0 })
	for _, pattern := range []string{"/libpod/tmp/*.net", "/netns/*"} {
		if left, _ := filepath.Glob(p.runtime() + pattern); len(left) > 0 {
			p.t.Errorf("left behind: %q", left)
		}
	}
}

// isMonitored reports whether a process has the test's files on its command line, as
// conmon has, and the "podman container cleanup" that it runs after a container's end:
// it writes to the storage, though the container may have been removed meanwhile.
// Neither has the scene's environment.
func (p *podman) isMonitored() bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(all, func(file string) bool {
		b, _ := os.ReadFile(file)
		return bytes.Contains(b, []byte(p.dir))
	})
}

// end removes containers, Podman's own process that keeps its namespaces, and
// all files.
func (p *podman) end() {
	if _, err := os.Stat(p.dir + "/image.tar"); err == nil {
		if out, err := p.try("rm", "-a", "-f", "-t", "0"); err != nil {
			p.t.Errorf("%v\n%s", err, out)
		}
		p.assertNoNetworks()
		p.eventually("end of conmon", func() bool { return !p.isMonitored() })
		// Files in the storage may belong to subordinate IDs.
		if out, err := p.try("unshare", "rm", "-rf", p.home()+"/.local"); err != nil {
			p.t.Errorf("%v\n%s", err, out)
		}
		if b, err := os.ReadFile(p.runtime() + "/libpod/tmp/pause.pid"); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Error(err)
	}
}

// hostAddr is an IPv4 address of this host that is not loopback's: one that
// clients outside have, and that a server in a container can be shown.
func hostAddr(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	unavailable(t, "this host has no address but loopback's")
	return ""
}

// given are the ports that freePort has returned: of twenty that a test asks for
// one after the other, two would be the same every now and then.
var given = map[int]bool{}

// freePort is a TCP and UDP port that nobody has on any address now, and another
// one each time. It is called by the test's own goroutine.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		pc, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
		l.Close()
		if err == nil {
			pc.Close()
			if !given[port] {
				given[port] = true
				return port
			}
		}
	}
	t.Fatal("no free port")
	return 0
}

// freeRange is the first of n ports in a row that nobody has on loopback now, and
// that the kernel gives no client.
func freeRange(t *testing.T, n int) int {
	t.Helper()
	// Not where a test process is that began at the same time.
next:
	for first := 10000 + os.Getpid()*97%1000*10; first < 32000; first += n {
		for port := first; port < first+n; port++ {
			if taken(port) {
				continue next
			}
		}
		return first
	}
	t.Fatal("no free range of ports")
	return 0
}
