package tcp

import (
	"slices"

	"sbxnet/netstack/seq"
)

// span is a range of sequence space, [start, end).
type span struct{ start, end seq.Value }

func (s span) len() int { return int(s.start.Size(s.end)) }

// recvBuffer holds received data that nobody has taken: first what is in order,
// from base to RCV.NXT, then the out-of-order ranges beyond. Every byte lies at
// the place its sequence number gives it, so filling a gap moves nothing, and
// what a peer can make us hold is bounded by the window.
type recvBuffer struct {
	base   seq.Value   // the first byte not taken
	chunks []*chunk    // chunk i holds positions from i·chunkSize; nil: nothing there
	off    int         // base's place in the first chunk
	ranges []span      // out of order, ascending, disjoint and not touching, all beyond RCV.NXT
	recent []seq.Value // one number in each range lately added to, the newest first
	fresh  int         // how many of recent no acknowledgement has reported yet
}

// write copies p to its place. It reports false, having changed nothing that
// counts, when memory has run out.
func (b *recvBuffer) write(pool *pool, at seq.Value, p []byte) bool {
	pos := b.off + int(b.base.Size(at))
	for len(p) > 0 {
		i, o := pos/chunkSize, pos%chunkSize
		for len(b.chunks) <= i {
			b.chunks = append(b.chunks, nil)
		}
		if b.chunks[i] == nil {
			c := pool.get(i == 0)
			if c == nil {
				return false
			}
			b.chunks[i] = c
		}
		n := copy(b.chunks[i][o:], p)
		p = p[n:]
		pos += n
	}
	return true
}

// insert notes that [start, end) has been written. It reports false when there
// are too many ranges already.
func (b *recvBuffer) insert(r span) bool {
	// i is the first range that ends at or behind r's start.
	i, _ := slices.BinarySearchFunc(b.ranges, r.start, func(s span, v seq.Value) int {
		return int(s.end.Diff(v))
	})
	j := i
	for j < len(b.ranges) && b.ranges[j].start.LessThanEq(r.end) {
		r.start = seq.Min(r.start, b.ranges[j].start)
		r.end = seq.Max(r.end, b.ranges[j].end)
		j++
	}
	if i == j && len(b.ranges) >= maxRanges {
		return false
	}
	b.ranges = slices.Replace(b.ranges, i, j, r)
	return true
}

// noteRecent makes v's range the first that SACK reports (RFC 2018 §4). What
// was noted of the same range before is no longer of interest.
func (b *recvBuffer) noteRecent(v seq.Value) {
	r, _ := b.find(v)
	b.forgetRecent(func(x seq.Value) bool { return seq.InRange(x, r.start, r.end) })
	if len(b.recent) < maxRecent {
		b.recent = append(b.recent, 0)
	}
	copy(b.recent[1:], b.recent)
	b.recent[0] = v
	b.fresh = min(b.fresh+1, len(b.recent))
}

// forgetRecent removes the numbers for which f holds.
func (b *recvBuffer) forgetRecent(f func(seq.Value) bool) {
	kept, fresh := b.recent[:0], b.fresh
	for i, x := range b.recent {
		switch {
		case !f(x):
			kept = append(kept, x)
		case i < fresh:
			b.fresh--
		}
	}
	b.recent = kept
}

// find returns the range that v lies in.
func (b *recvBuffer) find(v seq.Value) (span, bool) {
	i, _ := slices.BinarySearchFunc(b.ranges, v, func(s span, v seq.Value) int {
		return int(s.end.Diff(v.Add(1)))
	})
	if i < len(b.ranges) && b.ranges[i].start.LessThanEq(v) {
		return b.ranges[i], true
	}
	return span{}, false
}

// contains reports whether all of r has been received out of order.
func (b *recvBuffer) contains(r span) bool {
	s, ok := b.find(r.start)
	return ok && r.end.LessThanEq(s.end)
}

// advance moves next over ranges it has reached and returns where it ends up.
func (b *recvBuffer) advance(next seq.Value) seq.Value {
	n := 0
	for n < len(b.ranges) && b.ranges[n].start.LessThanEq(next) {
		next = seq.Max(next, b.ranges[n].end)
		n++
	}
	b.ranges = slices.Delete(b.ranges, 0, n)
	b.forgetRecent(func(x seq.Value) bool { return x.LessThan(next) })
	return next
}

// first returns the in-order bytes at base that lie in one piece, next being
// RCV.NXT.
func (b *recvBuffer) first(next seq.Value) []byte {
	n := min(int(b.base.Size(next)), chunkSize-b.off)
	if n == 0 {
		return nil
	}
	return b.chunks[0][b.off : b.off+n]
}

// peek appends all in-order bytes to bufs.
func (b *recvBuffer) peek(next seq.Value, bufs [][]byte) [][]byte {
	n, off := int(b.base.Size(next)), b.off
	for i := 0; n > 0; i++ {
		m := min(n, chunkSize-off)
		bufs = append(bufs, b.chunks[i][off:off+m])
		n -= m
		off = 0
	}
	return bufs
}

// consume moves base n bytes on, up to next, and frees what lies before it.
// With nothing left no memory is kept.
func (b *recvBuffer) consume(p *pool, n int, next seq.Value) {
	b.base = b.base.Add(uint32(n))
	b.off += n
	if b.base == next && len(b.ranges) == 0 {
		b.free(p)
		return
	}
	done := min(b.off/chunkSize, len(b.chunks))
	if done == 0 {
		return
	}
	b.off -= done * chunkSize
	putAll(p, b.chunks[:done])
	rest := copy(b.chunks, b.chunks[done:])
	clear(b.chunks[rest:])
	b.chunks = b.chunks[:rest]
}

// dropRanges forgets what is out of order, next being the end of what is not.
func (b *recvBuffer) dropRanges(p *pool, next seq.Value) {
	b.ranges, b.recent, b.fresh = b.ranges[:0], b.recent[:0], 0
	b.consume(p, 0, next)
}

// free gives all memory back.
func (b *recvBuffer) free(p *pool) {
	putAll(p, b.chunks)
	clear(b.chunks)
	b.chunks = b.chunks[:0]
	b.ranges, b.recent = b.ranges[:0], b.recent[:0]
	b.off, b.fresh = 0, 0
}

func putAll(p *pool, chunks []*chunk) {
	for _, c := range chunks {
		if c != nil {
			p.put(c)
		}
	}
}
