// Package kerneltest has tests only: Linux's own TCP on one side of an impaired
// link, our stack on the other, and every byte compared.
package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests run as root of a user and network namespace of their own, which
// plays the host. Its lo has these addresses, so that to the sandbox they are
// somewhere else.
const (
	outside4 = "198.51.100.1"
	outside6 = "2001:db8:1::1"
)

const inHost = "KERNELTEST_IN_HOST_NAMESPACE"

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
	if err := cmd.Start(); err != nil {
		if os.Getenv("CI") == "true" {
			fmt.Fprintln(os.Stderr, "start in a new user and network namespace:", err)
			os.Exit(1)
		}
		os.Exit(m.Run()) // each test says why it is skipped
	}
	cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
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
	return nil
}
