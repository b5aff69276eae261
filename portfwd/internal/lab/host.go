package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The host's lo has these addresses, so that to a sandbox they are somewhere
// else, and not the host's loopback.
const (
	Outside4 = "198.51.100.1"
	Outside6 = "2001:db8:1::1"
)

const inHost = "SBXNET_LAB_HOST"

// haveHost says that the tests run where they may open links.
var haveHost bool

// Main is the body of a TestMain: it runs the test binary again as root of a
// user and network namespace, with the host's addresses, and the tests there.
// prepare, which may be nil, is called in it before them. Where the machine
// allows no such namespace the tests run all the same and NeedHost says so; in
// CI that is a failure.
func Main(m *testing.M, prepare func() error) {
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") }) {
		// Targets need no host. Their workers go by inherited descriptors, and
		// their cache may have files of users that the namespace does not know.
		os.Exit(m.Run())
	}
	if os.Getenv(inHost) != "" {
		err := becomeHost()
		if err == nil && prepare != nil {
			err = prepare()
		}
		if err != nil {
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
	if err := addAddresses(lo, Outside4+"/32", Outside6+"/128"); err != nil {
		return err
	}
	return AwaitAddress(Outside6)
}

func addAddresses(l netlink.Link, prefixes ...string) error {
	for _, p := range prefixes {
		addr, err := netlink.ParseAddr(p)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, l.Attrs().Name, err)
		}
	}
	return nil
}

// NeedHost skips a test where there is no host's namespace.
func NeedHost(t testing.TB) {
	t.Helper()
	if !haveHost {
		Unavailable(t, "this machine allows no user and network namespace")
	}
}

// Unavailable skips a test for something the machine cannot do. In CI the machine is
// ours, so there it is a failure.
func Unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("in CI: "+format, args...)
	}
	t.Skipf(format, args...)
}

// NeedTAP is for a test that opens /dev/net/tun.
func NeedTAP(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		Unavailable(t, "no TAP: %v", err)
	}
	f.Close()
}

// NeedFiles raises the limit on open files for a test that has n of them.
func NeedFiles(t testing.TB, n uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if old.Cur >= n {
		return
	}
	if old.Max < n {
		Unavailable(t, "%d open files are allowed, %d are needed", old.Max, n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}
