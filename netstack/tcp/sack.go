package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// processSACK applies a segment's SACK blocks to the records (RFC 2018 §5).
func (c *Conn) processSACK(s *segment, a *ackEvent) {
	blocks := s.opt.SACK[:s.opt.NumSACK]
	if d, ok := duplicateBlock(blocks, s.ack); ok {
		blocks = blocks[1:]
		c.processDSACK(d, a)
	}
	una := seq.Max(c.sndUna, s.ack)
	for _, b := range blocks {
		// Only what is outstanding and not acknowledged by this very segment.
		if !b.Left.LessThan(b.Right) || b.Left.LessThan(una) || c.sndNxt.LessThan(b.Right) {
			continue
		}
		c.markSacked(b, s, a)
	}
}

// duplicateBlock returns the first block if it reports data received twice: it
// lies below the acknowledgement or inside the second block (RFC 2883 §4).
func duplicateBlock(blocks []header.SACKBlock, ack seq.Value) (header.SACKBlock, bool) {
	first := blocks[0]
	if !first.Left.LessThan(first.Right) {
		return first, false
	}
	if first.Right.LessThanEq(ack) {
		return first, true
	}
	if len(blocks) < 2 {
		return first, false
	}
	second := blocks[1]
	return first, second.Left.LessThanEq(first.Left) && first.Right.LessThanEq(second.Right)
}

// markSacked marks what the block covers. Records are split at its edges, as
// far as their number is bounded. Work is bounded by that too.
func (c *Conn) markSacked(b header.SACKBlock, s *segment, a *ackEvent) {
	for i := c.sent.find(b.Left); i < c.sent.count(); {
		r := &c.sent.all()[i]
		if !r.start.LessThan(b.Right) {
			return
		}
		if r.has(flagSacked) {
			i++
			continue
		}
		if r.start.LessThan(b.Left) {
			c.sent.split(i, b.Left, c.recordLimit()) // the rest is the next record
			i++
			continue
		}
		if b.Right.LessThan(r.end) {
			if !c.sent.split(i, b.Right, c.recordLimit()) {
				return
			}
			r = &c.sent.all()[i]
		}
		c.recordSacked(r, s, a)
		i = c.sent.joinSacked(i)
	}
}

func (c *Conn) recordSacked(r *sent, s *segment, a *ackEvent) {
	n := r.len()
	if r.has(flagLost) {
		c.lost -= n
	}
	r.flags = r.flags&^flagLost | flagSacked
	c.sacked += n
	a.delivered += n
	a.sackedNew = true
	c.noteDelivered(r, s, a)
}

// processDSACK learns that a retransmission was not needed, or that the network
// duplicates (RFC 2883, RFC 8985 §6.2 step 4).
func (c *Conn) processDSACK(b header.SACKBlock, a *ackEvent) {
	n := b.Left.Size(b.Right)
	if n > c.maxSndWnd+uint32(c.sndTune.size) {
		return
	}
	a.dsack = int(n)
	c.rack.onDSACK(c)
}

// forgetSacked is for a peer that has thrown away what it had SACKed (RFC 2018
// §8): nothing it said counts any more.
func (c *Conn) forgetSacked() {
	recs := c.sent.all()
	for i := range recs {
		recs[i].flags &^= flagSacked
	}
	c.sacked = 0
}

// sackOptions puts the SACK blocks of an acknowledgement into o: DSACK, then
// the ranges lately added to, from the given one on, the newest being 0 (RFC
// 2018 §4, RFC 2883 §4).
func (c *Conn) sackOptions(o *header.TCPOptions, limit, from int) {
	if !c.sackOK {
		return
	}
	if c.dsack.len() > 0 {
		o.SACK[0] = header.SACKBlock{Left: c.dsack.start, Right: c.dsack.end}
		o.NumSACK = 1
	}
	if from >= len(c.in.recent) {
		return
	}
	for _, v := range c.in.recent[from:] {
		if o.NumSACK == limit {
			return
		}
		if r, ok := c.in.find(v); ok {
			o.SACK[o.NumSACK] = header.SACKBlock{Left: r.start, Right: r.end}
			o.NumSACK++
		}
	}
}

// reportRanges sends the acknowledgements that a batch of segments out of order
// is due beyond the one that Flush sends anyway: with SACK as many as it takes
// to report every range once, the newest last, or the sender would send again
// what has arrived; without, one for each, as the sender counts them (RFC 5681
// §4.2).
func (c *Conn) reportRanges() {
	for limit := c.sackRoom(); c.in.fresh > limit; limit = c.sackRoom() {
		from := c.in.fresh - limit
		c.sendBareFrom(c.sndNxt, from)
		c.in.fresh, c.ackNow = from, true // the newest are still to come
	}
	for ; c.dupOwed > 1; c.dupOwed-- {
		c.sendBare(c.sndNxt)
		c.ackNow = true
	}
	c.dupOwed = 0
}

// sackRoom is how many ranges the next acknowledgement can report.
func (c *Conn) sackRoom() int {
	room := header.MaxSACKBlocks
	if c.tsOK {
		room--
	}
	if c.dsack.len() > 0 {
		room--
	}
	return room
}
