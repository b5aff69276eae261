package tcp

import (
	"time"

	"sbxnet/netstack/timer"
)

// timerKind is one of the things a connection waits for.
type timerKind uint8

const (
	timerRetransmit timerKind = iota // RTO (RFC 6298), also of SYN and SYN-ACK
	timerProbe                       // tail loss probe (RFC 8985 §7)
	timerReorder                     // RACK's reordering window (RFC 8985 §6.3)
	timerDelayedACK
	timerPersist
	timerKeepAlive
	timerLinger // an orphan in FIN-WAIT-2; a held connection's patience
	numTimers
)

// timers holds a connection's deadlines behind a single timer in the queue. A
// deadline that moves later leaves the queue alone; the timer then wakes up for
// nothing, once, and is armed again.
type timers struct {
	deadline [numTimers]timer.Instant
	timer    timer.Timer
}

func (t *timers) init(c *Conn) {
	for i := range t.deadline {
		t.deadline[i] = timer.Never
	}
	t.timer.Expire = c.expire
}

// arm sets a deadline d from now.
func (c *Conn) arm(k timerKind, d time.Duration) {
	at := c.engine.now.Add(d)
	c.deadline[k] = at
	c.engine.timers.ArmEarlier(&c.timer, at)
}

func (c *Conn) cancel(k timerKind) { c.deadline[k] = timer.Never }

func (c *Conn) armed(k timerKind) bool { return c.deadline[k] != timer.Never }

// stopTimers disarms everything.
func (c *Conn) stopTimers() {
	for i := range c.deadline {
		c.deadline[i] = timer.Never
	}
	c.engine.timers.Disarm(&c.timer)
}

// expire runs the deadlines that have passed and waits for the next.
func (c *Conn) expire(now timer.Instant) {
	c.engine.now = now
	for k := range numTimers {
		if c.deadline[k] > now {
			continue
		}
		c.deadline[k] = timer.Never
		c.fire(k)
		if !c.attached {
			return
		}
	}
	next := timer.Never
	for _, at := range c.deadline {
		next = min(next, at)
	}
	if next != timer.Never {
		c.engine.timers.Arm(&c.timer, next)
	}
}

func (c *Conn) fire(k timerKind) {
	switch k {
	case timerRetransmit:
		c.retransmitTimeout()
	case timerProbe:
		c.sendTailProbe()
	case timerReorder:
		c.reorderTimeout()
	case timerDelayedACK:
		// The reply did not come in time: not a dialogue, so do not keep the peer
		// waiting with the next segments either.
		c.quickACKs = quickACKs
		c.ackNow = true
	case timerPersist:
		c.persistTimeout()
	case timerKeepAlive:
		c.keepAliveTimeout()
	case timerLinger:
		c.lingerTimeout()
	}
	c.markDirty()
}

// startLinger bounds how long FIN-WAIT-2 lasts when nobody waits for what the
// peer may still send.
func (c *Conn) startLinger() {
	if c.state == FinWait2 && c.readClosed && !c.armed(timerLinger) {
		c.arm(timerLinger, finWait2Timeout)
	}
}

func (c *Conn) lingerTimeout() {
	if c.state == Held {
		c.close(ErrTimeout)
		return
	}
	if c.state == FinWait2 && c.readClosed {
		c.close(nil)
	}
}
