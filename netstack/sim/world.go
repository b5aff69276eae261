package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/timer"
)

// Result is what a run was like.
type Result struct {
	Time     time.Duration // virtual, until the last connection was over
	Bytes    int           // read by applications
	Events   int           // frames delivered and plans carried out
	Frames   int           // that entered the path
	Lost     int           // that the path took, damaged ones included
	Timeouts int           // connections' ends that gave up, for good reason
	// Wrapped counts sequence spaces that went past 2³².
	Wrapped int
	// Buffers is the most memory that each stack had for its buffers, in bytes,
	// Windows the widest that it told.
	Buffers, Windows [2]int
}

// wireFrame is a frame ready for the path.
type wireFrame struct {
	data []byte
	off  frame.Offload
}

// event is a frame's arrival, or something planned.
type event struct {
	at      timer.Instant
	order   uint64
	do      func() // nil: a frame
	to      *end
	frame   wireFrame
	flow    *flow
	genuine bool // from the other stack, not forged
}

type events []*event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *events) Pop() any {
	old := *q
	n := len(old) - 1
	x := old[n]
	old[n] = nil
	*q = old[:n]
	return x
}

// world is a run in progress.
type world struct {
	s       *Scenario
	rand    *rand.Rand
	now     timer.Instant
	jumped  time.Duration // by which clock jumps have moved now
	ends    [2]*end
	paths   [2]path // by sender
	queue   events
	order   uint64
	conns   []*connection
	flows   map[[2]netip.AddrPort]*flow // by the gateway's end and the sandbox's
	capture *Capture
	result  Result
	err     error
	loose   int // lost frames of no flow, or a jump that excuses timeouts
	scratch []wireFrame
}

// maxSteps bounds a run's work: one that needs more talks without end.
const maxSteps = 3_000_000

// Run carries out a scenario and returns what it was like, and the first
// promise that was broken. Frames go into capture, if it is not nil.
func Run(s Scenario, capture *Capture) (Result, error) {
	w, err := newWorld(&s, capture)
	if err != nil {
		return Result{}, err
	}
	for steps := 0; w.err == nil && !w.over(); steps++ {
		w.step()
		if steps > maxSteps {
			w.fail("no end of events")
		}
		if s.Limit > 0 && time.Duration(w.now) > s.Limit {
			w.sumUp()
			return w.result, w.err
		}
	}
	w.sumUp()
	w.wrapUp()
	return w.result, w.err
}

func newWorld(s *Scenario, capture *Capture) (*world, error) {
	w := &world{s: s, rand: rand.New(rand.NewPCG(s.Seed, 0x0c0de)), capture: capture,
		flows: map[[2]netip.AddrPort]*flow{}}
	for i := range w.ends {
		e, err := newEnd(w, i, s)
		if err != nil {
			return nil, err
		}
		w.ends[i] = e
		w.paths[i] = path{Impairment: s.Path[i], rand: w.rand}
	}
	w.tick()
	if err := w.startListening(); err != nil {
		return nil, err
	}
	w.schedule()
	return w, nil
}

func (w *world) startListening() error {
	for _, any := range []string{"0.0.0.0", "::"} {
		l, err := w.ends[1].TCP().Listen(netip.AddrPortFrom(netip.MustParseAddr(any), listenPort), 64)
		if err != nil {
			return err
		}
		l.SetNotify(func() { w.after(0, func() { w.accept(l) }) })
	}
	return nil
}

// schedule enters what the scenario has planned.
func (w *world) schedule() {
	for i := range w.s.Conns {
		w.addConnection(i)
	}
	for _, m := range w.s.Routes {
		w.after(m.At, func() { w.paths[m.From].MTU = m.MTU })
	}
	for _, j := range w.s.Jumps {
		w.after(j.At, func() { w.jump(j.By) })
	}
	if w.s.Meddle > 0 {
		w.after(w.s.Meddle, w.meddle)
	}
}

// after plans f for d from now.
func (w *world) after(d time.Duration, f func()) {
	w.push(&event{at: w.now.Add(d), do: f})
}

