package impair

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/gso"
)

// A packet that is overtaken is held back by this many units of time, at random.
const (
	holdUnit = time.Millisecond
	maxHold  = 5
)

const (
	ethernetLen = 14
	// maxFrame is the longest that passes a link, in bytes: Ethernet and IPv6
	// headers in front of the longest payload.
	maxFrame = ethernetLen + 40 + 0xffff
)

// wire is what one direction of a link sends through, at the link's rate. The
// queues share it.
type wire struct {
	rate int64        // bit/s; 0: infinite
	free atomic.Int64 // when the last packet has been sent
}

// send books the wire for n bytes and returns when they have been sent, and how
// long that takes.
func (w *wire) send(now int64, n int) (done, took int64) {
	if w.rate == 0 {
		return now, 0
	}
	took = int64(n) * 8 * int64(time.Second) / w.rate
	for {
		free := w.free.Load()
		done = max(now, free) + took
		if w.free.CompareAndSwap(free, done) {
			return done, took
		}
	}
}

// lane is one direction of a queue. All but the counters belongs to the
// goroutine that uses the queue.
type lane struct {
	spec  *Spec
	wire  *wire
	rng   *rand.Rand
	burst bool  // the last packet was lost, and more will be
	last  int64 // when the last packet in order is due
	limit int

	waiting  schedule
	spare    [][]byte
	splitter gso.Splitter
	linear   []byte
	stats    counters
}

// counters have one writer each, the lane's goroutine.
type counters struct {
	packets, delivered, lost, duplicated, corrupted, reordered, overflowed, malformed atomic.Uint64
}

func newLane(spec *Spec, w *wire, direction, queue uint64) *lane {
	l := &lane{spec: spec, wire: w, rng: rand.New(rand.NewPCG(spec.Seed, queue<<1|direction)), limit: spec.Limit}
	if l.limit == 0 {
		l.limit = DefaultLimit
	}
	return l
}

// offer takes a frame, cut if it is a super-segment. It keeps copies only.
func (l *lane) offer(now int64, f *frame.Frame) {
	if n := f.Len(); n < ethernetLen || n > maxFrame || n < int(f.HeaderLen) {
		l.stats.malformed.Add(1)
		return
	}
	if f.GSOType == frame.GSONone || f.Len()-int(f.HeaderLen) <= int(f.GSOSize) {
		l.enter(now, f)
		return
	}
	if !l.start(f) {
		l.stats.malformed.Add(1)
		return
	}
	for s := l.splitter.Next(); s != nil; s = l.splitter.Next() {
		l.enter(now, s)
	}
}

// start begins to cut f, in one piece if its headers are not in one, as the
// splitter wants them.
func (l *lane) start(f *frame.Frame) bool {
	n := int(f.HeaderLen)
	if len(f.Header) == n {
		return l.splitter.Start(f)
	}
	if n > f.Len() {
		return false
	}
	l.linear = f.AppendTo(l.linear[:0])
	g := frame.Frame{Header: l.linear[:n], Payload: [2][]byte{l.linear[n:]}, Offload: f.Offload}
	return l.splitter.Start(&g)
}

// enter decides about one packet.
func (l *lane) enter(now int64, f *frame.Frame) {
	l.stats.packets.Add(1)
	if l.loses() {
		l.stats.lost.Add(1)
		return
	}
	twice := l.chance(l.spec.Duplicate)
	l.delay(now, f)
	if twice {
		l.stats.duplicated.Add(1)
		l.delay(now, f)
	}
}

// delay damages a packet or not, and finds out when it will be through.
func (l *lane) delay(now int64, f *frame.Frame) {
	if l.waiting.len() >= l.limit {
		l.stats.overflowed.Add(1)
		return
	}
	p := packet{data: f.AppendTo(l.buffer()), Offload: f.Offload}
	p.GSOType, p.GSOSize, p.ECN = frame.GSONone, 0, false
	if l.chance(l.spec.Corrupt) && gso.FinishBytes(p.data, &p.Offload) {
		l.corrupt(&p)
	}
	sent, took := l.wire.send(now, len(p.data))
	p.due = sent + int64(l.spec.Delay)
	if j := int64(l.spec.Jitter); j > 0 {
		p.due += l.rng.Int64N(2*j+1) - j
	}
	p.due = max(p.due, l.last)
	l.last = p.due
	if l.chance(l.spec.Reorder) {
		l.stats.reordered.Add(1)
		p.due += (1 + l.rng.Int64N(maxHold)) * max(took, int64(holdUnit))
	}
	l.waiting.push(p)
}

// loses draws from the model that E. N. Gilbert gave in 1960: a good state that
// loses nothing, and a bad one that loses all and lasts Burst packets on
// average. The way into it is as likely as makes Loss the share in all.
func (l *lane) loses() bool {
	if l.spec.Burst == 0 {
		return l.chance(l.spec.Loss)
	}
	leave := 1 / l.spec.Burst
	if l.burst {
		l.burst = l.rng.Float64() >= leave
	} else {
		share := float64(l.spec.Loss) / 100
		l.burst = l.rng.Float64() < leave*share/(1-share)
	}
	return l.burst
}

func (l *lane) chance(p Percent) bool { return p > 0 && l.rng.Float64()*100 < float64(p) }

// corrupt flips a bit behind the Ethernet header, whose own check no link shows
// us. The packet is what it is from here on: nobody vouches for it.
func (l *lane) corrupt(p *packet) {
	if len(p.data) == ethernetLen {
		return
	}
	bit := l.rng.IntN((len(p.data) - ethernetLen) * 8)
	p.data[ethernetLen+bit/8] ^= 1 << (bit % 8)
	p.Offload = frame.Offload{HeaderLen: p.HeaderLen}
	l.stats.corrupted.Add(1)
}

// due reports whether a packet has passed the lane by now.
func (l *lane) due(now int64) bool { return l.waiting.len() > 0 && l.waiting.next() <= now }

// take hands out the next packet, which must be due. Its data comes back with
// recycle.
func (l *lane) take() packet {
	l.stats.delivered.Add(1)
	return l.waiting.pop()
}

// buffer is empty memory for one packet.
func (l *lane) buffer() []byte {
	n := len(l.spare) - 1
	if n < 0 {
		return nil
	}
	b := l.spare[n]
	l.spare = l.spare[:n]
	return b[:0]
}

func (l *lane) recycle(data []byte) { l.spare = append(l.spare, data) }
