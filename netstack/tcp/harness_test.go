package tcp

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// impairment is what a test's path does to segments.
type impairment struct {
	loss, dup, reorder float64
	delay, jitter      time.Duration
	strip              []byte                                              // option kinds taken off SYNs
	dark               time.Duration                                       // the path is down for so long at a time
	lose               func(from *host, h header.TCP, payload []byte) bool // scripted loss
}

// packet is a segment on its way.
type packet struct {
	at       timer.Instant
	order    int
	to       *host
	src, dst netip.Addr
	tcp      []byte
	size     int
	ecn      uint8
}

type packets []*packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at < p[j].at || p[i].at == p[j].at && p[i].order < p[j].order
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(*packet)) }
func (p *packets) Pop() any {
	old := *p
	x := old[len(old)-1]
	*p = old[:len(old)-1]
	return x
}

// world is two engines joined by a path, in virtual time.
type world struct {
	t     testing.TB
	rand  *rand.Rand
	now   timer.Instant
	a, b  *host
	path  impairment
	wire  packets
	order int
	trace bool
	sent  int // segments that left either host
}

// host is one engine with its address, and the Output beneath it.
type host struct {
	w      *world
	name   string
	addr   netip.Addr
	e      *Engine
	timers timer.Queue
	batch  frame.Batch
	routes []Route
	peer   *host
	refuse []Refusal
	edges  map[*Conn]seq.Value
}

var (
	addrA = netip.MustParseAddr("10.0.2.2")
	addrB = netip.MustParseAddr("10.0.2.100")

	addrA6 = netip.MustParseAddr("fd00::2")
	addrB6 = netip.MustParseAddr("fd00::100")
)

func testConfig() Config {
	return Config{
		Secret: [16]byte{1, 2, 3}, SendBuffer: 256 << 10, ReceiveBuffer: 256 << 10,
		Caps: frame.Capabilities{TSO4: true, TSO6: true, MaxFrame: 65535 + 14},
	}
}

func newWorld(t testing.TB, seed uint64, ca, cb Config) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: timer.Instant(time.Hour)}
	w.path.delay = time.Millisecond
	w.a = &host{w: w, name: "a", addr: addrA, edges: map[*Conn]seq.Value{}}
	w.b = &host{w: w, name: "b", addr: addrB, edges: map[*Conn]seq.Value{}}
	w.a.peer, w.b.peer = w.b, w.a
	w.a.e = NewEngine(ca, w.a, &w.a.timers)
	w.b.e = NewEngine(cb, w.b, &w.b.timers)
	w.a.e.SetNow(w.now)
	w.b.e.SetNow(w.now)
	return w
}

func (w *world) addrPort(h *host, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(h.addr, port)
}

func (h *host) AppendTCP(r *Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	f := h.batch.Append(tcpLen)
	h.routes = append(h.routes, *r)
	return f, f.Header
}

func (h *host) SendUnreachable(r *Route, reason Refusal, irs uint32) {
	h.refuse = append(h.refuse, reason)
}

// flush lets both hosts speak and puts what they say on the wire.
func (w *world) flush() {
	for _, h := range []*host{w.a, w.b} {
		h.e.SetNow(w.now)
		h.e.Flush()
		for i := range h.batch.Frames() {
			w.transmit(h, &h.batch.Frames()[i], &h.routes[i])
		}
		h.batch.Reset()
		h.routes = h.routes[:0]
		h.e.Reclaim()
		h.checkInvariants()
	}
}

// transmit checks a frame, cuts it as a link would, and sends its pieces.
func (w *world) transmit(h *host, f *frame.Frame, r *Route) {
	w.t.Helper()
	raw := f.AppendTo(nil)
	hdr, payload, ok := header.ParseTCP(raw)
	if !ok || !f.NeedsChecksum || f.ChecksumOffset != 16 || int(f.HeaderLen) != len(f.Header) {
		w.t.Fatalf("frame without a proper header or offload: %+v", f.Offload)
	}
	pseudo := checksum.PseudoHeader(r.Local.Addr(), r.Remote.Addr(), 6, uint32(len(raw)))
	if hdr.Checksum() != pseudo.Fold() {
		w.t.Fatalf("checksum field %#x, want the pseudo-header's %#x", hdr.Checksum(), pseudo.Fold())
	}
	ip := 20
	if h.addr.Is6() {
		ip = 40
	}
	if len(raw)+ip > 0xffff {
		w.t.Fatalf("IP packet of %d bytes", len(raw)+ip)
	}
	size := len(payload)
	if f.GSOType != frame.GSONone {
		size = int(f.GSOSize)
		if size == 0 || len(payload) <= size {
			w.t.Fatalf("GSO size %d for %d bytes", size, len(payload))
		}
	}
	if size+len(hdr)+ip > h.e.cfg.MTU {
		w.t.Fatalf("segment of %d bytes with %d of header over MTU %d", size, len(hdr), h.e.cfg.MTU)
	}
	// As a link with GRO, sometimes deliver a super-segment whole.
	if size < len(payload) && w.rand.IntN(2) == 0 {
		w.send(h, raw, r, size)
		return
	}
	for off := 0; ; off += size {
		end := min(off+size, len(payload))
		seg := append(append([]byte(nil), hdr...), payload[off:end]...)
		p, _, _ := header.ParseTCP(seg)
		p.SetSeq(hdr.Seq().Add(uint32(off)))
		if end < len(payload) {
			p.SetFlags(hdr.Flags() &^ (header.FIN | header.PSH))
		}
		w.send(h, seg, r, 0)
		if end == len(payload) {
			return
		}
	}
}

