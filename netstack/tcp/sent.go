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
//
// Records that the peer has SACKed one behind the other are joined, and what is
// put in or taken out moves the records on the shorter side of it. So a SACK's
// cost is that of the holes it tells of, not of all that is in flight.
type sentQueue struct {
	recs      []sent
	head      int
	resent    seq.Value // the highest end of a record that was sent again, if anyResent
	anyResent bool      // and it is still here
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
		if q.inOrderFrom(&q.recs[q.head]) {
			q.anyResent = false // or its number would be taken for a later one
		}
		return
	}
	q.recs, q.head, q.anyResent = q.recs[:0], 0, false
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
	if q.head > 0 && i < q.count()/2 {
		q.head--
		recs := q.all()
		copy(recs[:i+1], recs[1:i+2])
	} else {
		q.makeRoom()
		q.recs = append(q.recs, sent{})
		recs := q.all()
		copy(recs[i+1:], recs[i:])
	}
	recs := q.all()
	recs[i].end = v
	recs[i+1].start = v
}

// joinSacked joins record i, which the peer has, with its neighbours if it has
// them too, and returns the index of the record behind.
func (q *sentQueue) joinSacked(i int) int {
	if i > 0 && q.all()[i-1].has(flagSacked) {
		i--
		q.join(i)
	}
	if i+1 < q.count() && q.all()[i+1].has(flagSacked) {
		q.join(i)
	}
	return i + 1
}

// join makes one of record i and the one behind it.
func (q *sentQueue) join(i int) {
	recs := q.all()
	r, next := &recs[i], &recs[i+1]
	r.end, r.at, r.flags = next.end, max(r.at, next.at), r.flags|next.flags
	if i < len(recs)/2 {
		copy(recs[1:i+2], recs[:i+1])
		q.head++
		return
	}
	copy(recs[i+1:], recs[i+2:])
	q.recs = q.recs[:len(q.recs)-1]
}

// noteResent notes that the record was sent again.
func (q *sentQueue) noteResent(r *sent) {
	if !q.anyResent || q.resent.LessThan(r.end) {
		q.anyResent, q.resent = true, r.end
	}
}

// inOrderFrom reports whether no record from r on was sent again: then each was
// sent later than the one before.
func (q *sentQueue) inOrderFrom(r *sent) bool {
	return !q.anyResent || q.resent.LessThanEq(r.start)
}
