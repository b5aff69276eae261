package lab

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack/header"
	"sbxnet/tapdev"
	"sbxnet/tapdev/linktest"
)

// The addresses of a sandbox and of its gateway.
const (
	Gateway4, Sandbox4 = "10.0.2.2", "10.0.2.100"
	Gateway6, Sandbox6 = "fd00::2", "fd00::100"
)

// The two ends of its link.
var (
	GatewayMAC = header.MAC{0x02, 0x5b, 0x78, 0, 0, 1}
	SandboxMAC = header.MAC{0x02, 0x5b, 0x78, 0, 0, 2}
)

// Thread is an operating system thread in a network namespace of its own. What
// opens sockets inside the sandbox runs there; the sockets may be used anywhere.
type Thread struct{ calls chan func() }

// NewThread makes a namespace; it ends with the test.
func NewThread(t testing.TB) *Thread {
	th := &Thread{calls: make(chan func())}
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		started <- err
		if err != nil {
			return
		}
		for f := range th.calls {
			f()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("make the sandbox's namespace: %v", err)
	}
	t.Cleanup(func() { close(th.calls); <-ended })
	return th
}

// Do runs f in the namespace and waits for it.
func (th *Thread) Do(f func()) {
	done := make(chan struct{})
	th.calls <- func() { defer close(done); f() }
	<-done
}

// Try is Do for what can fail.
func (th *Thread) Try(f func() error) (err error) {
	th.Do(func() { err = f() })
	return err
}

// Namespace is the thread's network namespace; the caller closes it.
func (th *Thread) Namespace(t testing.TB) (ns *os.File) {
	t.Helper()
	err := th.Try(func() (err error) {
		ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// Link is what OpenLink is to open. What a test leaves open, and the offloads,
// are what SBXNET_TEST_LINK says, if it does.
type Link struct {
	Kind   tapdev.Kind // empty for tapdev.Auto
	MTU    int         // 0 for 1500
	Queues int         // 0 for 1
	// Configure sets up the sandbox's side of the link.
	Configure func() error
}

// options of the link, all offloads unless somebody chose otherwise.
func (l Link) options() tapdev.Options {
	o := tapdev.Options{
		Kind: tapdev.Auto, Name: "tap0", MTU: max(l.MTU, 1500), Queues: 1, HardwareAddr: SandboxMAC[:],
		GSO: true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "fifo",
	}
	linktest.Chosen().Apply(&o)
	if l.Kind != "" {
		o.Kind = l.Kind
	}
	if l.Queues != 0 {
		o.Queues = l.Queues
	}
	return o
}

// OpenLink opens a link, called inside the sandbox.
func OpenLink(l Link) (tapdev.Link, error) {
	info, files, err := tapdev.Open(l.options())
	if err != nil {
		return nil, fmt.Errorf("open link: %w", err)
	}
	link, err := tapdev.Attach(info, files)
	if err != nil {
		return nil, err
	}
	if err := l.Configure(); err != nil {
		link.Close()
		return nil, fmt.Errorf("configure the sandbox: %w", err)
	}
	return link, nil
}

// Configure brings up the sandbox's interfaces with their addresses and routes.
// sysctls are paths below /proc/sys, set before.
func Configure(sysctls map[string]string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	tap, err := netlink.LinkByName("tap0")
	if err != nil {
		return err
	}
	for _, path := range []string{"net/ipv6/conf/tap0/accept_dad", "net/ipv6/conf/tap0/accept_ra"} {
		if err := os.WriteFile("/proc/sys/"+path, []byte("0"), 0); err != nil {
			return err
		}
	}
	for path, value := range sysctls {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	for _, l := range []netlink.Link{lo, tap} {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	if err := addAddresses(tap, Sandbox4+"/24", Sandbox6+"/64"); err != nil {
		return err
	}
	for _, gw := range []string{Gateway4, Gateway6} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: tap.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	return AwaitAddress(Sandbox6)
}

// AwaitAddress waits until the kernel delivers to an IPv6 address that was just
// added: it installs the local route from a work queue (addrconf_dad_work).
func AwaitAddress(a string) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if routes, err := netlink.RouteGet(net.ParseIP(a)); err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Since(start) > 5*time.Second {
			return fmt.Errorf("%s is not there", a)
		}
	}
}
