package outlet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/portfwd/spec"
)

func TestMain(m *testing.M) { lab.Main(m, nil) }

// world is a host, which is where the test runs, and a sandbox without a link.
type world struct {
	*testing.T
	sandbox *lab.Thread
	outlets *Outlets
}

func newWorld(t *testing.T, limits Limits) *world {
	t.Helper()
	lab.NeedHost(t)
	if c, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil { // has the runtime make its epoll set
		c.Close()
	}
	fds, goroutines := files(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		runtime.GC() // closes the pipes of splice(2) that the net package keeps
		runtime.GC()
		for start := time.Now(); files(t) > fds || runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("%d descriptors, were %d; %d goroutines, were %d", files(t), fds, runtime.NumGoroutine(), goroutines)
			}
		}
	})
	w := &world{T: t, sandbox: lab.NewThread(t), outlets: New(Config{Limits: limits})}
	t.Cleanup(func() { w.outlets.Close() })
	err := w.sandbox.Try(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// bind makes sockets in the sandbox that lead to a port of the host.
func (w *world) bind(p spec.Protocol, at string, port uint16) []spec.Bound {
	w.Helper()
	a := netip.MustParseAddrPort(at)
	var bound []spec.Bound
	err := w.sandbox.Try(func() (err error) {
		bound, err = spec.Bind([]spec.Spec{{Protocol: p, HostIP: a.Addr(), HostPort: a.Port(), Port: port, Count: 1}})
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return bound
}

func (w *world) open(p spec.Protocol, at string, port uint16) []spec.Bound {
	w.Helper()
	bound := w.bind(p, at, port)
	if err := w.outlets.Open(bound); err != nil {
		w.Fatal(err)
	}
	return bound
}

// dial connects from inside the sandbox.
func (w *world) dial(network, address string) net.Conn {
	w.Helper()
	c, err := w.tryDial(network, address)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) tryDial(network, address string) (c net.Conn, err error) {
	if err = w.sandbox.Try(func() (err error) { c, err = net.Dial(network, address); return err }); err != nil {
		return nil, err
	}
	w.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, nil
}

// listen listens on the host.
func (w *world) listen(address string) (net.Listener, uint16) {
	w.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (w *world) listenPacket(address string) (net.PacketConn, uint16) {
	w.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}

func TestStreamsReachTheHostsLoopbackBothWays(t *testing.T) {
	w := newWorld(t, Limits{})
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		l, port := w.listen(host + ":0")
		w.open(spec.TCP, host+":7001", port)
		client := w.dial("tcp", host+":7001")
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.SetDeadline(time.Now().Add(20 * time.Second))
		up, down := make([]byte, 3<<20), make([]byte, 5<<20)
		fill := rand.NewChaCha8([32]byte{})
		fill.Read(up)
		fill.Read(down)
		go func() { server.Write(down); server.(*net.TCPConn).CloseWrite() }()
		go func() { client.Write(up); client.(*net.TCPConn).CloseWrite() }()
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, up) {
			t.Errorf("%s: up %d bytes, %v", host, len(got), err)
		}
		if got, err = io.ReadAll(client); err != nil || !bytes.Equal(got, down) {
			t.Errorf("%s: down %d bytes, %v", host, len(got), err)
		}
	}
}

func TestRefusedAndResetCrossAsResets(t *testing.T) {
	w := newWorld(t, Limits{})
	l, port := w.listen("127.0.0.1:0")
	w.open(spec.TCP, "127.0.0.1:7001", port)
	c := w.dial("tcp", "127.0.0.1:7001")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	reset(server)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("server's reset: %v", err)
	}
	c = w.dial("tcp", "127.0.0.1:7001")
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	reset(c)
	server.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("client's reset: %v", err)
	}
	l.Close()
	c, err = w.tryDial("tcp", "127.0.0.1:7001")
	if err == nil { // else the reset was faster than Dial
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestDatagramsReachTheHostAndClientsAreKeptApart(t *testing.T) {
	w := newWorld(t, Limits{})
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		s, port := w.listenPacket(host + ":0")
		go echoPackets(s)
		w.open(spec.UDP, host+":7000", port)
		a, b := w.dial("udp", host+":7000"), w.dial("udp", host+":7000")
		buf := make([]byte, 100)
		for range 3 {
			a.Write([]byte("of a"))
			b.Write([]byte("of b"))
			for c, want := range map[net.Conn]string{a: "of a", b: "of b"} {
				if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
					t.Errorf("%s: %q, %v, want %q", host, buf[:n], err, want)
				}
			}
		}
	}
}