func (w *world) push(e *event) {
	w.order++
	e.order = w.order
	heap.Push(&w.queue, e)
}

// fail notes the first broken promise, which ends the run.
func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{time.Duration(w.now)}, args...)...)
	}
}

// over reports whether nothing is going to happen any more.
func (w *world) over() bool {
	for _, c := range w.conns {
		if !c.done() {
			return false
		}
	}
	return true
}

// step moves to the next event, or the next few that are due at once.
func (w *world) step() {
	next := min(w.ends[0].deadline(), w.ends[1].deadline())
	if len(w.queue) > 0 {
		next = min(next, w.queue[0].at)
	}
	if next == timer.Never {
		w.fail("connections are not over, and nothing is going to happen")
		return
	}
	w.now = max(w.now, next)
	w.tick()
	one := w.rand.IntN(2) == 0
	for len(w.queue) > 0 && w.queue[0].at <= w.now {
		w.carryOut(heap.Pop(&w.queue).(*event))
		if one {
			break
		}
	}
	w.flush()
	w.check()
}

func (w *world) tick() {
	for _, e := range w.ends {
		e.inbox, e.acks = 0, 0
		e.Tick(e.clock())
	}
}

func (w *world) carryOut(v *event) {
	w.result.Events++
	if v.do != nil {
		v.do()
		return
	}
	w.capture.add(w.now, v.frame.data)
	if v.genuine && v.flow != nil {
		// Of a damaged one, what has no checksum may be wrong: IPv6's flow label.
		if p, ok := parseTCP(v.frame.data); ok && (v.frame.off.NeedsChecksum || p.checksumValid()) {
			if v.flow.delivered(v.to.which, &p, w.now.Add(-w.jumped)) && v.flow.conn != nil {
				v.flow.conn.moved(w)
			}
		}
	}
	v.to.inbox++
	if v.genuine && v.flow == nil && w.s.AskNeighbors {
		// A neighbor's answer releases the acknowledgements that waited for it.
		v.to.inbox += neighbor.DefaultHeldFrames
	}
	v.to.Input(v.frame.data, v.frame.off, v.to.clock())
	for i := range v.frame.data {
		v.frame.data[i] = 0xdb // it is ours again, and nobody may still look
	}
}

// jump moves the clock ahead. What is on the way arrives late.
func (w *world) jump(by time.Duration) {
	w.now = w.now.Add(by)
	w.jumped += by
	w.loose = max(w.loose, timeoutDrops) // a connection held meanwhile is given up
	w.tick()
}

// flush lets both stacks speak, and puts what they say on the path.
func (w *world) flush() {
	for _, e := range w.ends {
		e.Flush()
		for i := range e.batch.Frames() {
			w.emit(e, &e.batch.Frames()[i])
		}
		e.batch.Reset()
		e.Reclaim()
	}
}

// emit finishes and observes a frame, and sends its pieces on their way.
func (w *world) emit(e *end, f *frame.Frame) {
	pieces, err := finish(f, w.s.Whole, w.scratch[:0])
	w.scratch = pieces
	if err != nil {
		w.fail("stack %d: %v", e.which, err)
		return
	}
	for _, p := range pieces {
		w.transmit(e, p)
	}
}

func (w *world) transmit(e *end, p wireFrame) {
	w.result.Frames++
	fl, err := w.observe(e, p)
	if err != nil {
		w.fail("conn %v stack %d: %v", fl.key, e.which, err)
		return
	}
	way := &w.paths[e.which]
	if way.MTU > 0 && len(p.data)-header.EthernetLen > way.MTU && p.off.GSOType == frame.GSONone {
		if _, _, _, _, ok := splitIP(p.data); ok {
			w.lose(fl)
			w.push(&event{at: w.now.Add(way.Delay), to: e, frame: wireFrame{data: tooBig(macs[e.which], p.data, way.MTU)}})
			return
		}
	}
	fate := way.carry(w.now, len(p.data))
	if fate.lost {
		w.lose(fl)
		return
	}
	if fate.again != 0 {
		w.push(&event{at: fate.again, to: w.ends[1-e.which], flow: fl, genuine: true,
			frame: wireFrame{data: append([]byte(nil), p.data...), off: p.off}})
	}
	v := &event{at: fate.at, to: w.ends[1-e.which], flow: fl, genuine: true, frame: p}
	if !p.off.NeedsChecksum && damage(p.data, &v.frame, fate) {
		w.lose(fl)
	}
	w.push(v)
}

