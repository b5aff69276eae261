package tcp

import "time"

// keepAlive asks a silent peer whether it is still there (RFC 9293 §3.8.4).
type keepAlive struct {
	idle, interval time.Duration // idle 0: off
	max            int
	asked          int // probes since the peer was last heard
}

func (c *Conn) armKeepAlive() {
	switch {
	case c.keepAlive.idle <= 0:
		c.cancel(timerKeepAlive)
	case c.state.synchronized() && c.attached:
		c.arm(timerKeepAlive, c.keepAlive.idle)
	}
}

// keepAliveTimeout runs when the peer may have been silent for long enough. The
// deadline is not moved by every segment that arrives, but found late here.
func (c *Conn) keepAliveTimeout() {
	k := &c.keepAlive
	silent := c.engine.now.Sub(c.lastHeard)
	if silent < k.idle {
		k.asked = 0
		c.arm(timerKeepAlive, k.idle-silent)
		return
	}
	if c.outstanding() > 0 {
		// The retransmission timer is asking already.
		c.arm(timerKeepAlive, k.interval)
		return
	}
	if silent < k.interval {
		k.asked = 0
	}
	if k.asked >= k.max {
		c.reset(ErrTimeout)
		return
	}
	k.asked++
	c.sendProbe()
	c.arm(timerKeepAlive, k.interval)
}
