package tcp

import (
	"time"

	"sbxnet/netstack/seq"
)

// tlpState is the tail loss probe in flight (RFC 8985 §7).
type tlpState struct {
	active  bool
	isRetx  bool      // the probe repeated data
	end     seq.Value // SND.NXT when it was sent
	sendNew bool      // Flush may send one segment beyond cwnd as a probe
}

const (
	minProbeTimeout = 10 * time.Millisecond  // above scheduling noise on a local link
	maxAckDelay     = 200 * time.Millisecond // worst case of a lone segment's ACK (RFC 8985 §7.2)
)

// armProbe schedules a probe after new data or progress (RFC 8985 §7.2).
func (c *Conn) armProbe() {
	if !c.sackOK || c.recovery != stateOpen || c.sacked > 0 || c.tlp.active || c.outstanding() == 0 {
		c.cancel(timerProbe)
		return
	}
	timeout := initialRTO
	if c.rtt.sampled {
		timeout = max(2*c.rtt.srtt, minProbeTimeout)
		if c.outstanding() <= c.mss {
			timeout += maxAckDelay
		}
	}
	if rto := c.deadline[timerRetransmit].Sub(c.engine.now); timeout >= rto {
		c.cancel(timerProbe) // the timeout does the same job no later
		return
	}
	c.arm(timerProbe, timeout)
}

// sendTailProbe sends new data if there is any and room for it, else the last
// segment again (RFC 8985 §7.3).
func (c *Conn) sendTailProbe() {
	if c.outstanding() == 0 || c.recovery != stateOpen || c.sacked > 0 || c.tlp.active {
		return
	}
	before := c.sndNxt
	c.tlp.sendNew = true
	c.sendNew()
	c.tlp.sendNew = false
	c.tlp.isRetx = c.sndNxt == before
	if c.tlp.isRetx {
		c.resendTail()
	}
	c.tlp.active, c.tlp.end = true, c.sndNxt
	c.cancel(timerProbe)
	c.arm(timerRetransmit, c.rtt.rto)
}

// resendTail sends the last segment again.
func (c *Conn) resendTail() {
	i := c.sent.count() - 1
	r := &c.sent.all()[i]
	if r.len() > c.mss {
		c.sent.cut(i, r.end.Sub(uint32(c.mss)))
		i++
	}
	c.retransmit(i, c.mss)
}

// tlpOnAck ends a probe's episode (RFC 8985 §7.4). The acknowledgement of a
// probe that repeated data may be the original's; only one beyond it, with no
// DSACK before, shows that the probe repaired a loss, and the window is reduced
// as for any other.
func (c *Conn) tlpOnAck(s *segment, a *ackEvent) {
	if !c.tlp.active || s.ack.LessThan(c.tlp.end) {
		return
	}
	if !c.tlp.isRetx || a.dsack > 0 {
		c.tlp.active = false
		return
	}
	if s.ack == c.tlp.end {
		return
	}
	c.tlp.active = false
	if c.recovery == stateOpen {
		c.ssthresh = c.cc.reduce(c)
		c.cwnd = c.ssthresh
	}
}
