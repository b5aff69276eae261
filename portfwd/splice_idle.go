package portfwd

import (
	"time"

	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// What is idle is what it is for a relay; see idle_tcp.go.

// spliceAnswer is how long a client waits for sockets inside, and those for answers
// to their SYNs, which come at once or not at all, all together. Whether somebody
// answers on the link is seen there.
const spliceAnswer = 250 * time.Millisecond

// touch says that payload has moved.
func (c *splice) touch() { c.used = c.loop.Now() }

// watch has the splice end when it stays idle from now on for as long as its state
// allows. It is called when that has changed.
func (c *splice) watch() {
	c.touch()
	c.timers.Arm(&c.idle, c.used.Add(c.idleLimit()))
}

func (c *splice) idleLimit() time.Duration {
	switch t := &c.cfg.Timeouts; {
	case c.dial != nil:
		return min(spliceAnswer, t.TCPConnect)
	case c.in.ended || c.out.ended:
		return t.TCPCloseWait
	default:
		return t.TCPEstablished
	}
}

// lookIdle ends the splice if it is idle, and else looks again later.
func (c *splice) lookIdle(now timer.Instant) {
	if c.dial == nil && c.underWay() {
		c.used = now
	}
	if due := c.used.Add(c.idleLimit()); now.Before(due) {
		c.timers.Arm(&c.idle, due)
		return
	}
	if c.dial != nil {
		c.noAnswer()
		return
	}
	c.counters.tcpIdle++
	c.reset()
}

// underWay reports whether there is payload that has not arrived yet.
func (c *splice) underWay() bool {
	return c.in.held > 0 || c.out.held > 0 || hostsock.Unacked(c.client.fd) > 0 || hostsock.Unacked(c.server.fd) > 0
}
