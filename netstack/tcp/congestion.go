package tcp

import (
	"time"

	"sbxnet/netstack/seq"
)

// congestion is a congestion control: what becomes of the window in congestion
// avoidance and after a loss. Slow start is common to all.
type congestion interface {
	// avoid grows c.cwnd for n newly acknowledged bytes beyond ssthresh.
	avoid(c *Conn, n int)
	// reduce returns the new ssthresh after a congestion event, in bytes.
	reduce(c *Conn) int
	// timeout is told that the event was a retransmission timeout, after reduce.
	timeout(c *Conn)
	// resume is told that sending goes on after idle time.
	resume(c *Conn, idle time.Duration)
}

// noThreshold is the slow start threshold before the first sign of congestion:
// no window reaches it (RFC 5681 §3.1).
const noThreshold = 1 << 30

// startCongestion sets the window up for the MSS now known.
func (c *Conn) startCongestion() {
	c.cc = c.engine.congestion
	c.cwnd = initialWindow * c.mss
	c.ssthresh = noThreshold
	c.hystart = hystart{}
}

// growWindow grows the congestion window for an acknowledgement: by the bytes
// acknowledged in slow start (RFC 5681 §3.1, RFC 3465), else as the congestion
// control says. A window that was not used up says nothing about the path and
// stays (RFC 7661).
func (c *Conn) growWindow(a *ackEvent) {
	if c.recovery == stateOpen {
		c.hystart.onAck(c, a)
	}
	if !c.cwndLimited && a.priorInFlight+c.mss <= c.cwnd {
		return
	}
	n := a.acked
	if c.cwnd < c.ssthresh {
		step := n
		if c.hystart.inCSS && c.ssthresh == noThreshold {
			step /= cssGrowthDivisor
		}
		step = min(step, c.ssthresh-c.cwnd)
		c.setCwnd(c.cwnd + step)
		if n -= step; n <= 0 || c.cwnd < c.ssthresh {
			return
		}
	}
	c.cc.avoid(c, n)
}

// setCwnd keeps the window in sane bounds: more than twice the buffer can never
// be used.
func (c *Conn) setCwnd(n int) {
	c.cwnd = min(max(n, c.mss), 2*c.sndTune.size+initialWindow*c.mss)
}

// restartAfterIdle brings the window back to its initial size when nothing has
// been sent for a timeout (RFC 5681 §4.1).
func (c *Conn) restartAfterIdle() {
	idle := c.engine.now.Sub(c.lastSend)
	if c.outstanding() > 0 || c.lastSend == 0 || idle < c.rtt.rto {
		return
	}
	c.cwnd = min(c.cwnd, initialWindow*c.mss)
	c.cc.resume(c, idle)
}

// hystart ends slow start when the round trip grows, before there is loss
// (RFC 9406), in the first slow start only (§4.3): later ones have a threshold
// that is known. The per-acknowledgement limit L is not used: acknowledgements
// come coalesced, and a local link takes the burst.
type hystart struct {
	inCSS      bool
	started    bool
	roundEnd   seq.Value
	samples    int
	last, cur  time.Duration // minimum of the last round and of this; 0: none
	cssBase    time.Duration
	cssRounds  int
	finishedSS bool
}

const (
	hystartSamples   = 8
	hystartMinThresh = 4 * time.Millisecond
	hystartMaxThresh = 16 * time.Millisecond
	cssGrowthDivisor = 4
	cssMaxRounds     = 5
)

func (h *hystart) onAck(c *Conn, a *ackEvent) {
	if h.finishedSS || c.ssthresh != noThreshold {
		return
	}
	if !h.started || h.roundEnd.LessThanEq(c.sndUna) {
		h.newRound(c)
	}
	if a.rtt == noSample {
		return
	}
	if h.cur == 0 || a.rtt < h.cur {
		h.cur = a.rtt
	}
	h.samples++
	if h.samples < hystartSamples || h.last == 0 {
		return
	}
	if h.inCSS {
		if h.cur < h.cssBase {
			h.inCSS = false // the growth was spurious (RFC 9406 §4.2)
		}
		return
	}
	threshold := min(max(h.last/8, hystartMinThresh), hystartMaxThresh)
	if h.cur >= h.last+threshold {
		h.inCSS, h.cssBase, h.cssRounds = true, h.cur, 0
	}
}

func (h *hystart) newRound(c *Conn) {
	if h.inCSS {
		h.cssRounds++
		if h.cssRounds >= cssMaxRounds {
			c.ssthresh = c.cwnd
			h.finishedSS, h.inCSS = true, false
		}
	}
	h.started, h.roundEnd = true, c.sndNxt
	h.last, h.cur, h.samples = h.cur, 0, 0
}

// windowAtLoss is the window that a reduction starts from, in bytes: as much of
// it as was in use. What went out beyond it while duplicate acknowledgements
// came in does not count (RFC 5681 §3.2 step 2), and in recovery the window is
// ssthresh, from which PRR makes the one of the moment.
func (c *Conn) windowAtLoss() int {
	w := c.cwnd
	if c.recovery == stateRecovery {
		w = c.ssthresh
	}
	return min(w, max(c.outstanding(), c.mss))
}
