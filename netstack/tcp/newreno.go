package tcp

import "time"

// newReno is the congestion control of RFC 5681 and RFC 6582.
type newReno struct{}

func (newReno) avoid(c *Conn, n int) {
	// One segment per window of data, by bytes (RFC 5681 §3.1, RFC 3465 §2.1).
	c.cubic.credit += n
	for c.cubic.credit >= c.cwnd {
		c.cubic.credit -= c.cwnd
		c.setCwnd(c.cwnd + c.mss)
	}
}

func (newReno) reduce(c *Conn) int {
	return max(c.windowAtLoss()/2, 2*c.mss)
}

func (newReno) timeout(*Conn) {}

func (newReno) resume(*Conn, time.Duration) {}
