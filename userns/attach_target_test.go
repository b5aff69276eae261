package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// Our ID inside decides whether capabilities outlive an exec.
func TestAttachWhoeverWeAreInside(t *testing.T) {
	for name, flags := range map[string][]string{
		"root":          rootInside,
		"another user":  {"--user", "--map-user=1000", "--map-group=1000", "--net"},
		"nobody":        {"--user", "--net"}, // nothing is mapped
		"PID namespace": {"--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc"},
	} {
		for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
			t.Run(fmt.Sprintf("%s, %s", name, kind), func(t *testing.T) {
				if kind == tapdev.TAP {
					needTAP(t)
				}
				ns := makeNamespace(t, "", flags...)
				cfg := attachTo(ns)
				cfg.Link.Kind = kind
				a := attached(t, cfg)
				if f := a.Found(); fmt.Sprint(f.Addresses) != fmt.Sprint(cfg.Addresses) {
					t.Errorf("found %+v", f)
				}
				ns.end(t)
				soon(t, a.Done())
			})
		}
	}
}

func TestAttachWithTheUserNamespaceGiven(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	cfg := attachTo(ns)
	cfg.PID = 0
	cfg.NetNS, cfg.UserNS = fmt.Sprintf("/proc/%d/ns/net", ns.pid), fmt.Sprintf("/proc/%d/ns/user", ns.pid)
	attached(t, cfg)
}

// Inside the user namespace of somebody else a process with our ID could be
// traced by that one.
func TestRootEntersNoUserNamespaceOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can attach to the namespaces of others")
	}
	ns := makeNamespaceOf(t, 12345)
	a := attached(t, attachTo(ns))
	got, err := pathNamespace(fmt.Sprintf("/proc/%d/ns/user", a.PID()))
	must(t, err)
	if own, _ := ownNamespace("user"); got != own {
		t.Error("our process is in the other's user namespace")
	}
}

// makeNamespaceOf makes a user and network namespace of another user.
func makeNamespaceOf(t *testing.T, uid uint32) theirs {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: uid},
	}
	cmd.Path, err = exec.LookPath("unshare")
	must(t, err)
	cmd.Args = []string{"unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec cat"}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return theirs{cmd.Process.Pid}
}

func TestAttachToNamespacesOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		// Not as root, whom nothing is refused: a process of another ID tries.
		exe, err := os.Executable()
		must(t, err)
		readable := filepath.Join(t.TempDir(), "test")
		b, err := os.ReadFile(exe)
		must(t, err)
		must(t, os.WriteFile(readable, b, 0o755))
		for dir := filepath.Dir(readable); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
			must(t, os.Chmod(dir, 0o755))
		}
		ns := makeNamespaceOf(t, 12345)
		cmd := exec.Command(readable, "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", refusedEnv, ns.pid))
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	pid := 1 // as an ordinary user: the first process is somebody else's
	if s := os.Getenv(refusedEnv); s != "" {
		fmt.Sscan(s, &pid)
	}
	cfg := attachTo(theirs{pid})
	if a, err := Attach(cfg); err == nil {
		a.Close()
		t.Error("attached")
	} else if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "and root") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if _, err := Join(pid, []string{"true"}, nil, ""); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "and root") {
		t.Errorf("Join: %v", err)
	}
}

const refusedEnv = "SBXNET_TEST_REFUSED"

func TestAttachmentIsDoneWhenThePathLeadsElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		// To mount, an ordinary user needs namespaces of its own.
		inOwnNamespaces(t)
		return
	}
	for name, end := range map[string]func(t *testing.T, path string){
		"unmounted": func(t *testing.T, path string) { must(t, unix.Unmount(path, unix.MNT_DETACH)) },
		"unmounted and removed": func(t *testing.T, path string) {
			must(t, unix.Unmount(path, unix.MNT_DETACH))
			must(t, os.Remove(path))
		},
		"mounted over": func(t *testing.T, path string) {
			must(t, unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := makeNamespace(t, "", "--net")
			path := filepath.Join(t.TempDir(), "ns")
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/net", ns.pid), path, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
			cfg := attachTo(ns)
			cfg.PID, cfg.NetNS = 0, path
			a := attached(t, cfg)
			ns.end(t)
			select {
			case <-a.Done():
				t.Fatal("done while the path leads to it")
			default:
			}
			end(t, path)
			soon(t, a.Done())
		})
	}
}

func TestAttachmentIsDoneWhenItsLinkIsRemoved(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	link := filepath.Join(t.TempDir(), "ns")
	must(t, os.Symlink(fmt.Sprintf("/proc/%d/ns/net", ns.pid), link))
	cfg := attachTo(ns)
	cfg.PID, cfg.NetNS = 0, link
	a := attached(t, cfg)
	must(t, os.Remove(link))
	soon(t, a.Done())
}

// inOwnNamespaces runs the calling test again as root of a user and mount
// namespace.
func inOwnNamespaces(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", exe, "-test.run=^"+t.Name()+"$", "-test.v")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAttachToAProcessThatEndsMeanwhile(t *testing.T) {
	before := openFiles(t)
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { // so that its namespace goes
			ns := makeNamespace(t, "", rootInside...)
			go syscall.Kill(ns.pid, syscall.SIGKILL)
			a, err := Attach(attachTo(ns))
			if err == nil {
				soon(t, a.Done())
				must(t, a.Close())
			} else if !errors.Is(err, unix.ESRCH) || strings.Contains(err.Error(), "\n") {
				t.Error(err)
			}
		})
	}
	for _, pid := range processesWith(t, attachName) {
		if parentOf(pid) == os.Getpid() { // others run tests as well
			t.Errorf("process %d is left", pid)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestProcessInsideHasNoDescriptorsOfOurs(t *testing.T) {
	secret, err := os.Open("/dev/zero")
	must(t, err)
	defer secret.Close()
	// One that is not close-on-exec, like what a careless caller leaves open.
	leak, err := unix.FcntlInt(secret.Fd(), unix.F_DUPFD, 40)
	must(t, err)
	defer unix.Close(leak)
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	dir := fmt.Sprintf("/proc/%d/fd/", a.PID())
	until(t, "it has neither the link, which was sent to us, nor what we have", func() bool {
		fds, err := os.ReadDir(dir)
		must(t, err)
		for _, fd := range fds {
			if to, _ := os.Readlink(dir + fd.Name()); to == "/dev/zero" || strings.Contains(to, "tun") || strings.HasPrefix(to, "net:") {
				return false
			}
		}
		return true
	})
	sb := runningSandbox(t, unlinked())
	out, err := joinCommand(t, sb.PID(), "ls -l /proc/self/fd").Output()
	must(t, err)
	if strings.Contains(string(out), "/dev/zero") {
		t.Errorf("the command has\n%s", out)
	}
}

func TestKillingWhoAttachedEndsTheProcessInside(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	p := startAttachParent(t, attachSpec{PID: ns.pid})
	must(t, syscall.Kill(p.inside, syscall.SIGSTOP)) // even so
	p.kill(t)
	until(t, "the link goes too", func() bool { return !strings.Contains(ns.run(t, "ip -o link"), "tap0") })
}