// send puts one segment on the wire, or loses it.
func (w *world) send(h *host, raw []byte, r *Route, size int) {
	w.sent++
	hdr, payload, _ := header.ParseTCP(raw)
	if w.trace {
		w.t.Logf("%v %s %v seq %d ack %d len %d wnd %d", time.Duration(w.now), h.name, hdr.Flags(),
			hdr.Seq(), hdr.Ack(), len(payload), hdr.Window())
	}
	if w.path.dark > 0 && time.Duration(w.now)%(1370*time.Millisecond) < w.path.dark {
		return
	}
	if hdr.Flags().Has(header.SYN) {
		stripOptions(hdr.OptionBytes(), w.path.strip)
	}
	if w.path.lose != nil && w.path.lose(h, hdr, payload) || w.rand.Float64() < w.path.loss {
		return
	}
	n := 1
	if w.rand.Float64() < w.path.dup {
		n = 2
	}
	for range n {
		d := w.path.delay
		if w.path.jitter > 0 && w.rand.Float64() < w.path.reorder {
			d += time.Duration(w.rand.Int64N(int64(w.path.jitter)))
		}
		w.order++
		heap.Push(&w.wire, &packet{at: w.now.Add(d), order: w.order, to: h.peer,
			src: r.Local.Addr(), dst: r.Remote.Addr(), tcp: raw, size: size, ecn: r.ECN})
	}
}

// stripOptions overwrites options of the given kinds with nops.
func stripOptions(b []byte, kinds []byte) {
	for i := 0; i < len(b) && b[i] != header.TCPOptionEnd; {
		n := 1
		if b[i] != header.TCPOptionNop {
			n = int(b[i+1])
		}
		if bytes.IndexByte(kinds, b[i]) >= 0 {
			for j := range b[i : i+n] {
				b[i+j] = header.TCPOptionNop
			}
		}
		i += n
	}
}

// step advances to the next event, and reports false if there is none before
// limit.
func (w *world) step(limit timer.Instant) bool {
	w.flush()
	next := min(w.a.timers.Next(), w.b.timers.Next())
	if len(w.wire) > 0 {
		next = min(next, w.wire[0].at)
	}
	if next == timer.Never || next > limit {
		return false
	}
	w.now = max(w.now, next)
	w.a.timers.Run(w.now)
	w.b.timers.Run(w.now)
	for len(w.wire) > 0 && w.wire[0].at <= w.now {
		p := heap.Pop(&w.wire).(*packet)
		p.to.e.Input(&Packet{Now: w.now, Src: p.src, Dst: p.dst, TCP: p.tcp, SegmentSize: p.size, ECN: p.ecn})
	}
	w.flush()
	return true
}

// run steps until done or for d of virtual time.
func (w *world) run(d time.Duration, done func() bool) bool {
	w.t.Helper()
	limit := w.now.Add(d)
	for steps := 0; ; steps++ {
		if done != nil && done() {
			return true
		}
		if steps > 2_000_000 {
			w.t.Fatal("no end of events")
		}
		if !w.step(limit) {
			break
		}
	}
	if w.now < limit {
		w.now = limit
		w.a.e.SetNow(limit)
		w.b.e.SetNow(limit)
	}
	return done != nil && done()
}

// checkInvariants looks at every connection after an event.
func (h *host) checkInvariants() {
	t := h.w.t
	t.Helper()
	for _, c := range h.e.conns {
		if err := c.invariants(); err != nil {
			t.Fatalf("%v host %s, %v: %v", time.Duration(h.w.now), h.name, c.state, err)
		}
		if old, ok := h.edges[c]; ok && c.rcvAdv.LessThan(old) {
			t.Fatalf("host %s: right edge moved back by %d", h.name, old.Diff(c.rcvAdv))
		}
		if c.state >= SynReceived {
			h.edges[c] = c.rcvAdv
		}
	}
}

