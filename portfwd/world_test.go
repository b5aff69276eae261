package portfwd

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack"
	"sbxnet/portfwd/internal/lab"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
)

// world is a sandbox with Linux's own TCP/IP inside, a link into it, and a
// forwarder on the link's other end.
type world struct {
	t       testing.TB
	fwd     *Forwarder
	link    tapdev.Link
	sandbox *lab.Thread
	bound   []spec.Bound
}

const (
	gateway4, sandbox4 = lab.Gateway4, lab.Sandbox4
	gateway6, sandbox6 = lab.Gateway6, lab.Sandbox6
	outside4, outside6 = lab.Outside4, lab.Outside6
)

var ourMAC, guestMAC = lab.GatewayMAC, lab.SandboxMAC

type option func(*worldOptions)

type worldOptions struct {
	Config
	kind    tapdev.Kind
	queues  int // 0, like an empty kind: not this test's to choose
	publish []string
	bare    bool // the guest configures itself
	spliced bool
	guest   func() error
}

func withConfig(f func(*Config)) option { return func(o *worldOptions) { f(&o.Config) } }
func publishing(specs ...string) option { return func(o *worldOptions) { o.publish = specs } }
func queues(n int) option               { return func(o *worldOptions) { o.queues = n } }
func linked(k tapdev.Kind) option       { return func(o *worldOptions) { o.kind = k } }
func spliced(o *worldOptions)           { o.spliced = true }
func hostLoopback(o *worldOptions)      { o.HostLoopback = true }

// newWorld makes a sandbox and forwards for it until the test ends. The test
// fails if that leaves a descriptor or goroutine behind.
func newWorld(t testing.TB, options ...option) *world {
	t.Helper()
	lab.NeedHost(t)
	runtime.GC()
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	t.Cleanup(func() { checkNothingLeft(t, fds, goroutines) })

	var o worldOptions
	o.Config = Config{
		IPv4: Addresses{netip.MustParseAddr(gateway4), netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr(sandbox4), netip.MustParsePrefix("10.0.2.0/24")},
		IPv6: Addresses{netip.MustParseAddr(gateway6), netip.MustParseAddr("fd00::3"), netip.MustParseAddr(sandbox6), netip.MustParsePrefix("fd00::/64")},

		HardwareAddr: ourMAC, SandboxHardwareAddr: guestMAC,
	}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range options {
		f(&o)
	}
	if o.kind == tapdev.TAP {
		lab.NeedTAP(t)
	}
	w := &world{t: t, sandbox: lab.NewThread(t)}
	var err error
	w.sandbox.Do(func() { w.link, err = openLink(&o) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.link.Close() })
	o.Link = w.link
	if o.spliced {
		if err := w.sandbox.Try(lab.AllowInside); err != nil {
			t.Fatal(err)
		}
		o.Sockets = w.sandbox.Inside
	}
	if len(o.publish) > 0 {
		specs, err := spec.ParseAll(o.publish)
		if err != nil {
			t.Fatal(err)
		}
		if o.Published, err = spec.Bind(specs); err != nil {
			t.Fatal(err)
		}
		w.bound = o.Published
	}
	if w.fwd, err = New(o.Config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.fwd.Close() })
	if err := w.fwd.Start(); err != nil {
		t.Fatal(err)
	}
	if len(o.publish) > 0 {
		w.awaitInside(t)
	}
	return w
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	fmt.Fprintf(os.Stderr, "    %s: %s", w.t.Name(), p)
	return len(p), nil
}

// openLink is called inside the sandbox.
func openLink(o *worldOptions) (tapdev.Link, error) {
	l := lab.Link{Kind: o.kind, MTU: o.MTU, Queues: o.queues, Configure: configureGuest}
	if o.bare {
		l.Configure = prepareBareGuest
	}
	if o.guest != nil {
		l.Configure = o.guest
	}
	return lab.OpenLink(l)
}

func configureGuest() error {
	return lab.Configure(map[string]string{
		"net/ipv4/conf/tap0/route_localnet": "1", "net/ipv4/conf/tap0/accept_local": "1", "net/ipv4/ping_group_range": "0 0", "net/ipv4/icmp_ratemask": "0", "net/ipv6/icmp/ratelimit": "0",
	})
}

// inStacks adds up a figure of all shards' stacks.
func (w *world) inStacks(figure func(*netstack.Stats) int) (sum int) {
	st := w.fwd.Stats()
	for i := range st.Stacks {
		sum += figure(&st.Stacks[i])
	}
	return sum
}

// dial connects from inside the sandbox.
func (w *world) dial(network, address string) (net.Conn, error) {
	var c net.Conn
	var err error
	w.sandbox.Do(func() { c, err = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}).Dial(network, address) })
	if err == nil {
		w.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (w *world) mustDial(network, address string) net.Conn {
	w.t.Helper()
	c, err := w.dial(network, address)
	if err != nil {
		w.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// listen listens inside the sandbox.
func (w *world) listen(network, address string) net.Listener {
	w.t.Helper()
	var l net.Listener
	var err error
	w.sandbox.Do(func() { l, err = net.Listen(network, address) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	return l
}

func (w *world) listenPacket(network, address string) *net.UDPConn {
	w.t.Helper()
	var c net.PacketConn
	var err error
	w.sandbox.Do(func() { c, err = net.ListenPacket(network, address) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// hostListen listens on the host, on a free port.
func hostListen(t testing.TB, host string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func hostListenPacket(t testing.TB, host string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func openFiles(t testing.TB) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	fds := make(map[string]string)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") {
			fds[e.Name()] = to
		}
	}
	return fds
}

// checkNothingLeft waits a little: what the runtime closes in the background is
// not ours to hurry.
func checkNothingLeft(t testing.TB, fds map[string]string, goroutines int) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		now := openFiles(t)
		n := runtime.NumGoroutine()
		if len(now) <= len(fds)+1 && n <= goroutines { // the runtime's own epoll set comes late
			return
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Errorf("%d descriptors %v, were %d; %d goroutines, were %d:\n%s",
				len(now), now, len(fds), n, goroutines, buf[:runtime.Stack(buf, true)])
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
