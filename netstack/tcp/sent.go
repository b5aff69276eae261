package tcp

import (
	"sort"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// What is known of a transmission.
const (
	flagSacked        uint8 = 1 << iota // the peer has it, out of order
	flagLost                            // taken for lost and not sent again yet
	flagRetransmitted                   // sent more than once
	flagMerged                          // its time is that of its last byte: no RTT sample
)

// sent is a record of sequence space that went out at one time: up to a
// super-segment, split where SACK tells its parts apart.
type sent struct {
	start, end seq.Value
	at         timer.Instant // the last transmission
	flags      uint8
}

func (r *sent) len() int { return int(r.start.Size(r.end)) }

func (r *sent) has(f uint8) bool { return r.flags&f != 0 }

// sentQueue is the records from SND.UNA to SND.NXT, contiguous and ascending.
// It is bounded: past a limit of records, new data joins the last record, and
// past twice that a SACK block that would split one is ignored (CVE-2019-11478).
type sentQueue struct {
	recs []sent
	head int
}

// all is the records in order. The slice is good until the queue changes.
func (q *sentQueue) all() []sent { return q.recs[q.head:] }

func (q *sentQueue) count() int { return len(q.recs) - q.head }

// add appends a record of a transmission. It reports whether that had to join
// the last one, there being limit already.
func (q *sentQueue) add(r sent, limit int) (joined bool) {
	if n := len(q.recs); q.count() >= limit {
		last := &q.recs[n-1]
		if !last.has(flagSacked | flagLost) {
			last.end, last.at = r.end, r.at
			last.flags |= flagMerged
			return true
		}
	}
	q.makeRoom()
	q.recs = append(q.recs, r)
	return false
}

// makeRoom moves the records to the front when there is no place behind them,
// but not all of them for a few: then append finds more memory.
func (q *sentQueue) makeRoom() {
	if len(q.recs) < cap(q.recs) || q.head < cap(q.recs)/4 {
		return
	}
	n := copy(q.recs, q.recs[q.head:])
	q.recs = q.recs[:n]
	q.head = 0
}

// drop removes the first n records. An empty queue keeps the memory that a
// transfer in order needs, and no more.
func (q *sentQueue) drop(n int) {
	q.head += n
	if q.head < len(q.recs) {
		return
	}
	q.recs, q.head = q.recs[:0], 0
	if cap(q.recs) > keepSent {
		q.recs = nil
	}
}

const keepSent = 256

// find is the index, in all(), of the first record that ends beyond v.
func (q *sentQueue) find(v seq.Value) int {
	recs := q.all()
	return sort.Search(len(recs), func(i int) bool { return v.LessThan(recs[i].end) })
}

// split cuts record i of all() at v, which lies strictly inside it, for SACK. It
// refuses when the peer has had too many cut already.
func (q *sentQueue) split(i int, v seq.Value, limit int) bool {
	if q.count() >= 2*limit {
		return false
	}
	q.cut(i, v)
	return true
}

// cut is split for retransmission, which cuts whole segments off and so is
// bounded by the buffer.
func (q *sentQueue) cut(i int, v seq.Value) {
	q.makeRoom()
	i += q.head
	q.recs = append(q.recs, sent{})
	copy(q.recs[i+1:], q.recs[i:])
	q.recs[i].end = v
	q.recs[i+1].start = v
}
