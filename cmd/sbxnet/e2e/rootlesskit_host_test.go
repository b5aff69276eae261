package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A rootless is the home of a test's ordinary user: a runtime directory, our
// program under the names that it stands in for, RootlessKit's own programs,
// and a server. Everything is gone when the test ends.
type rootless struct {
	t *testing.T
	// dir is the user's; ours and theirs are the two directories of programs.
	dir, ours, theirs string
	user              podmanUser
}

// patience is how long a test waits for what is to happen, on a machine with much
// else to do.
const patience = 60 * time.Second

// steady are the ports that steadyPort has returned.
var steady struct {
	sync.Mutex
	last int
}

// steadyPort is a port that nobody has, TCP and UDP, and another one each time. It
// is not of those that the kernel gives to clients, of which one might take it
// before the test does; nor is a server's socket taken for a client's there.
func steadyPort(t *testing.T) int {
	t.Helper()
	steady.Lock()
	defer steady.Unlock()
	const first, last = 20000, 32000
	for range last - first {
		if steady.last++; steady.last < first || steady.last >= last {
			steady.last = first + os.Getpid()*97%(last-first) // not where another test process is
		}
		if bindable(steady.last) {
			return steady.last
		}
	}
	t.Fatal("no free port")
	return 0
}

// bindable reports whether all addresses of a port are free.
func bindable(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		return false
	}
	l.Close()
	pc, err := net.ListenPacket("udp", fmt.Sprint(":", port))
	if err != nil {
		return false
	}
	pc.Close()
	return true
}

// standsInFor are the names by which our program is called here.
var standsInFor = []string{"slirp4netns", "pasta", "pesto", "rootlesskit", "rootlesskit-docker-proxy"}

func newRootless(t *testing.T) *rootless {
	t.Helper()
	need(t, "newuidmap", "newgidmap", "nsenter", "ip", "nc", "dig")
	needTAP(t)
	r := &rootless{t: t, user: findPodmanUser(t), theirs: theirPrograms(t)}
	sceneOf(t) // ends after what follows
	// Sockets have names below it, and those may have 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "sbxr")
	r.must(err)
	r.dir, r.ours = dir, dir+"/bin"
	t.Cleanup(r.end)
	r.own(dir)
	for _, d := range []string{r.home(), r.runtime(), r.ours} {
		r.must(os.Mkdir(d, 0o700))
		r.own(d)
	}
	for _, name := range standsInFor {
		r.must(os.Symlink(sbxnet, r.ours+"/"+name))
	}
	return r
}

func (r *rootless) home() string    { return r.dir + "/home" }
func (r *rootless) runtime() string { return r.dir + "/run" }

func (r *rootless) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rootless) own(path string) {
	r.t.Helper()
	r.must(os.Chown(path, r.user.uid, r.user.gid))
}

// end removes the user's files, some of which belong to subordinate IDs.
func (r *rootless) end() {
	if os.Getuid() == r.user.uid {
		if out, err := r.command("unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", r.home(), r.runtime()).CombinedOutput(); err != nil {
			r.t.Errorf("remove the user's files: %v: %s", err, out)
		}
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}

// theirPrograms is the directory with RootlessKit's own programs, of the version
// that go.mod names, and whoami. They are built once a run.
func theirPrograms(t *testing.T) string {
	t.Helper()
	dir, err := buildTheirs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var buildTheirs = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(sbxnet), "theirs")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // by the process that made this world
	}
	const module = "github.com/rootless-containers/rootlesskit/v3/cmd/"
	for _, packages := range [][]string{
		{module + "rootlesskit", module + "rootlessctl", module + "rootlesskit-docker-proxy"},
		{"sbxnet/cmd/sbxnet/e2e/testdata/whoami"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", dir + "/"}, packages...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %v: %w: %s", packages, err, out)
		}
	}
	return dir, nil
})

// command prepares a program as the user would type it: found among ours, then
// theirs, then the system's.
func (r *rootless) command(name string, args ...string) *exec.Cmd {
	search := []string{r.ours, r.theirs, os.Getenv("PATH"), "/usr/sbin", "/sbin"}
	if !strings.Contains(name, "/") {
		for _, dir := range search[:2] {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				name = filepath.Join(dir, name)
				break
			}
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = r.home()
	cmd.Env = []string{
		"HOME=" + r.home(), "XDG_RUNTIME_DIR=" + r.runtime(), "USER=" + r.user.name, "LOGNAME=" + r.user.name,
		"PATH=" + strings.Join(search, ":"), sceneOf(r.t).marker(), "GORACE=atexit_sleep_ms=0",
	}
	if os.Getuid() != r.user.uid {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(r.user.uid), Gid: uint32(r.user.gid)}}
	}
	return cmd
}

// real is the path of RootlessKit's own program.
func (r *rootless) real(name string) string { return filepath.Join(r.theirs, name) }

// start runs a program of the user's in the background; the test ends it.
func (r *rootless) start(name string, args ...string) *process {
	r.t.Helper()
	return startCommand(r.t, r.command(name, args...))
}

// ok runs a program of the user's to its end, which must be a good one, and
// returns its standard output.
func (r *rootless) ok(name string, args ...string) string {
	r.t.Helper()
	out, err := r.try(name, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// try returns a program's standard output, and an error with all that it said.
func (r *rootless) try(name string, args ...string) (string, error) {
	r.t.Helper()
	cmd := r.command(name, args...)
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return "", err
	}
	limit := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	defer limit.Stop()
	err := cmd.Wait()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// ctl asks a running sandbox by RootlessKit's own client.
func (r *rootless) ctl(socket string, args ...string) (string, error) {
	r.t.Helper()
	return r.try(r.real("rootlessctl"), append([]string{"--socket=" + socket}, args...)...)
}

// whoami asks a server of that name who we are; empty where nobody answers.
func whoami(network, address string) string {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if network == "udp" {
		c.Write([]byte("?"))
	}
	b := make([]byte, 100)
	n, _ := c.Read(b)
	host, _, _ := net.SplitHostPort(strings.TrimSpace(string(b[:n])))
	return host
}

// seenAs waits until the server at address answers, and returns as whom it sees
// its clients.
func (r *rootless) seenAs(network, address string) (host string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if host = whoami(network, address); host != "" {
			return host
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("no answer from %s %s", network, address)
		}
	}
}

// silent waits until nobody listens at a port of the host any more.
func (r *rootless) silent(port int) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); taken(port); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("port %d is still taken", port)
		}
	}
}
