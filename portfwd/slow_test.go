package portfwd

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/portfwd/internal/lab"
)

// deafListener listens on the host and answers no SYN any more, because its
// queue is full.
func deafListener(t *testing.T) net.Addr {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	at := &net.TCPAddr{IP: net.ParseIP(outside4), Port: sa.(*unix.SockaddrInet4).Port}
	for {
		c, err := net.DialTimeout("tcp", at.String(), 300*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
}

// openFromNowhere gives the forwarder n SYNs to one place, from as many ports,
// as if the sandbox had sent them: no socket there keeps account of them.
func (w *world) openFromNowhere(n int, to netip.AddrPort) {
	src := netip.MustParseAddr(sandbox4)
	s := w.fwd.shards[0]
	for from := 0; from < n; from += 500 { // not all in one turn
		s.call(func() {
			for i := from; i < min(from+500, n); i++ {
				b := make([]byte, 14+20+20)
				header.PutEthernet(b, header.EthernetFields{Destination: ourMAC, Source: guestMAC, Type: header.EtherTypeIPv4})
				header.PutIPv4(b[14:], header.IPv4Fields{Source: src, Destination: to.Addr(), Protocol: header.ProtocolTCP, TTL: 64, PayloadLen: 20})
				header.PutTCP(b[34:], header.TCPFields{SourcePort: uint16(10000 + i), DestinationPort: to.Port(),
					Seq: seq.Value(i), Flags: header.SYN, Window: 1000})
				header.TCP(b[34:]).SetPartialChecksum(src, to.Addr(), 0)
				s.stack.Input(b, frame.Offload{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16}, s.loop.Now())
			}
		})
	}
}

// connectTime is the middle of several.
func (w *world) connectTime() time.Duration {
	var took []time.Duration
	for range 9 {
		start := time.Now()
		w.connect(outside4)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func TestTenThousandSlowConnectsDelayNobody(t *testing.T) {
	const n = 10_000
	lab.NeedFiles(t, n+1000) // a connect is one
	w := newWorld(t)
	deaf := deafListener(t).(*net.TCPAddr).AddrPort()
	before := w.connectTime()
	empty := heapInUse()
	w.openFromNowhere(n, netip.AddrPortFrom(deaf.Addr().Unmap(), deaf.Port()))
	st := w.fwd.Stats()
	if held := st.Stacks[0].TCP.Held; held != n {
		t.Fatalf("%d connects in flight, want %d: %+v", held, n, st.TCP)
	}
	if each := (heapInUse() - empty) / n; each > 8<<10 {
		t.Errorf("a connect in flight takes %d bytes", each)
	}
	after := w.connectTime()
	t.Logf("a connect takes %v, behind %d slow ones %v", before, n, after)
	if after > before+100*time.Millisecond {
		t.Errorf("a connect takes %v, behind %d slow ones %v", before, n, after)
	}
	w.age(120 * time.Second)
	if st := w.fwd.Stats(); st.TCP.Idle < n || st.Stacks[0].TCP.Held != 0 {
		t.Errorf("%+v, %d held: not all were given up in the end", st.TCP, st.Stacks[0].TCP.Held)
	}
}

// heapInUse is in bytes, after collection.
func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestConnectionsPastTheLimitAreRefused(t *testing.T) {
	w := newWorld(t, queues(1), withConfig(func(c *Config) { c.Limits.TCP = 3 }), publishing("127.0.0.1::80"))
	w.listen("tcp4", sandbox4+":80")
	a, b := w.connect(outside4)
	w.connect(outside4)
	w.connect(outside4)
	l := hostListen(t, outside4)
	if c, err := w.dial("tcp", l.Addr().String()); err == nil {
		t.Error("a fourth connection goes out")
		c.Close()
	}
	if c, err := net.Dial("tcp", w.bound[0].Host.String()); err == nil {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("a fourth connection comes in: %v", err)
		}
		c.Close()
	}
	if st := w.fwd.Stats().TCP; st.Open != 3 || st.OverLimit != 2 {
		t.Errorf("%+v, want 3 open and 2 over the limit", st)
	}
	swap(t, a, b, 1000)
}

func TestClientThatGivesUpIsForgotten(t *testing.T) {
	w := newWorld(t, publishing("0.0.0.0::80"))
	var err error
	w.sandbox.Do(func() { // no way back: SYNs get no answer
		err = netlink.RouteAdd(&netlink.Route{Dst: netlink.NewIPNet(net.ParseIP(outside4)), Type: unix.RTN_BLACKHOLE})
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(outside4, portOf(addr(w.bound[0].Host.String()))))
	if err != nil {
		t.Fatal(err)
	}
	for w.fwd.Stats().TCP.Open == 0 {
		time.Sleep(time.Millisecond)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	for start := time.Now(); w.fwd.Stats().TCP.Open != 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("it is still there")
		}
	}
}

func TestTimeToLiveOfDatagramsIsKept(t *testing.T) {
	w := newWorld(t)
	for _, host := range []string{outside4, outside6} {
		server := hostListenPacket(t, host)
		c := w.mustDial("udp", server.LocalAddr().String())
		level, set, ask := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_RECVTTL
		kind := int32(unix.IP_TTL)
		if host == outside6 {
			level, set, ask = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVHOPLIMIT
			kind = unix.IPV6_HOPLIMIT
		}
		control(t, server, func(fd int) error { return unix.SetsockoptInt(fd, level, ask, 1) })
		for _, ttl := range []int{64, 5, 64, 200} {
			control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, level, set, ttl) })
			c.Write([]byte("?"))
			oob := make([]byte, 100)
			server.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, n, _, _, err := server.ReadMsgUDP(make([]byte, 10), oob)
			if err != nil {
				t.Fatal(err)
			}
			h, data, _, err := unix.ParseOneSocketControlMessage(oob[:n])
			if err != nil || h.Type != kind {
				t.Fatalf("control message %+v, %v", h, err)
			}
			if got := int(data[0]); got != ttl && got != ttl-1 { // a router may take one off
				t.Errorf("%s: sent with %d, arrived with %d", host, ttl, got)
			}
		}
	}
}

func control(t *testing.T, c net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = f(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
}

// held is how many bytes from the sandbox wait for the host's sockets.
func (w *world) held() (n int) {
	for _, s := range w.fwd.shards {
		s.call(func() {
			for r := range s.relays {
				if r.open {
					n += r.conn.Buffered()
				}
			}
		})
	}
	return n
}

func TestWhatIsHeldForASlowReaderOutlivesBothHalfCloses(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	sent := w.fill(t, near, 3) // far does not read
	near.(*net.TCPConn).CloseWrite()
	time.Sleep(50 * time.Millisecond) // for the end of the stream to arrive behind it
	far.(*net.TCPConn).CloseWrite()
	near.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	near.Read(make([]byte, 1))
	if n := compare(t, far, stream(sent, 3)); n != sent {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
	near.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want the end of the stream", err)
	}
}
