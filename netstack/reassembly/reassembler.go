package reassembly

import (
	"bytes"
	"net/netip"
	"sort"
	"time"

	"sbxnet/netstack/timer"
)

// MaxLen is the most that a reassembled datagram can hold, in bytes: what
// fits IPv4's total length and IPv6's payload length.
const MaxLen = 65535

// pieceOverhead is what a held fragment is charged beyond its bytes, or beyond
// pieceSize if it has less.
const pieceOverhead = 128

// Key says to which datagram a fragment belongs. IPv4 fills in all of it
// (RFC 791 §3.2); IPv6 leaves Protocol zero, because only the first fragment
// knows it (RFC 8200 §4.5).
type Key struct {
	Source, Destination netip.Addr
	ID                  uint32
	Protocol            uint8
}

// Fragment is one piece of a datagram. Nothing of it is kept but in copies.
type Fragment struct {
	Offset  int    // of Payload in the datagram, in bytes
	More    bool   // further fragments follow
	ECN     uint8  // the packet's congestion codepoint
	Header  []byte // what preceded the payload, kept from the fragment at offset 0
	Payload []byte
}

// Datagram is what came out of the fragments. It belongs to the reassembler
// and is good until its next Add.
type Datagram struct {
	Header  []byte // of the fragment at offset 0
	Payload []byte
	ECN     uint8 // of all fragments, combined (RFC 3168 §5.3)
}

// Limits bound what a reassembler holds. Zero fields take the defaults.
type Limits struct {
	Datagrams int // unfinished ones
	Fragments int // of one datagram
	Bytes     int // of all, in memory that they take, bookkeeping included
}

// The defaults of [Limits]: at an MTU of 1280 the longest datagram has 54
// fragments, at 576 it has 119.
const (
	DefaultDatagrams = 64
	DefaultFragments = 128
	DefaultBytes     = 2 << 20
)

// Result says what became of a fragment.
type Result uint8

// The results of [Reassembler.Add].
const (
	Held       Result = iota // kept, the datagram is not complete
	Complete                 // the datagram is complete
	Duplicate                // held already, byte for byte
	Empty                    // without payload
	Misaligned               // not the last, yet no multiple of 8 bytes
	TooLong                  // reaches beyond MaxLen
	Overlap                  // overlaps or contradicts: the datagram is condemned
	Condemned                // of a datagram condemned earlier
	TooMany                  // over a limit: the datagram is condemned
	MixedECN                 // complete, but marked on a path that may not (RFC 3168 §5.3)
)

// Stats counts datagrams that ended without being complete.
type Stats struct {
	TimedOut uint64 // by their time
	Evicted  uint64 // for newer ones, at a limit
}

// Reassembler holds the unfinished datagrams of one address family. Its one
// owner passes the time in.
type Reassembler struct {
	limits   Limits
	lifetime time.Duration
	timedOut func(header, payload []byte)
	timers   *timer.Queue
	timer    timer.Timer

	open    map[Key]*queue
	order   []*queue // by arrival, and so by deadline; order[0] is the oldest
	bytes   int
	stats   Stats
	done    Datagram
	scratch []byte // done's payload
	header  []byte // done's header
	spare   spares
}

// queue is one unfinished datagram.
type queue struct {
	key       Key
	deadline  timer.Instant
	condemned bool
	header    []byte
	pieces    []piece // by offset, disjoint
	received  int     // bytes in pieces
	bytes     int     // what it is charged
	total     int     // length of the datagram, -1 while the last is missing
	ecn       uint8   // bit i is set if codepoint i occurred
}

type piece struct {
	offset int
	data   []byte
}

func (p piece) end() int { return p.offset + len(p.data) }

// New returns a reassembler whose datagrams live for the given time: 30 s for
// IPv4, 60 s for IPv6 (RFC 8200 §4.5). timedOut may be nil; it is told about a
// datagram that ran out of time after its fragment at offset 0 had come, with
// that fragment's header and payload, good for the call.
func New(limits Limits, lifetime time.Duration, timers *timer.Queue, timedOut func(header, payload []byte)) *Reassembler {
	setDefault(&limits.Datagrams, DefaultDatagrams)
	setDefault(&limits.Fragments, DefaultFragments)
	setDefault(&limits.Bytes, DefaultBytes)
	r := &Reassembler{
		limits: limits, lifetime: lifetime, timers: timers, timedOut: timedOut,
		open: make(map[Key]*queue),
	}
	r.timer.Expire = r.expire
	return r
}

func setDefault(n *int, def int) {
	if *n <= 0 {
		*n = def
	}
}

// Add takes one fragment, and returns the datagram if the result is Complete.
func (r *Reassembler) Add(now timer.Instant, key Key, f Fragment) (*Datagram, Result) {
	if result := judge(f); result != Held {
		return nil, result
	}
	q := r.queue(now, key)
	if q.condemned {
		return nil, Condemned
	}
	at, result := q.place(f)
	if result == Overlap {
		r.condemn(q)
	}
	if result != Held {
		return nil, result
	}
	if len(q.pieces) == r.limits.Fragments || !r.makeRoom(q, cost(f)) {
		r.condemn(q)
		return nil, TooMany
	}
	q.insert(at, f, r.spare.copy(f.Payload))
	q.bytes += cost(f)
	r.bytes += cost(f)
	if q.received != q.total {
		return nil, Held
	}
	return r.complete(q)
}

// judge looks at a fragment by itself.
func judge(f Fragment) Result {
	switch {
	case len(f.Payload) == 0:
		return Empty
	case f.More && len(f.Payload)%8 != 0:
		return Misaligned
	case f.Offset < 0 || f.Offset+len(f.Payload) > MaxLen:
		return TooLong
	}
	return Held
}

