package tcp

import (
	"time"

	"sbxnet/netstack/seq"
)

// undoState is what it takes to take back a reduction that turns out to have
// been for nothing: by Eifel (RFC 3522, RFC 4015) or by DSACK (RFC 3708).
type undoState struct {
	possible  bool
	marker    seq.Value // SND.UNA when the episode began
	cwnd      int
	ssthresh  int
	cubic     cubicState
	retransTS uint32 // TSval of the episode's first retransmission; 0: none yet
	pending   int    // retransmitted bytes not reported as duplicates yet
}

// saveUndo remembers the state before a reduction.
func (c *Conn) saveUndo() {
	c.undo = undoState{
		possible: true, marker: c.sndUna, cwnd: c.cwnd, ssthresh: c.ssthresh, cubic: c.cubic,
	}
}

// detectLoss looks for lost records after an acknowledgement or a reordering
// timeout, and begins recovery if there are any.
func (c *Conn) detectLoss(a *ackEvent) {
	if c.sackOK {
		c.rackDetectLoss()
	} else {
		c.renoDetectLoss(a)
	}
	if c.lost > 0 && (c.recovery == stateOpen || c.recovery == stateCWR) {
		c.enterRecovery(a)
	}
}

// renoDetectLoss takes the first segment for lost at the third duplicate ACK,
// and at every partial ACK in recovery (RFC 6582 §3.2).
func (c *Conn) renoDetectLoss(a *ackEvent) {
	third := c.recovery == stateOpen && c.dupACKs >= dupThreshold
	partial := c.recovery == stateRecovery && a.acked > 0 && c.sndUna.LessThan(c.recoverPoint)
	if third || partial {
		c.markHeadLost()
	}
	if partial {
		// It goes out at once (RFC 6582 §3.2 step 5): what is in flight is not
		// known without SACK, and may be nothing that would bring another ACK.
		c.forceOne = true
	}
}

// markHeadLost marks one segment at SND.UNA.
func (c *Conn) markHeadLost() {
	if c.sent.count() == 0 {
		return
	}
	r := &c.sent.all()[0]
	if r.len() > c.mss {
		c.sent.cut(0, r.start.Add(uint32(c.mss)))
		r = &c.sent.all()[0]
	}
	if !r.has(flagLost | flagSacked) {
		r.flags |= flagLost
		c.lost += r.len()
	}
}

// enterRecovery begins fast recovery (RFC 5681 §3.2, RFC 6937 §3).
func (c *Conn) enterRecovery(a *ackEvent) {
	if c.recovery == stateOpen {
		c.saveUndo()
		c.ssthresh = c.cc.reduce(c)
	}
	c.recovery, c.recoverPoint = stateRecovery, c.sndNxt
	c.prrDelivered, c.prrOut = 0, 0
	c.recoverFS = max(a.priorInFlight, c.mss)
	c.forceOne = true
	c.tlp.active = false
	c.cancel(timerProbe)
}

// adjustWindow changes the congestion window for an acknowledgement.
func (c *Conn) adjustWindow(a *ackEvent) {
	if c.recovery != stateOpen && a.acked > 0 && c.recoverPoint.LessThanEq(c.sndUna) {
		c.endRecovery()
		return
	}
	switch c.recovery {
	case stateRecovery:
		c.prr(a)
	case stateOpen, stateLoss:
		if a.acked > 0 {
			c.growWindow(a)
		}
	}
}

// endRecovery is reached when all that was outstanding at the loss is
// acknowledged.
func (c *Conn) endRecovery() {
	if c.recovery == stateRecovery {
		// RFC 6937 §3.1 ends at ssthresh; no burst follows, as the pipe is that full.
		c.cwnd = max(c.ssthresh, 2*c.mss)
		c.rack.onRecoveryEnd()
	}
	c.recovery = stateOpen
	c.dupACKs = 0
	c.forceOne = false
	c.armProbe()
}

// prr spreads the reduction over the round trip: proportionally while more is
// in flight than ssthresh, by slow start with the reduction bound else (RFC
// 6937 §3).
func (c *Conn) prr(a *ackEvent) {
	if a.delivered <= 0 {
		return
	}
	c.prrDelivered += a.delivered
	pipe := c.inFlight()
	var n int
	if pipe > c.ssthresh {
		n = int((int64(c.prrDelivered)*int64(c.ssthresh)+int64(c.recoverFS)-1)/int64(c.recoverFS)) - c.prrOut
	} else {
		limit := max(c.prrDelivered-c.prrOut, a.delivered) + c.mss
		n = min(c.ssthresh-pipe, limit)
	}
	if c.forceOne {
		n = max(n, c.mss)
	}
	c.cwnd = pipe + max(0, n)
}

