package netstack

import (
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// sink is a Handler that takes everything and keeps nothing.
type sink struct{ bytes int }

func (s *sink) OpenTCP(c *tcp.Conn)            { c.Accept(s) }
func (s *sink) Datagram(d *Datagram)           { s.bytes += len(d.Payload) }
func (s *sink) Echo(*Echo)                     {}
func (s *sink) Unreachable(*Unreachable)       {}
func (s *sink) Established(*tcp.Conn)          {}
func (s *sink) Data(_ *tcp.Conn, p []byte) int { s.bytes += len(p); return len(p) }
func (s *sink) EOF(*tcp.Conn)                  {}
func (s *sink) Writable(*tcp.Conn)             {}
func (s *sink) Closed(*tcp.Conn, error)        {}

// sinkStack is a stack with a sink for a handler, and its batch.
func sinkStack(t testing.TB) (*Stack, *sink, *frame.Batch) {
	t.Helper()
	h, b := &sink{}, &frame.Batch{}
	c := labConfig()
	c.Handler, c.Output = h, b
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s, h, b
}

// noAllocs asserts that f, called over and over, allocates nothing.
func noAllocs(t *testing.T, f func()) {
	t.Helper()
	for range 100 {
		f()
	}
	if n := testing.AllocsPerRun(500, f); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestUDPAllocatesNothing(t *testing.T) {
	s, h, batch := sinkStack(t)
	turn := func() { batch.Reset(); s.Reclaim() }
	payload := make([]byte, 1400)
	for name, f := range map[string]func(){
		"in v4":        inputOf(s, udp("10.0.2.100:1", "9.9.9.9:53", string(payload))),
		"in v6":        inputOf(s, udp("[fd00::100]:1", "[2001:db8::1]:53", string(payload))),
		"out v4":       func() { s.SendUDP(port9, portSandbox, payload, 0); turn() },
		"out v6":       func() { s.SendUDP(port96, portSandbox6, payload, 0); turn() },
		"train":        func() { s.SendUDPNoCopy(port9, portSandbox, payload, 100); turn() },
		"to 127.0.0.1": func() { s.SendUDP(port9, portLoopback, payload, 0); turn() },
	} {
		t.Run(name, func(t *testing.T) { noAllocs(t, f) })
	}
	if h.bytes == 0 {
		t.Fatal("nothing arrived")
	}
}

var (
	port9        = netip.MustParseAddrPort("9.9.9.9:53")
	portSandbox  = netip.MustParseAddrPort("10.0.2.100:4000")
	portLoopback = netip.MustParseAddrPort("127.0.0.1:80")
	port96       = netip.MustParseAddrPort("[2001:db8::1]:53")
	portSandbox6 = netip.MustParseAddrPort("[fd00::100]:4000")
)

func inputOf(s *Stack, packet []byte) func() {
	data := ethernet(sandboxMAC, stackMAC, packet)
	return func() { s.Input(data, frame.Offload{}, 0) }
}

func TestAppendTCPAllocatesNothing(t *testing.T) {
	s, _, batch := sinkStack(t)
	for _, r := range []tcp.Route{{Local: port9, Remote: portSandbox}, {Local: port96, Remote: portSandbox6}, {Local: port9, Remote: portLoopback}} {
		noAllocs(t, func() {
			if f, _ := s.AppendTCP(&r, 32, 1400); f == nil {
				t.Fatal("no frame")
			}
			batch.Reset()
		})
		if r.Cache.Len == 0 {
			t.Fatal("no template was made")
		}
	}
}

// tcpPair is a connection between two stacks with neighbours known, and what
// moves one turn of frames.
type tcpPair struct {
	ends    [2]*Stack
	batches [2]*frame.Batch
	conn    *tcp.Conn
	sink    *sink
	wire    []byte
	now     timer.Instant
}

func newTCPPair(t testing.TB) *tcpPair {
	p := &tcpPair{wire: make([]byte, 0, 1<<17)}
	p.ends[0], p.sink, p.batches[0] = sinkStack(t)
	c := labConfig()
	p.batches[1] = &frame.Batch{}
	c.HardwareAddr, c.Output = sandboxMAC, p.batches[1]
	c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24")}
	c.NextHop4, c.NextHop6 = ip("10.0.2.2"), netip.Addr{}
	c.Neighbors = []Neighbor{{ip("10.0.2.2"), stackMAC}}
	var err error
	if p.ends[1], err = New(c); err != nil {
		t.Fatal(err)
	}
	if p.conn, err = p.ends[1].TCP().Dial(netip.AddrPortFrom(ip("10.0.2.100"), 1), port9, &sink{}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		p.turn()
	}
	if p.conn.State() != tcp.Established {
		t.Fatalf("connection is %v", p.conn.State())
	}
	return p
}

// turn is one turn of each stack's loop.
func (p *tcpPair) turn() {
	p.now += timer.Instant(20 * time.Microsecond)
	for i, s := range p.ends {
		s.Tick(p.now)
		s.Flush()
		for j := range p.batches[i].Frames() {
			f := &p.batches[i].Frames()[j]
			p.wire = f.AppendTo(p.wire[:0])
			p.ends[1-i].Input(p.wire, f.Offload, p.now)
		}
		p.batches[i].Reset()
		s.Reclaim()
	}
}

func TestTCPTransferAllocatesNothing(t *testing.T) {
	p := newTCPPair(t)
	data := make([]byte, 64<<10)
	send := func() { p.conn.Write(data); p.turn() }
	for range 2000 { // until windows and buffers have their size
		send()
	}
	before := p.sink.bytes
	noAllocs(t, send)
	if p.sink.bytes == before {
		t.Fatal("nothing was carried")
	}
}

func BenchmarkUDPIn(b *testing.B) {
	s, h, _ := sinkStack(b)
	in := inputOf(s, udp("10.0.2.100:1", "9.9.9.9:53", string(make([]byte, 1400))))
	off := frame.Offload{NeedsChecksum: true}
	data := ethernet(sandboxMAC, stackMAC, udp("10.0.2.100:1", "9.9.9.9:53", string(make([]byte, 1400))))
	b.Run("checksum verified", func(b *testing.B) {
		for b.Loop() {
			in()
		}
	})
	b.Run("checksum offloaded", func(b *testing.B) {
		for b.Loop() {
			s.Input(data, off, 0)
		}
	})
	_ = h
}

func BenchmarkUDPOut(b *testing.B) {
	s, _, batch := sinkStack(b)
	payload := make([]byte, 1400)
	for b.Loop() {
		s.SendUDPNoCopy(port9, portSandbox, payload, 0)
		if batch.Len() == 64 {
			batch.Reset()
			s.Reclaim()
		}
	}
}

func BenchmarkAppendTCP(b *testing.B) {
	s, _, batch := sinkStack(b)
	r := tcp.Route{Local: port9, Remote: portSandbox}
	for b.Loop() {
		s.AppendTCP(&r, 32, 1400)
		if batch.Len() == 64 {
			batch.Reset()
		}
	}
}

func BenchmarkTCPTransfer(b *testing.B) {
	p := newTCPPair(b)
	data := make([]byte, 64<<10)
	before := p.sink.bytes
	for b.Loop() {
		p.conn.Write(data)
		p.turn()
	}
	b.SetBytes(int64(p.sink.bytes-before) / int64(b.N))
}
