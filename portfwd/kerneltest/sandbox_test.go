package kerneltest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack/header"
	"sbxnet/portfwd"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
	"sbxnet/tapdev/pcap"
)

const (
	gateway4, sandbox4 = "10.0.2.2", "10.0.2.100"
	gateway6, sandbox6 = "fd00::2", "fd00::100"
	port               = "80" // of the sandbox's server
)

var (
	ourMAC   = header.MAC{0x02, 0x5b, 0x78, 0, 0, 1}
	guestMAC = header.MAC{0x02, 0x5b, 0x78, 0, 0, 2}
)

// world is a sandbox with Linux's TCP in it, an impaired link, and our stack.
// Payload is counted on either side of the impairment: what our stack sends and
// what the kernel sends, before any of it is lost.
type world struct {
	t         testing.TB
	fwd       *portfwd.Forwarder
	sandbox   *thread
	link      tapdev.Link
	inner     *counting // between the device and the impairment
	outer     *counting // between the impairment and our stack
	published map[string]netip.AddrPort
}

func newWorld(t testing.TB, kind tapdev.Kind, impairment string) *world {
	t.Helper()
	if !haveHost {
		t.Skip("this machine allows no user and network namespace")
	}
	if kind == tapdev.TAP {
		needTAP(t)
	}
	s, err := impair.Parse(impairment)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sandbox: newThread(t), published: make(map[string]netip.AddrPort)}
	var device tapdev.Link
	w.sandbox.do(func() { device, err = openLink(kind) })
	if err != nil {
		t.Fatal(err)
	}
	w.inner = count(captured(t, device, "kernel"))
	impaired, err := impair.Wrap(w.inner, s)
	if err != nil {
		device.Close()
		t.Fatal(err)
	}
	w.outer = count(captured(t, impaired, "stack"))
	w.link = w.outer
	t.Cleanup(func() { w.link.Close() })
	w.forward()
	return w
}

// captured writes what one side sees of a link to a file in the directory that
// KERNELTEST_PCAP names, if it does.
func captured(t testing.TB, l tapdev.Link, side string) tapdev.Link {
	dir := os.Getenv("KERNELTEST_PCAP")
	if dir == "" {
		return l
	}
	name := strings.NewReplacer("/", "_", "=", "", ",", "_", "%", "").Replace(t.Name()) + "_" + side + ".pcapng"
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := pcap.Capture(l, f, pcap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) forward() {
	w.t.Helper()
	specs, err := spec.ParseAll([]string{"127.0.0.1::" + port, "[::1]::" + port})
	if err != nil {
		w.t.Fatal(err)
	}
	bound, err := spec.Bind(specs)
	if err != nil {
		w.t.Fatal(err)
	}
	w.published["4"], w.published["6"] = bound[0].Host, bound[1].Host
	w.fwd, err = portfwd.New(portfwd.Config{
		Link: w.link, HardwareAddr: ourMAC, SandboxHardwareAddr: guestMAC, Published: bound,
		IPv4: portfwd.Addresses{Gateway: netip.MustParseAddr(gateway4), Sandbox: netip.MustParseAddr(sandbox4), Prefix: netip.MustParsePrefix("10.0.2.0/24")},
		IPv6: portfwd.Addresses{Gateway: netip.MustParseAddr(gateway6), Sandbox: netip.MustParseAddr(sandbox6), Prefix: netip.MustParsePrefix("fd00::/64")},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.fwd.Close() })
	if err := w.fwd.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// needTAP skips a test that cannot open /dev/net/tun. In CI that is a failure.
func needTAP(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
	case os.Getenv("CI") == "true":
		t.Fatalf("no TAP: %v", err)
	default:
		t.Skipf("no TAP: %v", err)
	}
}

// openLink is called inside the sandbox.
func openLink(kind tapdev.Kind) (tapdev.Link, error) {
	info, files, err := tapdev.Open(tapdev.Options{
		Kind: kind, Name: "tap0", MTU: 1500, Queues: 1, HardwareAddr: guestMAC[:],
		GSO: true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "fifo",
	})
	if err != nil {
		return nil, fmt.Errorf("open link: %w", err)
	}
	link, err := tapdev.Attach(info, files)
	if err != nil {
		return nil, err
	}
	if err := configureGuest(); err != nil {
		link.Close()
		return nil, fmt.Errorf("configure the sandbox: %w", err)
	}
	return link, nil
}

// configureGuest brings up the sandbox's interfaces. Its TCP uses cubic, as
// desktops do: the default here might be anything.
func configureGuest() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	tap, err := netlink.LinkByName("tap0")
	if err != nil {
		return err
	}
	for path, value := range map[string]string{
		"net/ipv6/conf/tap0/accept_dad": "0", "net/ipv6/conf/tap0/accept_ra": "0", "net/ipv4/tcp_congestion_control": "cubic",
		"net/ipv4/tcp_no_metrics_save": "1",
	} {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	for _, l := range []netlink.Link{lo, tap} {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	for _, a := range []string{sandbox4 + "/24", sandbox6 + "/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(tap, addr); err != nil {
			return err
		}
	}
	for _, gw := range []string{gateway4, gateway6} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: tap.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	return nil
}

// thread is an operating system thread in a network namespace of its own. What
// opens sockets inside the sandbox runs there; the sockets may be used anywhere.
type thread struct{ calls chan func() }

func newThread(t testing.TB) *thread {
	th := &thread{calls: make(chan func())}
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

func (th *thread) do(f func()) {
	done := make(chan struct{})
	th.calls <- func() { defer close(done); f() }
	<-done
}

// role is who opens a connection over the link.
type role string

const (
	kernelDials role = "kernel-dials" // a client in the sandbox, a server on the host
	stackDials  role = "stack-dials"  // a client of a published port, a server in the sandbox
)

// connect returns the two ends of a connection.
func (w *world) connect(r role, family string) (sandbox, host *net.TCPConn) {
	w.t.Helper()
	var l net.Listener
	var err error
	listen := func(address string) { l, err = net.Listen("tcp"+family, address) }
	inside, outside := net.JoinHostPort(sandbox4, port), net.JoinHostPort(outside4, "0")
	if family == "6" {
		inside, outside = net.JoinHostPort(sandbox6, port), net.JoinHostPort(outside6, "0")
	}
	if r == kernelDials {
		listen(outside)
	} else {
		w.sandbox.do(func() { listen(inside) })
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	var near net.Conn
	dial := func(address string) {
		near, err = (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: -1}).Dial("tcp"+family, address)
	}
	if r == kernelDials {
		w.sandbox.do(func() { dial(l.Addr().String()) })
	} else {
		dial(w.published[family].String())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { near.Close() })
	select {
	case far := <-accepted:
		w.t.Cleanup(func() { far.Close() })
		if r == kernelDials {
			return near.(*net.TCPConn), far.(*net.TCPConn)
		}
		return far.(*net.TCPConn), near.(*net.TCPConn)
	case <-time.After(20 * time.Second):
		w.t.Fatal("the server has not accepted")
	}
	return nil, nil
}
