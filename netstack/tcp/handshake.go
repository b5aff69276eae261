package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// open is a SYN's content, from the segment or from a cookie.
type open struct {
	irs       seq.Value
	wnd       uint16
	mss       int // 0: no option
	scale     uint8
	hasScale  bool
	sack      bool
	timestamp bool
	tsVal     uint32
	ecn       bool
}

func openOf(s *segment) open {
	return open{
		irs: s.seq, wnd: s.wnd, mss: int(s.opt.MSS), scale: s.opt.WindowScale,
		hasScale: s.opt.HasWindowScale, sack: s.opt.SACKPermitted,
		timestamp: s.opt.Timestamp, tsVal: s.opt.TSVal,
		ecn: s.flags.Has(header.ECE | header.CWR),
	}
}

// takeSYN sets the receiver up from the peer's SYN, and what both sides want.
func (c *Conn) takeSYN(o *open) {
	c.irs = o.irs
	c.rcvNxt = o.irs.Add(1)
	c.rcvAdv = c.rcvNxt
	c.lastAckSent = c.rcvNxt
	c.in.base = c.rcvNxt
	c.rcvMSS = defaultMSS(c.route.Local.Addr())
	c.sackOK, c.tsOK, c.scaleOK, c.ecnOK = o.sack, o.timestamp, o.hasScale, o.ecn
	c.sndShift, c.rcvShift = 0, 0
	if o.hasScale {
		c.sndShift = o.scale
		c.rcvShift = windowShift(c.engine.cfg.ReceiveBufferMax)
	}
	c.tsRecent, c.tsRecentAt = o.tsVal, c.engine.now
	if o.mss > 0 {
		c.peerMSS = max(o.mss, minMSS)
	}
	c.sndWnd = uint32(o.wnd) // not scaled in a SYN (RFC 7323 §2.2)
	c.maxSndWnd = c.sndWnd
	c.sndWl1 = o.irs
	c.lastHeard = c.engine.now
	c.setMSS()
}

// newPassive makes a connection for a SYN. It is not in the table yet.
func (e *Engine) newPassive(k flowKey, o *open) *Conn {
	c := e.newConn(k)
	c.passive = true
	c.startSending(e.isn(&k))
	c.tsOffset = e.timestampOffset(&k)
	c.takeSYN(o)
	e.stats.PassiveOpens++
	return c
}

// becomeSynReceived has the SYN-ACK sent by the next Flush.
func (c *Conn) becomeSynReceived() {
	c.state = SynReceived
	c.cancel(timerLinger)
	c.synDue = true
	c.markDirty()
}

// inputHeld absorbs what a held connection's peer sends, but for an RST, which
// ends it.
func (c *Conn) inputHeld(s *segment) {
	switch {
	case s.flags.Has(header.RST):
		// The peer has had no sequence number from us, so its RST is at its own.
		if s.seq == c.rcvNxt || s.seq == c.irs {
			c.close(ErrReset)
		}
	case s.flags.Has(header.SYN) && !s.flags.Has(header.ACK) && s.seq != c.irs:
		// A newer attempt from the same port: answer that one in the end.
		o := openOf(s)
		c.takeSYN(&o)
	}
}

// asksECN reports whether the SYN is to ask for ECN: the first one, as there are
// networks that drop such (RFC 3168 §6.1.1.1). Once one has gone without, there
// is no ECN (§6.1.1).
func (c *Conn) asksECN() bool { return c.state == SynSent && c.engine.cfg.ECN && c.retries == 0 }

// inputSynSent is RFC 9293 §3.10.7.3.
func (c *Conn) inputSynSent(s *segment) {
	if s.flags.Has(header.ACK) && s.ack != c.sndNxt {
		// Nothing but the SYN has been sent.
		c.engine.stats.Drops.BadACK++
		if !s.flags.Has(header.RST) {
			c.engine.sendReset(&c.route, s.ack, 0, false)
		}
		return
	}
	if s.flags.Has(header.RST) {
		if s.flags.Has(header.ACK) {
			c.close(ErrRefused)
		}
		return
	}
	if !s.flags.Has(header.SYN) {
		return
	}
	o := openOf(s)
	o.ecn = c.asksECN() && s.flags.Has(header.ACK|header.ECE) && !s.flags.Has(header.CWR)
	c.takeSYN(&o)
	if !s.flags.Has(header.ACK) {
		// Simultaneous open (RFC 9293 §3.5).
		c.becomeSynReceived()
		return
	}
	c.rcvAdv = c.rcvNxt.Add(uint32(min(c.engine.cfg.ReceiveBuffer, 0xffff)))
	c.takeSynRTT()
	c.ackNow = true
	c.becomeEstablished(s)
	if c.attached {
		c.processText(s)
	}
	if c.attached {
		c.processFIN(s)
	}
}
