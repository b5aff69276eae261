package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A world is a host that the test makes: namespaces with an address on the
// documentation networks, joined by a veth pair to a remote host in a network
// namespace of its own. Nothing in it reaches the machine.
//
//	remote 192.0.2.9, 2001:db8::9  ──veth──  host 192.0.2.1, 2001:db8::1
const (
	hostAddr4, hostAddr6     = "192.0.2.1", "2001:db8::1"
	remoteAddr4, remoteAddr6 = "192.0.2.9", "2001:db8::9"
)

const worldEnv = "SBXNET_E2E_WORLD"

func inWorld() bool { return os.Getenv(worldEnv) != "" }

// inAWorld runs the rest of the test inside a world: outside of one it runs the
// test binary again for this test alone, reports what it said, and returns
// false. Usage: if !inAWorld(t) { return }.
func inAWorld(t *testing.T) bool {
	t.Helper()
	if inWorld() {
		setUpWorld(t)
		return true
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), worldEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		GidMappingsEnableSetgroups: false,
		Pdeathsig:                  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case err != nil:
		t.Fatalf("in a world: %v\n%s", err, text)
	case strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skipf("in a world:\n%s", text)
	case !strings.Contains(text, "--- PASS: "+t.Name()+" "):
		t.Fatalf("in a world the test did not run:\n%s", text)
	}
	return false
}

var remoteNS netns.NsHandle

func setUpWorld(t *testing.T) {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("world: %s: %v", what, err)
		}
	}
	must("private mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must("loopback", up("lo"))
	ns, err := newNetNS()
	must("remote namespace", err)
	remoteNS = ns
	t.Cleanup(func() { remoteNS.Close() })
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "host0"},
		PeerName:      "remote0",
		PeerNamespace: netlink.NsFd(int(remoteNS)),
	}
	must("veth", netlink.LinkAdd(veth))
	must("host addresses", address("host0", hostAddr4+"/24", hostAddr6+"/64"))
	must("host link", up("host0"))
	remote(t, func() {
		must("remote loopback", up("lo"))
		must("remote addresses", address("remote0", remoteAddr4+"/24", remoteAddr6+"/64"))
		must("remote link", up("remote0"))
	})
}

// remote runs f on a thread in the remote host's network namespace. Sockets
// that f makes and programs that it starts belong there and stay there; f must
// make them itself, not in goroutines.
func remote(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(remoteNS)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter the remote namespace: %v", err)
	}
}

// newNetNS makes a network namespace without moving the caller into it.
func newNetNS() (netns.NsHandle, error) {
	type made struct {
		ns  netns.NsHandle
		err error
	}
	c := make(chan made)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		c <- made{ns, err}
	}()
	m := <-c
	return m.ns, m.err
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func address(name string, prefixes ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, p := range prefixes {
		ip, network, err := net.ParseCIDR(p)
		if err != nil {
			return err
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: network.Mask}}
		if ip.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, name, err)
		}
	}
	return nil
}
