package tcp

import (
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// ackEvent is what one acknowledgement says.
type ackEvent struct {
	acked         int  // bytes SND.UNA moved
	delivered     int  // bytes newly known to have arrived, in or out of order
	sackedNew     bool // a SACK block covered something new
	retransmitted bool // SND.UNA passed something that was sent twice
	dsack         int  // bytes reported as received twice
	rtt           time.Duration
	priorInFlight int
}

const noSample = time.Duration(-1)

// processAck takes an acknowledgement in [SND.UNA - MAX.SND.WND, SND.NXT].
func (c *Conn) processAck(s *segment) {
	a := ackEvent{rtt: noSample, priorInFlight: c.inFlight()}
	if c.sackOK && s.opt.NumSACK > 0 {
		c.processSACK(s, &a)
	}
	if c.sndUna.LessThan(s.ack) {
		c.advanceUna(s, &a)
	} else if !c.sackOK {
		c.countDupACK(s, &a)
	}
	if c.ecnOK && s.flags.Has(header.ECE) {
		c.ecnEchoed()
	}
	if a.acked == 0 && a.delivered == 0 && a.dsack == 0 {
		return
	}
	c.takeSample(s, &a)
	c.tlpOnAck(s, &a)
	c.tryUndo(s, &a)
	c.detectLoss(&a)
	c.adjustWindow(&a)
	c.rearmRetransmit(&a)
	c.markDirty()
}

// advanceUna moves SND.UNA to s.ack, drops the records it covers and frees
// their bytes.
func (c *Conn) advanceUna(s *segment, a *ackEvent) {
	a.acked = int(c.sndUna.Size(s.ack))
	recs, done := c.sent.all(), 0
	for i := range recs {
		r := &recs[i]
		if s.ack.LessThan(r.end) {
			if r.start.LessThan(s.ack) {
				head := *r
				head.end = s.ack
				c.recordAcked(&head, s, a)
				r.start = s.ack
			}
			break
		}
		c.recordAcked(r, s, a)
		done++
	}
	c.sent.drop(done)
	data := a.acked
	if c.finSent && s.ack == c.sndNxt {
		data--
	}
	c.buf.release(&c.engine.pool, data)
	c.tuneSend(data)
	c.sndUna = s.ack
	c.retries, c.softError = 0, false
	c.noteDupProgress(a)
}

// recordAcked accounts for a record, or the front of one, that SND.UNA passes.
func (c *Conn) recordAcked(r *sent, s *segment, a *ackEvent) {
	n := r.len()
	if r.has(flagLost) {
		c.lost -= n
	}
	if r.has(flagSacked) {
		c.sacked -= n
		return
	}
	a.delivered += n
	a.retransmitted = a.retransmitted || r.has(flagRetransmitted)
	c.noteDelivered(r, s, a)
}

// noteDelivered takes what the arrival of r says about the round trip and order.
func (c *Conn) noteDelivered(r *sent, s *segment, a *ackEvent) {
	if !r.has(flagRetransmitted | flagMerged) {
		a.rtt = c.engine.now.Sub(r.at) // Karn: only what was sent once (RFC 6298 §3)
	}
	if c.sackOK {
		c.rackDelivered(r, s)
	}
}

// takeSample feeds the round-trip estimate: from a record's time, or, where all
// were sent twice, from the timestamp echo (RFC 7323 §4). With a DSACK that echo
// is of a segment that had arrived before, and whose acknowledgement was lost:
// it would take the wait for the retransmission for a round trip.
func (c *Conn) takeSample(s *segment, a *ackEvent) {
	if a.retransmitted {
		a.rtt = noSample // what lay behind the hole has waited for it
	}
	if a.rtt != noSample {
		c.trip.sample(a.rtt)
	}
	if a.rtt == noSample && a.acked > 0 && a.dsack == 0 && c.tsOK && s.opt.Timestamp {
		ms := timestampClock(c.engine.now) + c.tsOffset - s.opt.TSEcr
		if d := time.Duration(ms) * time.Millisecond; d < maxRTO {
			a.rtt = max(d, time.Millisecond)
		}
	}
	if a.rtt != noSample {
		c.rtt.sample(c.engine.now, a.rtt)
	}
}

// rearmRetransmit restarts the retransmission timer after progress (RFC 6298
// §5.2, §5.3).
func (c *Conn) rearmRetransmit(a *ackEvent) {
	if c.outstanding() == 0 {
		c.cancel(timerRetransmit)
		c.cancel(timerProbe)
		c.cancel(timerReorder)
		return
	}
	if a.acked > 0 {
		c.arm(timerRetransmit, c.rtt.rto)
		c.armProbe()
	}
}

// countDupACK is loss detection without SACK (RFC 5681 §3.2, RFC 6582).
func (c *Conn) countDupACK(s *segment, a *ackEvent) {
	dup := s.ack == c.sndUna && c.outstanding() > 0 && len(s.payload) == 0 &&
		!s.flags.Any(header.SYN|header.FIN) && uint32(s.wnd)<<c.sndShift == c.sndWnd
	if !dup {
		return
	}
	c.dupACKs++
	a.delivered = min(c.mss, c.outstanding())
}

// noteDupProgress settles the count of duplicate ACKs when SND.UNA moves: what
// they stood for has now been acknowledged.
func (c *Conn) noteDupProgress(a *ackEvent) {
	if c.dupACKs == 0 {
		return
	}
	if c.recovery != stateRecovery || c.recoverPoint.LessThanEq(c.sndUna) {
		c.dupACKs = 0
		return
	}
	c.dupACKs = max(0, c.dupACKs-max(0, a.acked/c.mss-1))
}

// ecnEchoed reduces the window once per round trip (RFC 3168 §6.1.2).
func (c *Conn) ecnEchoed() {
	if c.recovery != stateOpen || c.outstanding() == 0 {
		return
	}
	c.ssthresh = c.cc.reduce(c)
	c.cwnd = c.ssthresh
	c.recovery, c.recoverPoint = stateCWR, c.sndNxt
	c.ecnReduced = true
}

// ackedFIN reports whether the peer has acknowledged our FIN.
func (c *Conn) ackedFIN() bool { return c.finSent && c.sndUna == c.sndNxt }

// acceptableAck reports whether ack lies in [SND.UNA - MAX.SND.WND, SND.NXT]
// (RFC 5961 §5.2).
func (c *Conn) acceptableAck(ack seq.Value) bool {
	if c.sndNxt.LessThan(ack) {
		return false
	}
	return c.sndUna.Sub(c.maxSndWnd).LessThanEq(ack)
}
