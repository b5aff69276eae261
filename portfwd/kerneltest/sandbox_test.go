package kerneltest

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sbxnet/portfwd"
	"sbxnet/portfwd/internal/lab"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
	"sbxnet/tapdev/pcap"
)

const (
	gateway4, sandbox4 = lab.Gateway4, lab.Sandbox4
	gateway6, sandbox6 = lab.Gateway6, lab.Sandbox6
	outside4, outside6 = lab.Outside4, lab.Outside6
	port               = "80" // of the sandbox's server
)

// world is a sandbox with Linux's TCP in it, an impaired link, and our stack.
// Payload is counted on either side of the impairment: what our stack sends and
// what the kernel sends, before any of it is lost.
type world struct {
	t         testing.TB
	fwd       *portfwd.Forwarder
	sandbox   *lab.Thread
	link      tapdev.Link
	inner     *counting // between the device and the impairment
	outer     *counting // between the impairment and our stack
	published map[string]netip.AddrPort
}

func newWorld(t testing.TB, kind tapdev.Kind, impairment string) *world {
	t.Helper()
	lab.NeedHost(t)
	if kind == tapdev.TAP {
		lab.NeedTAP(t)
	}
	s, err := impair.Parse(impairment)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sandbox: lab.NewThread(t), published: make(map[string]netip.AddrPort)}
	var device tapdev.Link
	w.sandbox.Do(func() { device, err = openLink(kind) })
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
		Link: w.link, HardwareAddr: lab.GatewayMAC, SandboxHardwareAddr: lab.SandboxMAC, Published: bound,
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

// openLink is called inside the sandbox. Its TCP uses cubic, as desktops do: the
// default here might be anything.
func openLink(kind tapdev.Kind) (tapdev.Link, error) {
	return lab.OpenLink(lab.Link{Kind: kind, Configure: func() error {
		return lab.Configure(map[string]string{"net/ipv4/tcp_congestion_control": "cubic", "net/ipv4/tcp_no_metrics_save": "1"})
	}})
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
		w.sandbox.Do(func() { listen(inside) })
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
		w.sandbox.Do(func() { dial(l.Addr().String()) })
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