// invariants is what must hold of a connection between events.
func (c *Conn) invariants() error {
	e := c.engine
	if c.sndNxt.LessThan(c.sndUna) {
		return fmt.Errorf("SND.UNA %d beyond SND.NXT %d", c.sndUna, c.sndNxt)
	}
	sacked, lost := 0, 0
	at := c.sndUna
	for _, r := range c.sent.all() {
		if r.start != at || !r.start.LessThan(r.end) {
			return fmt.Errorf("record [%d,%d) where %d is due", r.start, r.end, at)
		}
		at = r.end
		if r.has(flagSacked) {
			sacked += r.len()
		}
		if r.has(flagLost) {
			lost += r.len()
		}
	}
	if c.state >= Established && at != c.sndNxt {
		return fmt.Errorf("records end at %d, SND.NXT is %d", at, c.sndNxt)
	}
	if sacked != c.sacked || lost != c.lost {
		return fmt.Errorf("counted %d sacked and %d lost, are %d and %d", c.sacked, c.lost, sacked, lost)
	}
	if c.buf.len > c.sndTune.size || c.sndTune.size > e.cfg.SendBufferMax || c.rcvTune.size > e.cfg.ReceiveBufferMax {
		return fmt.Errorf("send buffer of %d bytes", c.buf.len)
	}
	if most := (c.buf.len+2*chunkSize-1)/chunkSize + 1; len(c.buf.chunks) > most || c.buf.len == 0 && len(c.buf.chunks) > 0 {
		return fmt.Errorf("%d chunks for %d bytes", len(c.buf.chunks), c.buf.len)
	}
	if c.Buffered() > int(c.storeEdge().Diff(c.in.base)) || len(c.in.ranges) > maxRanges {
		return fmt.Errorf("receive buffer of %d bytes, %d ranges", c.Buffered(), len(c.in.ranges))
	}
	for i, r := range c.in.ranges {
		if !c.rcvNxt.LessThan(r.start) || !r.start.LessThan(r.end) {
			return fmt.Errorf("range %d [%d,%d) at RCV.NXT %d", i, r.start, r.end, c.rcvNxt)
		}
		if i > 0 && !c.in.ranges[i-1].end.LessThan(r.start) {
			return fmt.Errorf("ranges %d and %d touch", i-1, i)
		}
	}
	if c.Buffered() == 0 && len(c.in.ranges) == 0 && len(c.in.chunks) > 0 {
		return fmt.Errorf("empty receive buffer holds %d chunks", len(c.in.chunks))
	}
	if c.cwnd <= 0 && c.state >= Established {
		return fmt.Errorf("congestion window %d", c.cwnd)
	}
	waiting := c.outstanding() > 0 && c.state != Held
	if waiting && !c.armed(timerRetransmit) {
		return fmt.Errorf("%d bytes outstanding and no retransmission timer", c.outstanding())
	}
	if c.state >= Established && !waiting && (c.unsent() > 0 || c.finDue()) && !c.armed(timerPersist) {
		return fmt.Errorf("%d bytes unsent, nothing outstanding and no persist timer", c.unsent())
	}
	next := timer.Never
	for _, d := range c.deadline {
		next = min(next, d)
	}
	if at, armed := c.timer.Armed(); next != timer.Never && (!armed || at > next) {
		return fmt.Errorf("deadline in %v but the timer is not armed for it", next.Sub(e.now))
	}
	return nil
}

// peerLog is a handler that records what it is told.
type peerLog struct {
	c           *Conn
	established int
	got         []byte
	limit       int // most bytes Data takes per call; 0: all
	eof         int
	writable    int
	closed      int
	err         error
	onData      func(c *Conn, p []byte)
	onEOF       func(c *Conn)
	onWritable  func(c *Conn)
}

func (l *peerLog) Established(c *Conn) { l.c = c; l.established++ }
func (l *peerLog) Data(c *Conn, p []byte) int {
	n := len(p)
	if l.limit != 0 {
		n = min(n, max(l.limit, 0))
	}
	l.got = append(l.got, p[:n]...)
	if l.onData != nil {
		l.onData(c, p)
	}
	return n
}
func (l *peerLog) EOF(c *Conn) {
	l.eof++
	if l.onEOF != nil {
		l.onEOF(c)
	}
}
func (l *peerLog) Writable(c *Conn) {
	l.writable++
	if l.onWritable != nil {
		l.onWritable(c)
	}
}
func (l *peerLog) Closed(c *Conn, err error) { l.closed++; l.err = err }

// drain takes all that is buffered.
func (l *peerLog) drain(c *Conn, limit int) {
	n := 0
	for _, p := range c.Peek(nil) {
		p = p[:min(len(p), limit-n)]
		l.got = append(l.got, p...)
		n += len(p)
	}
	c.Consume(n)
}
