package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// input processes a segment for the connection: RFC 9293 §3.10.7.
func (c *Conn) input(s *segment) {
	switch c.state {
	case Held:
		c.inputHeld(s)
	case SynSent:
		c.inputSynSent(s)
	default:
		c.inputSynchronized(s)
	}
}

// fastPath takes the segments that make up a bulk transfer: in order, plain
// flags, expected options. It changes nothing if it returns false.
func (c *Conn) fastPath(s *segment) bool {
	plain := c.state == Established && s.flags&^header.PSH == header.ACK &&
		s.seq == c.rcvNxt && s.opt.NumSACK == 0 && s.opt.Timestamp == c.tsOK &&
		s.ecn != ecnCE && len(c.in.ranges) == 0 && !c.peerFINKnown
	if !plain || int(c.rcvAdv.Diff(s.end())) < 0 {
		return false
	}
	if c.tsOK && int32(s.opt.TSVal-c.tsRecent) < 0 {
		return false
	}
	if s.ack.LessThan(c.sndUna) || c.sndNxt.LessThan(s.ack) {
		return false
	}
	c.heard(s)
	c.processAck(s)
	c.updateSendWindow(s)
	if len(s.payload) > 0 && c.attached {
		c.processText(s)
	}
	return true
}

// inputSynchronized takes the steps of RFC 9293 §3.10.7.4 as changed by RFC
// 5961 and RFC 7323, in their order, for every state from SYN-RECEIVED on.
func (c *Conn) inputSynchronized(s *segment) {
	if c.state == SynReceived && c.repeatedSYN(s) {
		return
	}
	if !c.acceptableTimestamp(s) || !c.acceptableSequence(s) {
		return
	}
	if s.flags.Has(header.RST) {
		c.inputReset(s)
		return
	}
	if s.flags.Has(header.SYN) {
		c.challengeACK() // RFC 5961 §4.2
		return
	}
	if !s.flags.Has(header.ACK) {
		c.engine.stats.Drops.Malformed++
		return
	}
	if c.state == SynReceived && !c.inputHandshakeACK(s) {
		return
	}
	if !c.acceptableAck(s.ack) {
		c.engine.stats.Drops.BadACK++
		c.challengeACK()
		return
	}
	c.heard(s)
	c.processAck(s)
	c.updateSendWindow(s)
	c.afterAck()
	if !c.attached {
		return
	}
	c.noteECN(s)
	c.processText(s)
	if c.attached {
		c.processFIN(s)
	}
}

// repeatedSYN handles what only SYN-RECEIVED sees: the peer's SYN again, whose
// SYN-ACK was lost, and the SYN-ACK of a simultaneous open (RFC 9293 §3.5,
// figure 8), from which the SYN is taken off.
func (c *Conn) repeatedSYN(s *segment) bool {
	if !s.flags.Has(header.SYN) || s.seq != c.irs {
		return false
	}
	if s.flags.Has(header.ACK) {
		s.flags &^= header.SYN
		s.seq = s.seq.Add(1)
		return false
	}
	c.synDue = true
	c.markDirty()
	return true
}

// acceptableTimestamp is PAWS (RFC 7323 §5.3 R1), and the rule that a
// connection with timestamps has them everywhere (§3.2). A peer that has been
// silent for 24 days may have any (§5.5). The handshake's last ACK may lack it.
func (c *Conn) acceptableTimestamp(s *segment) bool {
	if !c.tsOK || s.flags.Has(header.RST) {
		return true
	}
	if !s.opt.Timestamp {
		if c.state == SynReceived || s.flags.Has(header.SYN) {
			return true // a SYN is challenged further down
		}
		c.engine.stats.Drops.PAWS++
		return false
	}
	if int32(s.opt.TSVal-c.tsRecent) >= 0 || c.engine.now.Sub(c.tsRecentAt) > pawsExpiry {
		return true
	}
	c.engine.stats.Drops.PAWS++
	c.rejectSegment(s)
	return false
}

// acceptableSequence is the four-case test of RFC 9293 §3.10.7.4, first. Of a
// segment at the left edge of a closed window all but the text is acceptable.
func (c *Conn) acceptableSequence(s *segment) bool {
	wnd := uint32(max(0, c.rcvAdv.Diff(c.rcvNxt)))
	n := s.length()
	var ok bool
	switch {
	case n == 0 && wnd == 0:
		ok = s.seq == c.rcvNxt
	case n == 0:
		ok = seq.InWindow(s.seq, c.rcvNxt, wnd)
	case wnd == 0:
		ok = s.seq == c.rcvNxt
	default:
		ok = seq.InWindow(s.seq, c.rcvNxt, wnd) || seq.InWindow(s.seq.Add(n-1), c.rcvNxt, wnd) ||
			s.seq.LessThan(c.rcvNxt) && c.rcvAdv.LessThan(s.end())
	}
	if !ok {
		c.engine.stats.Drops.OutOfWindow++
		c.rejectSegment(s)
	}
	return ok
}

