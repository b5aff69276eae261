package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// windowShift is the smallest scale with which a buffer of n bytes fits the
// window field (RFC 7323 §2.2).
func windowShift(n int) uint8 {
	shift := uint8(0)
	for n>>shift > 0xffff && shift < header.MaxWindowScale {
		shift++
	}
	return shift
}

// bufferEdge is the right edge that the free buffer allows.
func (c *Conn) bufferEdge() seq.Value {
	return c.in.base.Add(uint32(c.receiveLimit()))
}

// storeEdge is where received data is cut off whatever was advertised. Memory
// under pressure does not take back what was promised before.
//
// The edge that was promised lies beyond the buffer's, since the field rounds up
// and no edge moves back: each acknowledgement can add up to a unit of the scale,
// while nobody reads. Half the buffer more is room for that with segments of three
// units or more, and the units on top for a small buffer. Smaller segments can
// creep farther, and are cut off here.
func (c *Conn) storeEdge() seq.Value {
	return c.in.base.Add(uint32(c.rcvTune.size + c.rcvTune.size/2 + scaleSlack<<c.rcvShift))
}

// scaleSlack is how many units of the window's scale a buffer may exceed its size
// by, and a half.
const scaleSlack = 32

// nextEdge is the right edge to advertise now, as far as the field can say it.
// It never moves back, and forward only by a segment or half the buffer (the
// receiver's silly window avoidance, RFC 9293 §3.8.6.2.2).
func (c *Conn) nextEdge() seq.Value {
	if c.edgeHeld {
		return c.rcvAdv
	}
	want := seq.Min(c.bufferEdge(), c.rcvNxt.Add(uint32(0xffff)<<c.rcvShift))
	step := min(c.rcvTune.size/2, c.rcvMSS)
	if int(want.Diff(c.rcvAdv)) < step {
		return c.rcvAdv
	}
	return want
}

// HoldWindow keeps the window's right edge where it is, whatever the handler
// takes, until it is called with false: the next Flush then sends a window update
// if one is due. Nothing takes back what was promised, so each acknowledgement
// that a window with a scale has to be rounded up for still adds less than a unit
// of it, as ever.
func (c *Conn) HoldWindow(hold bool) {
	c.edgeHeld = hold
	c.markDirty()
}

// selectWindow returns the window field for a segment that goes out now, and
// notes the right edge it promises.
func (c *Conn) selectWindow() uint16 {
	c.windowHeld = c.Buffered() > 0 || c.edgeHeld
	size := c.nextEdge().Diff(c.rcvNxt)
	if size <= 0 {
		return 0
	}
	unit := int32(1) << c.rcvShift
	field := size >> c.rcvShift
	if c.rcvNxt.Add(uint32(field << c.rcvShift)).LessThan(c.rcvAdv) {
		field = (size + unit - 1) >> c.rcvShift
	}
	field = min(field, 0xffff)
	c.rcvAdv = seq.Max(c.rcvAdv, c.rcvNxt.Add(uint32(field<<c.rcvShift)))
	return uint16(field)
}

// windowUpdateDue reports whether the peer should hear that the window, which
// data nobody took or HoldWindow has narrowed, is opening: by a quarter of the
// buffer, or at all when it has next to nothing.
func (c *Conn) windowUpdateDue() bool {
	if c.finReceived || !c.windowHeld {
		return false
	}
	opened := int(c.nextEdge().Diff(c.rcvAdv))
	if opened <= 0 {
		return false
	}
	left := int(c.rcvAdv.Diff(c.rcvNxt))
	return opened >= c.rcvTune.size/4 || left < 2*c.rcvMSS
}

// updateSendWindow takes the peer's window if the segment is not older than the
// one the last window came from (RFC 9293 §3.10.7.4, fifth). s.ack has been
// checked against SND.NXT.
func (c *Conn) updateSendWindow(s *segment) {
	if s.ack.LessThan(c.sndUna) {
		return
	}
	// An acknowledgement of more is newer whatever its sequence number: one that
	// comes behind a segment out of order would leave a window that belongs to an
	// older SND.UNA, and so a right edge that nobody told.
	newer := c.sndWl2.LessThan(s.ack) || c.sndWl1.LessThanEq(s.seq)
	if !newer {
		return
	}
	wnd := uint32(s.wnd) << c.sndShift
	c.sndWl1, c.sndWl2 = s.seq, s.ack
	if wnd == c.sndWnd {
		return
	}
	if wnd > c.sndWnd {
		c.markDirty() // there may be data that waited for this
	}
	if c.sndWnd == 0 && c.outstanding() > 0 {
		// What was sent into the closed window was dropped, and the timer has
		// backed off meanwhile.
		c.rtt.resetRTO()
		c.arm(timerRetransmit, c.rtt.rto)
	}
	c.sndWnd = wnd
	c.maxSndWnd = max(c.maxSndWnd, wnd)
	if wnd > 0 {
		c.persistBackoff = 0
		c.cancel(timerPersist)
	}
}
