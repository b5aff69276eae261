package portfwd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests run as root of a user and network namespace of their own, which
// plays the host: its lo carries the addresses below, and what else there is
// to reach is routes that fail in a known way.
const (
	outside4      = "198.51.100.1"    // a host somewhere, as far as the sandbox can tell
	outside6      = "2001:db8:1::1"   //
	unreachable4_ = "203.0.113.1"     // connect: EHOSTUNREACH
	prohibited4   = "203.0.113.129"   // connect: EACCES
	noRoute4      = "192.0.2.1"       // connect: ENETUNREACH
	noRoute6      = "2001:db8:ffff::" //
)

const inHost = "PORTFWD_TEST_IN_HOST_NAMESPACE"

// haveHost says that the tests run where they may open links.
var haveHost bool

func TestMain(m *testing.M) {
	if os.Getenv(inHost) != "" {
		if err := becomeHost(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the host's namespace:", err)
			os.Exit(1)
		}
		haveHost = true
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inHost+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(max(exit.ExitCode(), 1))
	}
	switch {
	case err == nil:
		os.Exit(0)
	case os.Getenv("CI") == "true":
		fmt.Fprintln(os.Stderr, "start in a new user and network namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func becomeHost() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range []string{outside4 + "/32", outside6 + "/128"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	for dst, kind := range map[string]int{unreachable4_ + "/32": unix.RTN_UNREACHABLE, prohibited4 + "/32": unix.RTN_PROHIBIT} {
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: prefix, Type: kind}); err != nil {
			return fmt.Errorf("add route to %s: %w", dst, err)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
}