func TestIdleFlowsEndAndLimitsHold(t *testing.T) {
	w := newWorld(t, Limits{Connections: 1, Flows: 1, IdleFlow: 500 * time.Millisecond})
	l, port := w.listen("127.0.0.1:0")
	w.open(spec.TCP, "127.0.0.1:7001", port)
	c := w.dial("tcp", "127.0.0.1:7001")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	second, err := w.tryDial("tcp", "127.0.0.1:7001")
	if err == nil { // else the reset was faster than Dial
		_, err = second.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a second connection: %v", err)
	}
	go io.Copy(server, server)
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("the first connection: %v", err)
	}

	s, port := w.listenPacket("127.0.0.1:0")
	go echoPackets(s)
	w.open(spec.UDP, "127.0.0.1:7000", port)
	a, b := w.dial("udp", "127.0.0.1:7000"), w.dial("udp", "127.0.0.1:7000")
	a.Write([]byte("a"))
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// The second client is served once the first's flow has ended by being idle.
	for start := time.Now(); ; {
		b.Write([]byte("b"))
		b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := b.Read(make([]byte, 1)); err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the idle flow did not end")
		}
	}
}

func TestShutFreesThePortAndLeavesConnections(t *testing.T) {
	w := newWorld(t, Limits{})
	l, port := w.listen("127.0.0.1:0")
	bound := append(w.open(spec.TCP, "127.0.0.1:7001", port), w.open(spec.UDP, "127.0.0.1:7000", port)...)
	c := w.dial("tcp", "127.0.0.1:7001")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	unknown := spec.Bound{Protocol: spec.TCP, Host: netip.MustParseAddrPort("127.0.0.1:7002")}
	if err := w.outlets.Shut([]spec.Bound{bound[0], unknown}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:7002/tcp") {
		t.Errorf("shut an unknown one: %v", err)
	}
	if err := w.outlets.Shut(bound); err != nil {
		t.Fatal(err)
	}
	again := append(w.bind(spec.TCP, "127.0.0.1:7001", port), w.bind(spec.UDP, "127.0.0.1:7000", port)...)
	spec.CloseAll(again)
	go io.Copy(server, server)
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
}

func TestOpenIsAllOrNothing(t *testing.T) {
	w := newWorld(t, Limits{})
	w.open(spec.TCP, "127.0.0.1:7001", 80)
	good := w.bind(spec.TCP, "127.0.0.1:7002", 80)
	for name, bad := range map[string]spec.Bound{
		"closed":  {FD: -1, Protocol: spec.TCP, Port: 80},
		"port 0":  {FD: -1, Protocol: spec.TCP},
		"opened":  {FD: good[0].FD, Protocol: spec.TCP, Host: netip.MustParseAddrPort("127.0.0.1:7001"), Port: 80},
		"not UDP": {FD: good[0].FD, Protocol: spec.UDP, Host: netip.MustParseAddrPort("127.0.0.1:7003"), Port: 80},
	} {
		list := w.bind(spec.TCP, "127.0.0.1:7004", 80)
		if bad.FD >= 0 {
			fd, err := unix.FcntlInt(uintptr(good[0].FD), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			bad.FD = fd
		}
		if err := w.outlets.Open(append(list, bad)); err == nil || !strings.HasPrefix(err.Error(), "outlet ") {
			t.Errorf("%s: %v", name, err)
		}
		spec.CloseAll(w.bind(spec.TCP, "127.0.0.1:7004", 80)) // it is free
	}
	spec.CloseAll(good)
	if err := w.outlets.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.outlets.Open(w.bind(spec.TCP, "127.0.0.1:7001", 80)); err != errClosed {
		t.Errorf("after Close: %v", err)
	}
}
