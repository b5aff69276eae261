package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// receiver is the receiving half of a connection (RFC 9293 §3.3.1).
type receiver struct {
	irs          seq.Value
	rcvNxt       seq.Value
	rcvAdv       seq.Value // the right edge the peer has been told, never moves back
	lastAckSent  seq.Value // RFC 7323 §4.3
	in           recvBuffer
	dsack        span // to be reported as received twice (RFC 2883); empty: nothing
	tsRecent     uint32
	tsRecentAt   timer.Instant
	lastHeard    timer.Instant // any acceptable segment
	lastData     timer.Instant
	dupOwed      int  // duplicate ACKs the batch's segments out of order are due, without SACK
	windowHeld   bool // the last window advertised was narrowed by data nobody had taken, or by HoldWindow
	edgeHeld     bool // HoldWindow: the right edge stays
	offering     bool // Data is being called with what has just arrived
	rcvMSS       int  // what the peer seems to use, for counting full segments
	quickACKs    int  // acknowledgements still to be sent without delay
	ackNow       bool // an acknowledgement is due at Flush whatever else
	ecnEcho      bool // CE was seen and CWR not since (RFC 3168 §6.1.3)
	peerFINKnown bool
	peerFIN      seq.Value // where the peer's FIN is, if known; it may lie beyond a gap
	offerDue     bool      // a new handler has not been offered the buffer yet
}

// processText takes the payload of an acceptable segment: RFC 9293 §3.10.7.4,
// seventh.
func (c *Conn) processText(s *segment) {
	at, p := s.seq, s.payload
	if s.flags.Has(header.SYN) {
		at = at.Add(1)
	}
	if at.LessThan(c.rcvNxt) {
		at, p = c.trimLeft(at, p)
	}
	p = c.trimRight(at, p)
	if len(p) == 0 {
		return
	}
	if c.readClosed {
		// Data that nobody will read must not look delivered (RFC 2525 §2.17).
		c.engine.stats.Drops.AfterClose++
		c.reset(ErrAborted)
		return
	}
	c.noteSegment(s, len(p))
	if at == c.rcvNxt {
		c.receiveInOrder(p)
	} else {
		c.receiveOutOfOrder(at, p)
	}
}

// trimLeft cuts off what has been received before and has it reported by DSACK.
func (c *Conn) trimLeft(at seq.Value, p []byte) (seq.Value, []byte) {
	old := min(int(at.Size(c.rcvNxt)), len(p))
	if old > 0 {
		c.noteDuplicate(span{at, at.Add(uint32(old))})
	}
	return at.Add(uint32(old)), p[old:]
}

// trimRight cuts off what lies beyond the window, or beyond what can be stored:
// rounding up to the window's scale can promise a little more than that.
func (c *Conn) trimRight(at seq.Value, p []byte) []byte {
	edge := seq.Min(c.rcvAdv, c.storeEdge())
	room := int(edge.Diff(at))
	if room >= len(p) {
		return p
	}
	c.ackNow = true // it may be a window probe with nothing else to answer
	c.markDirty()
	return p[:max(0, room)]
}

// noteDuplicate remembers a range for DSACK; the first one stays, as RFC 2883
// §4 reports the segment that triggers the acknowledgement.
func (c *Conn) noteDuplicate(r span) {
	c.ackNow = true
	if c.sackOK && c.dsack.len() == 0 {
		c.dsack = r
	}
}

// noteSegment learns the peer's segment size.
func (c *Conn) noteSegment(s *segment, n int) {
	size := n
	if s.size > 0 {
		size = s.size
	}
	if size > c.rcvMSS {
		c.rcvMSS = min(size, c.engine.linkMSS(c.route.Local.Addr()))
	}
	c.lastData = c.engine.now
	c.markDirty()
}