// retransmitTimeout is the RTO (RFC 6298 §5.4…§5.7).
func (c *Conn) retransmitTimeout() {
	switch {
	case c.state == SynSent || c.state == SynReceived:
		c.synTimeout()
		return
	case c.outstanding() == 0:
		return
	}
	c.retries++
	if c.retries > maxRetries || c.readClosed && c.retries > maxOrphanRetries {
		c.reset(c.timeoutError())
		return
	}
	if c.recovery != stateLoss || c.recoverPoint.LessThanEq(c.sndUna) {
		if c.recovery == stateOpen {
			c.saveUndo()
		}
		c.ssthresh = c.cc.reduce(c)
		c.cc.timeout(c)
	}
	c.recovery, c.recoverPoint = stateLoss, c.sndNxt
	c.cwnd = c.mss
	c.dupACKs = 0
	c.tlp.active = false
	c.cancel(timerProbe)
	c.cancel(timerReorder)
	c.markAllLost()
	c.rtt.backOff()
	c.forceOne = true
	c.arm(timerRetransmit, c.rtt.rto)
}

// markAllLost takes all that is not SACKed for lost. If the peer has SACKed its
// very next byte and still does not acknowledge it, it has reneged (RFC 2018 §8).
func (c *Conn) markAllLost() {
	recs := c.sent.all()
	if len(recs) > 0 && recs[0].has(flagSacked) {
		c.forgetSacked()
	}
	c.lost = 0
	for i := range recs {
		if r := &recs[i]; !r.has(flagSacked) {
			r.flags |= flagLost
			c.lost += r.len()
		}
	}
}

// synTimeout repeats a SYN or SYN-ACK, or gives up.
func (c *Conn) synTimeout() {
	c.retries++
	limit := maxSYN
	if c.passive {
		limit = maxSYNACK
	}
	if c.retries > limit {
		c.close(c.timeoutError())
		return
	}
	c.rtt.backOff()
	c.synDue = true
}

// tryUndo takes the reduction back when the retransmissions were for nothing.
func (c *Conn) tryUndo(s *segment, a *ackEvent) {
	u := &c.undo
	if !u.possible || c.recovery == stateOpen && a.dsack == 0 {
		return
	}
	// Eifel: the acknowledgement echoes a segment older than the retransmission.
	eifel := a.acked > 0 && u.retransTS != 0 && c.tsOK && s.opt.Timestamp &&
		int32(s.opt.TSEcr-u.retransTS) < 0
	if a.dsack > 0 && u.pending > 0 {
		u.pending -= a.dsack
		if u.pending <= 0 {
			u.pending = -1 // all of them arrived twice
		}
	}
	if !eifel && u.pending != -1 {
		return
	}
	c.cwnd = max(c.cwnd, u.cwnd)
	c.ssthresh = max(c.ssthresh, u.ssthresh)
	c.cubic = u.cubic
	c.unmarkLost()
	c.recovery = stateOpen
	c.dupACKs = 0
	u.possible = false
}

func (c *Conn) unmarkLost() {
	recs := c.sent.all()
	for i := range recs {
		recs[i].flags &^= flagLost
	}
	c.lost = 0
}

// persistTimeout asks a peer whose window is closed, or opens too little,
// whether that still holds (RFC 9293 §3.8.6.1). A peer that answers may keep it
// closed for as long as somebody here waits for it. An orphan gives up when it
// stays closed for all of the back-off, as in Linux: some minutes, in which a
// slow reader may still take what it was promised.
func (c *Conn) persistTimeout() {
	if c.outstanding() > 0 || c.unsent() == 0 && !c.finDue() {
		return
	}
	c.probes++
	if c.probes > maxProbes || c.readClosed && c.persistBackoff > maxOrphanRetries {
		c.reset(c.timeoutError())
		return
	}
	before := c.sndNxt
	c.override = true
	c.sendNew()
	c.override = false
	if c.sndNxt != before {
		return
	}
	c.sendProbe()
	c.persistBackoff = min(c.persistBackoff+1, 10)
	c.armPersist()
}

func (c *Conn) armPersist() {
	d := min(c.rtt.rto<<c.persistBackoff, maxRTO)
	if d <= 0 {
		d = maxRTO
	}
	c.arm(timerPersist, max(d, time.Millisecond))
}

// timeoutError is why the peer could not be reached, as far as is known.
func (c *Conn) timeoutError() error {
	if c.softError {
		return ErrUnreachable
	}
	return ErrTimeout
}