// cost is the memory that f takes when it is held.
func cost(f Fragment) int {
	n := max(len(f.Payload), pieceSize) + pieceOverhead
	if f.Offset == 0 {
		n += len(f.Header)
	}
	return n
}

// queue finds or opens the datagram of key.
func (r *Reassembler) queue(now timer.Instant, key Key) *queue {
	if q := r.open[key]; q != nil {
		return q
	}
	if len(r.order) == r.limits.Datagrams {
		r.evict(r.order[0])
	}
	q := r.spare.queue()
	q.key, q.deadline, q.total = key, now.Add(r.lifetime), -1
	r.open[key] = q
	r.order = append(r.order, q)
	r.timers.ArmEarlier(&r.timer, q.deadline)
	return q
}

// place finds where f goes among the pieces, and whether it may.
func (q *queue) place(f Fragment) (at int, result Result) {
	end := f.Offset + len(f.Payload)
	at = sort.Search(len(q.pieces), func(i int) bool { return q.pieces[i].offset >= f.Offset })
	if at < len(q.pieces) && q.pieces[at].offset == f.Offset && bytes.Equal(q.pieces[at].data, f.Payload) &&
		f.More == (q.pieces[at].end() != q.total) {
		return at, Duplicate
	}
	switch {
	case at > 0 && q.pieces[at-1].end() > f.Offset,
		at < len(q.pieces) && q.pieces[at].offset < end:
		return at, Overlap
	case q.total >= 0 && (!f.More || end >= q.total):
		return at, Overlap // a second last fragment, or data at or after the end
	case !f.More && len(q.pieces) > 0 && q.pieces[len(q.pieces)-1].end() > f.Offset:
		return at, Overlap // a last fragment before what is held
	}
	return at, Held
}

// insert notes f, whose payload has been copied to data.
func (q *queue) insert(at int, f Fragment, data []byte) {
	q.pieces = append(q.pieces, piece{})
	copy(q.pieces[at+1:], q.pieces[at:])
	q.pieces[at] = piece{f.Offset, data}
	q.received += len(f.Payload)
	q.ecn |= 1 << (f.ECN & 3)
	if f.Offset == 0 {
		q.header = append(q.header[:0], f.Header...)
	}
	if !f.More {
		q.total = f.Offset + len(f.Payload)
	}
}

// makeRoom evicts older datagrams until n more bytes fit. It fails if q alone
// is in the way.
func (r *Reassembler) makeRoom(q *queue, n int) bool {
	for i := 0; r.bytes+n > r.limits.Bytes; {
		switch {
		case i == len(r.order):
			return false
		case r.order[i] == q || r.order[i].condemned: // frees nothing
			i++
		default:
			r.evict(r.order[i])
		}
	}
	return true
}

// condemn frees what q holds and keeps its key until the deadline.
func (r *Reassembler) condemn(q *queue) {
	r.bytes -= q.bytes
	r.spare.takePieces(q)
	q.condemned, q.header, q.received, q.bytes = true, q.header[:0], 0, 0
}

func (r *Reassembler) evict(q *queue) {
	r.stats.Evicted++
	r.remove(q)
	r.spare.take(q)
}

func (r *Reassembler) remove(q *queue) {
	r.bytes -= q.bytes
	delete(r.open, q.key)
	for i := range r.order {
		if r.order[i] == q {
			copy(r.order[i:], r.order[i+1:])
			r.order[len(r.order)-1] = nil
			r.order = r.order[:len(r.order)-1]
			break
		}
	}
}

func (r *Reassembler) complete(q *queue) (*Datagram, Result) {
	r.remove(q)
	ecn, ok := combineECN(q.ecn)
	if !ok {
		r.spare.take(q)
		return nil, MixedECN
	}
	r.scratch = r.scratch[:0]
	for _, p := range q.pieces {
		r.scratch = append(r.scratch, p.data...)
	}
	r.header = append(r.header[:0], q.header...)
	r.spare.take(q)
	r.done = Datagram{Header: r.header, Payload: r.scratch, ECN: ecn}
	return &r.done, Complete
}

// combineECN is RFC 3168 §5.3: one CE makes the datagram CE, but CE beside
// Not-ECT means that a marked fragment was never meant to be.
func combineECN(seen uint8) (ecn uint8, ok bool) {
	const notECT, ect1, ect0, ce = 1 << 0, 1 << 1, 1 << 2, 1 << 3
	switch {
	case seen&ce != 0:
		return 3, seen&notECT == 0
	case seen&notECT != 0:
		return 0, true
	case seen&ect0 != 0:
		return 2, true
	case seen&ect1 != 0:
		return 1, true
	}
	return 0, true
}

// expire ends the datagrams whose time is over.
func (r *Reassembler) expire(now timer.Instant) {
	for len(r.order) > 0 && r.order[0].deadline <= now {
		q := r.order[0]
		r.remove(q)
		r.timeOut(q)
		r.spare.take(q)
	}
	if len(r.order) > 0 {
		r.timers.ArmEarlier(&r.timer, r.order[0].deadline)
	}
}

// timeOut tells of a datagram that has run out of time, unless it was condemned.
func (r *Reassembler) timeOut(q *queue) {
	if q.condemned {
		return
	}
	r.stats.TimedOut++
	if r.timedOut != nil && len(q.pieces) > 0 && q.pieces[0].offset == 0 {
		r.timedOut(q.header, q.pieces[0].data)
	}
}

// Stats returns the counters.
func (r *Reassembler) Stats() Stats { return r.stats }

// Held is the number of unfinished datagrams and the bytes they are charged.
func (r *Reassembler) Held() (datagrams, bytes int) { return len(r.order), r.bytes }