// receiveInOrder takes payload that begins at RCV.NXT.
func (c *Conn) receiveInOrder(p []byte) {
	taken := 0
	start := c.rcvNxt
	direct := c.in.base == c.rcvNxt && c.handler != nil && !c.offerDue
	if direct {
		c.offering = true
		taken = min(max(c.handler.Data(c, p), 0), len(p))
		c.offering = false
		if !c.state.canReceive() || c.rcvNxt != start {
			// The handler reset the connection. What it took is past caring.
			return
		}
		if c.readClosed && taken < len(p) {
			c.engine.stats.Drops.AfterClose++
			c.reset(ErrAborted)
			return
		}
	}
	rest := p[taken:]
	if len(rest) > 0 && !c.in.write(&c.engine.pool, start.Add(uint32(taken)), rest) {
		// Out of memory: what was not stored was not received.
		c.engine.stats.Drops.Memory++
		c.ackNow = true
		p = p[:taken]
	}
	c.rcvNxt = start.Add(uint32(len(p)))
	if len(c.in.ranges) > 0 {
		c.fillGap()
	}
	c.in.consume(&c.engine.pool, taken, c.rcvNxt)
	if taken > 0 {
		c.tuneReceive(taken)
	}
	if direct && taken == len(p) && c.in.base != c.rcvNxt {
		c.offerBuffered()
	}
}

// fillGap moves RCV.NXT over out-of-order data that is now in order. The
// acknowledgement goes out at once (RFC 5681 §4.2).
func (c *Conn) fillGap() {
	c.ackNow = true
	c.rcvNxt = c.in.advance(c.rcvNxt)
}

// offerBuffered offers buffered data to the handler until it takes less than all.
func (c *Conn) offerBuffered() {
	for c.Buffered() > 0 && c.handler != nil && !c.readClosed {
		p := c.in.first(c.dataEnd())
		base := c.in.base
		n := min(max(c.handler.Data(c, p), 0), len(p))
		if c.state == Closed || c.in.base != base {
			return // reset, or the handler has turned to Consume
		}
		c.Consume(n)
		if n < len(p) {
			return
		}
	}
}

// receiveOutOfOrder keeps payload that begins beyond RCV.NXT, in bounded bytes
// (the window) and ranges.
func (c *Conn) receiveOutOfOrder(at seq.Value, p []byte) {
	c.ackNow = true
	r := span{at, at.Add(uint32(len(p)))}
	if c.in.contains(r) {
		c.noteDuplicate(r)
	} else if !c.in.write(&c.engine.pool, at, p) || !c.in.insert(r) {
		c.engine.stats.Drops.Memory++
		c.in.consume(&c.engine.pool, 0, c.rcvNxt) // what was written in part holds no memory
		return
	}
	if c.sackOK {
		c.in.noteRecent(at)
	} else {
		c.dupOwed = min(c.dupOwed+1, maxDupACK)
	}
}

// processFIN takes the peer's FIN once all before it has arrived: RFC 9293
// §3.10.7.4, eighth. One that comes out of order is remembered.
func (c *Conn) processFIN(s *segment) {
	if s.flags.Has(header.FIN) && c.state.canReceive() {
		if fin := s.end().Sub(1); c.rcvNxt.LessThanEq(fin) && fin.LessThanEq(c.rcvAdv) {
			c.peerFIN, c.peerFINKnown = fin, true
			c.ackNow = true
			c.markDirty()
		}
	}
	if !c.peerFINKnown || c.peerFIN != c.rcvNxt || !c.state.canReceive() {
		return
	}
	c.rcvNxt = c.rcvNxt.Add(1)
	c.finReceived = true
	c.rcvAdv = seq.Max(c.rcvAdv, c.rcvNxt)
	c.ackNow = true
	c.in.dropRanges(&c.engine.pool, c.dataEnd()) // nothing comes after a FIN
	c.markDirty()
	switch c.state {
	case Established:
		c.state = CloseWait
	case FinWait1:
		c.state = Closing // our FIN is not acknowledged, or the state would be FIN-WAIT-2
	case FinWait2:
		c.becomeTimeWait()
	}
}
