package tcp

import (
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// discard is an Output with Ethernet and IP headers' room that nobody reads.
type discard struct{ batch frame.Batch }

func (d *discard) AppendTCP(r *Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	f := d.batch.Append(34 + tcpLen)
	return f, f.Header[34:]
}

func (d *discard) SendUnreachable(*Route, Refusal, uint32) {}

// sink takes all data and does nothing else.
type sink struct{ n int }

func (s *sink) Established(*Conn)          {}
func (s *sink) Data(_ *Conn, p []byte) int { s.n += len(p); return len(p) }
func (s *sink) EOF(*Conn)                  {}
func (s *sink) Writable(*Conn)             {}
func (s *sink) Closed(c *Conn, err error)  {}

// pump is one established connection whose peer is made of two prepared
// headers: data in order, and acknowledgements of all that was sent.
type pump struct {
	e      *Engine
	out    discard
	timers timer.Queue
	now    timer.Instant
	c      *Conn
	data   []byte // header and payload
	ack    []byte
	pkt    Packet
	bufs   [2][]byte
}

func newPump(t testing.TB, payload int) *pump {
	cfg := testConfig()
	cfg.SendBuffer, cfg.ReceiveBuffer = 1<<20, 1<<20
	p := &pump{now: timer.Instant(time.Hour)}
	p.e = NewEngine(cfg, &p.out, &p.timers)
	local := netip.MustParseAddrPort("10.0.2.2:80")
	remote := netip.MustParseAddrPort("10.0.2.100:5000")
	p.pkt = Packet{Src: remote.Addr(), Dst: local.Addr()}
	p.e.SetOpenHandler(func(c *Conn) { p.c = c; c.Accept(&sink{}) })

	syn := make([]byte, 40)
	o := fullOptions()
	o.TSVal = 1
	header.PutTCP(syn, header.TCPFields{SourcePort: 5000, DestinationPort: 80, Seq: 999,
		Flags: header.SYN, Window: 65535, OptionsLen: header.PutTCPSYNOptions(syn[20:], &o)})
	p.in(syn)
	p.flush()
	p.ack = p.header(header.ACK, 0)
	p.data = p.header(header.ACK|header.PSH, payload)
	p.acknowledge()
	if p.c.State() != Established {
		t.Fatalf("state %v", p.c.State())
	}
	return p
}

func (p *pump) header(flags header.TCPFlags, payload int) []byte {
	b := make([]byte, 32+payload)
	o := header.TCPOptions{Timestamp: true, TSVal: 1}
	header.PutTCP(b, header.TCPFields{SourcePort: 5000, DestinationPort: 80, Flags: flags,
		Window: 65535, OptionsLen: header.PutTCPOptions(b[20:], &o)})
	return b
}

func (p *pump) in(b []byte) {
	p.now = p.now.Add(time.Microsecond)
	p.pkt.Now, p.pkt.TCP = p.now, b
	p.e.Input(&p.pkt)
}

func (p *pump) flush() {
	p.e.Flush()
	p.out.batch.Reset()
	p.e.Reclaim()
}

// place puts the connection's current numbers into a header.
func (p *pump) place(b []byte) {
	header.TCP(b).SetSeq(p.c.rcvNxt)
	ack := uint32(p.c.sndNxt)
	b[8], b[9], b[10], b[11] = byte(ack>>24), byte(ack>>16), byte(ack>>8), byte(ack)
}

func (p *pump) acknowledge() {
	p.place(p.ack)
	p.in(p.ack)
	p.flush()
}

func (p *pump) receive() {
	p.place(p.data)
	p.in(p.data)
	p.flush()
}

func (p *pump) send(n int) {
	p.c.Reserve(n, p.bufs[:0])
	p.c.Commit(n)
	p.flush()
	p.acknowledge()
}

func TestDataPathDoesNotAllocate(t *testing.T) {
	p := newPump(t, 60_000)
	for range 100 { // reach the size that is kept
		p.receive()
		p.send(chunkSize)
	}
	for name, f := range map[string]func(){
		"receive":       p.receive,
		"send and ACK":  func() { p.send(chunkSize) },
		"small message": func() { p.send(1) },
		"buffered": func() {
			p.c.SetHandler(nil)
			p.receive()
			p.c.Consume(60_000)
			p.flush()
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if err := p.c.invariants(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSegmentIn(b *testing.B) {
	p := newPump(b, 65_000)
	b.SetBytes(65_000)
	b.ReportAllocs()
	for b.Loop() {
		p.receive()
	}
}

func BenchmarkSmallSegmentIn(b *testing.B) {
	p := newPump(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		p.receive()
	}
}

func BenchmarkSegmentOut(b *testing.B) {
	p := newPump(b, 1)
	for range 100 {
		p.send(chunkSize)
	}
	b.SetBytes(chunkSize)
	b.ReportAllocs()
	for b.Loop() {
		p.send(chunkSize)
	}
}

func BenchmarkSmallSegmentOut(b *testing.B) {
	p := newPump(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		p.send(1)
	}
}
