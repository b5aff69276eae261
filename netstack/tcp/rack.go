package tcp

import (
	"time"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// rackState is RACK's view of the order of time (RFC 8985 §5.2).
type rackState struct {
	at    timer.Instant // when the most recently sent delivered record was sent
	end   seq.Value     // and its end; breaks ties
	rtt   time.Duration // of that record
	fack  seq.Value     // the highest end delivered
	valid bool          // at, end, rtt and fack mean something

	reorderSeen  bool
	windowMult   int       // reordering window in quarters of the minimum RTT, 1 at first
	persist      int       // recoveries until windowMult falls back
	dsackRound   seq.Value // SND.NXT when a DSACK last widened the window
	inDSACKRound bool
}

const (
	rackPersist = 16               // RFC 8985 §6.2 step 4
	rackMaxMult = 64               //
	minReorder  = time.Millisecond // floor of a reordering wait: our clock ticks per batch
)

// sentAfter is RACK_sent_after (RFC 8985 §6.2).
func sentAfter(t1 timer.Instant, end1 seq.Value, t2 timer.Instant, end2 seq.Value) bool {
	return t1 > t2 || t1 == t2 && end2.LessThan(end1)
}

// rackDelivered takes steps 1 to 3 of RFC 8985 §6.2 for one delivered record.
func (c *Conn) rackDelivered(r *sent, s *segment) {
	k := &c.rack
	if !k.valid {
		k.fack = r.start
	}
	// Step 3: delivered below the highest, and sent once, means reordered.
	if k.fack.LessThan(r.end) {
		k.fack = r.end
	} else if k.valid && r.end.LessThan(k.fack) && !r.has(flagRetransmitted) {
		k.reorderSeen = true
	}
	rtt := c.engine.now.Sub(r.at)
	if r.has(flagRetransmitted) {
		// Step 2: is this the acknowledgement of the original?
		if c.tsOK && s.opt.Timestamp && int32(s.opt.TSEcr-c.tsvalAt(r.at)) < 0 {
			return
		}
		if rtt < c.rtt.min.get() {
			return
		}
	}
	if !k.valid || sentAfter(r.at, r.end, k.at, k.end) {
		k.at, k.end, k.rtt = r.at, r.end, rtt
	}
	k.valid = true
}

// tsvalAt is the TSval of a segment sent at the given time.
func (c *Conn) tsvalAt(at timer.Instant) uint32 { return timestampClock(at) + c.tsOffset }

// onDSACK widens the reordering window, at most once per round trip.
func (k *rackState) onDSACK(c *Conn) {
	if k.inDSACKRound && c.sndUna.LessThan(k.dsackRound) {
		return
	}
	k.inDSACKRound, k.dsackRound = true, c.sndNxt
	k.windowMult = min(max(k.windowMult, 1)+1, rackMaxMult)
	k.persist = rackPersist
}

// onRecoveryEnd lets the window fall back after enough recoveries without DSACK.
func (k *rackState) onRecoveryEnd() {
	if k.persist > 0 {
		k.persist--
		if k.persist == 0 {
			k.windowMult = 1
		}
	}
}

// reorderWindow is how long RACK waits for a record that others overtook (RFC
// 8985 §6.2 step 4).
func (c *Conn) reorderWindow() time.Duration {
	k := &c.rack
	if !k.reorderSeen && (c.recovery == stateRecovery || c.recovery == stateLoss || c.sacked >= dupThreshold*c.mss) {
		return 0
	}
	w := c.rtt.min.get() / 4 * time.Duration(max(k.windowMult, 1))
	return min(w, c.rtt.srtt)
}

// rackDetectLoss marks the records that RACK takes for lost and arms the timer
// for those about which it is not sure yet (RFC 8985 §6.2 step 5).
func (c *Conn) rackDetectLoss() {
	k := &c.rack
	if !k.valid || c.sacked == 0 && c.recovery != stateRecovery && c.recovery != stateLoss {
		return
	}
	now, window := c.engine.now, c.reorderWindow()
	var wait time.Duration
	recs := c.sent.all()
	for i := range recs {
		r := &recs[i]
		if r.has(flagSacked | flagLost) {
			continue
		}
		if !sentAfter(k.at, k.end, r.at, r.end) {
			if c.sent.inOrderFrom(r) {
				break // so were all behind it
			}
			continue
		}
		if remaining := r.at.Add(k.rtt + window).Sub(now); remaining > 0 {
			wait = max(wait, remaining)
			continue
		}
		r.flags |= flagLost
		c.lost += r.len()
	}
	if wait > 0 {
		c.arm(timerReorder, max(wait, minReorder))
	} else {
		c.cancel(timerReorder)
	}
}

// reorderTimeout is the end of a wait that no acknowledgement ended.
func (c *Conn) reorderTimeout() {
	a := ackEvent{rtt: noSample, priorInFlight: c.inFlight()}
	c.detectLoss(&a)
}