// rejectSegment answers a segment that is not acceptable, as it may be the
// peer's way to ask. Old data is reported as such (RFC 2883 §4.1).
func (c *Conn) rejectSegment(s *segment) {
	if s.flags.Has(header.RST) {
		return
	}
	if len(s.payload) > 0 && s.end().LessThanEq(c.rcvNxt) {
		c.noteDuplicate(span{s.seq, s.seq.Add(uint32(len(s.payload)))})
	}
	if s.length() > 0 {
		c.ackNow = true
		c.markDirty()
		return
	}
	c.challengeACK()
}

// inputReset is RFC 5961 §3.2: only an RST at exactly RCV.NXT resets.
func (c *Conn) inputReset(s *segment) {
	if s.seq != c.rcvNxt {
		c.engine.stats.Drops.BadReset++
		c.challengeACK()
		return
	}
	switch c.state {
	case SynReceived:
		c.close(ErrRefused)
	case Closing, LastAck:
		c.close(nil) // both sides had finished (RFC 9293 §3.10.7.4)
	default:
		c.close(ErrReset)
	}
}

// inputHandshakeACK completes SYN-RECEIVED, or refuses to.
func (c *Conn) inputHandshakeACK(s *segment) bool {
	if !c.sndUna.LessThan(s.ack) || c.sndNxt.LessThan(s.ack) {
		c.engine.stats.Drops.BadACK++
		c.engine.sendReset(&c.route, s.ack, 0, false)
		return false
	}
	if c.listener != nil && !c.listener.hasRoom() {
		// Silently: the client takes the connection for established, and its
		// data or our SYN-ACK, repeated, brings the ACK again.
		c.engine.stats.Drops.ListenFull++
		return false
	}
	c.takeSynRTT()
	c.becomeEstablished(s)
	return c.attached
}

// takeSynRTT measures the round trip of a handshake that needed no
// retransmission (RFC 6298 §3, §5.7).
func (c *Conn) takeSynRTT() {
	if c.retries == 0 {
		d := c.engine.now.Sub(c.synSentAt)
		c.rtt.sample(c.engine.now, d)
		c.trip.sample(d)
	} else {
		c.rtt.rto = max(c.rtt.rto, 3*initialRTO)
	}
	c.retries = 0
}

// becomeEstablished ends the handshake. s carries the ACK of our SYN.
func (c *Conn) becomeEstablished(s *segment) {
	c.sndUna = c.iss.Add(1)
	c.sndWnd = uint32(s.wnd)
	if !s.flags.Has(header.SYN) {
		c.sndWnd <<= c.sndShift
	}
	c.maxSndWnd = max(c.maxSndWnd, c.sndWnd)
	c.sndWl1, c.sndWl2 = s.seq, s.ack
	c.state = Established
	c.setMSS()
	c.startCongestion()
	c.quickACKs = quickACKs
	c.lastHeard = c.engine.now
	c.cancel(timerRetransmit)
	c.armKeepAlive()
	c.markDirty()
	if l := c.listener; l != nil {
		l.established(c)
	}
	if c.handler != nil {
		c.handler.Established(c)
	}
}

// heard notes what every acceptable segment says: the peer lives, and its clock
// (RFC 7323 §4.3: only a segment that covers Last.ACK.sent moves TS.Recent).
func (c *Conn) heard(s *segment) {
	now := c.engine.now
	c.lastHeard = now
	c.probes = 0
	if c.sndWnd == 0 && !c.readClosed {
		c.retries = 0 // it has closed its window on us, but it is there
	}
	if !c.tsOK || !s.opt.Timestamp {
		return
	}
	c.trip.echoed(s.opt.TSEcr, now)
	if s.seq.LessThanEq(c.lastAckSent) {
		c.tsRecent, c.tsRecentAt = s.opt.TSVal, now
	}
}

// noteECN follows the congestion signal of the path towards us (RFC 3168 §6.1.3).
func (c *Conn) noteECN(s *segment) {
	if !c.ecnOK {
		return
	}
	if s.flags.Has(header.CWR) {
		c.ecnEcho = false
	}
	if s.ecn == ecnCE {
		c.ecnEcho = true
		c.ackNow = true
		c.markDirty()
	}
}

// afterAck moves on the states that wait for our FIN to be acknowledged.
func (c *Conn) afterAck() {
	if !c.ackedFIN() {
		return
	}
	switch c.state {
	case FinWait1:
		c.state = FinWait2
		c.startLinger()
	case Closing:
		c.becomeTimeWait()
	case LastAck:
		c.close(nil)
	}
}

// challengeACK asks the peer to prove itself (RFC 5961). Limited per
// connection: a limit shared by all would tell an attacker about others
// (CVE-2016-5696).
func (c *Conn) challengeACK() {
	if !c.challenge.allow(c.engine.now) {
		c.engine.stats.ChallengesWithheld++
		return
	}
	c.ackNow = true
	c.markDirty()
}