// damage flips a bit or cuts the frame, if that is its fate. ARP has no checksum
// and relies on Ethernet's: it is left alone.
func damage(b []byte, f *wireFrame, fate fate) bool {
	if e, _, ok := header.ParseEthernet(b); !ok || e.Type() == header.EtherTypeARP {
		return false
	}
	if fate.flip >= 8*(header.EthernetLen) {
		b[fate.flip/8] ^= 1 << (fate.flip % 8)
	}
	if fate.truncate >= 0 {
		f.data = b[:fate.truncate]
	}
	return fate.flip >= 0 || fate.truncate >= 0
}

func (w *world) lose(f *flow) {
	w.result.Lost++
	if f == nil {
		w.loose++
		return
	}
	f.lost()
}

// observe hands a TCP segment to its flow's observer.
func (w *world) observe(e *end, f wireFrame) (*flow, error) {
	b := f.data
	if f.off.NeedsChecksum {
		b = append([]byte(nil), b...)
		complete(b, int(f.off.ChecksumStart), int(f.off.ChecksumStart)+int(f.off.ChecksumOffset))
	}
	p, ok := parseTCP(b)
	if !ok {
		w.capture.add(w.now, b)
		return nil, w.observeOther(b)
	}
	if !p.checksumValid() {
		return w.flowOf(e.which, &p), fmt.Errorf("bad TCP checksum")
	}
	if len(w.s.Strip) > 0 && p.tcp.Flags().Has(header.SYN) {
		stripOptions(&p, w.s.Strip)
	}
	w.capture.add(w.now, b)
	fl := w.flowOf(e.which, &p)
	if len(p.payload) == 0 && !p.tcp.Flags().Any(header.SYN|header.FIN|header.RST) {
		e.acks++
	}
	size := len(p.payload)
	if f.off.GSOType != frame.GSONone {
		size = int(f.off.GSOSize)
	}
	fl.half[e.which].last = append(fl.half[e.which].last[:0], b[:min(len(b), 120)]...)
	if err := fl.emitted(e.which, &p, size, e.plan.MTU); err != nil {
		return fl, err
	}
	if h := &fl.half[e.which]; h.acked {
		w.result.Windows[e.which] = max(w.result.Windows[e.which], int(h.ack.Size(h.edge)))
	}
	return fl, nil
}

// observeOther checks the checksums of what is not TCP.
func (w *world) observeOther(b []byte) error {
	h, _, ok := header.ParseEthernet(b)
	if ok && h.Type() == header.EtherTypeARP {
		return nil
	}
	src, dst, protocol, payload, ok := splitIP(b)
	switch {
	case !ok:
		w.fail("frame that cannot be made out: %x", b)
	case protocol == header.ProtocolICMP:
		if m, _, ok := header.ParseICMPv4(payload); !ok || !m.ChecksumValid() {
			w.fail("bad ICMP checksum")
		}
	case protocol == header.ProtocolICMPv6:
		if m, _, ok := header.ParseICMPv6(payload); !ok || !m.ChecksumValid(src, dst) {
			w.fail("bad ICMPv6 checksum")
		}
	default:
		w.fail("stray protocol %d", protocol)
	}
	return nil
}

// flowOf finds the flow of a segment that stack i sends, or makes it.
func (w *world) flowOf(i int, p *tcpPacket) *flow {
	k := [2]netip.AddrPort{p.src, p.dst}
	if i == 1 {
		k = [2]netip.AddrPort{p.dst, p.src}
	}
	f := w.flows[k]
	if f == nil {
		f = &flow{key: k}
		w.flows[k] = f
	}
	return f
}
