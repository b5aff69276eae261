package tcp

// sendACKIfDue sends an acknowledgement that no data has carried: at once for
// every second full segment, a gap, a filled gap, a FIN or an opened window
// (RFC 5681 §4.2, RFC 9293 §3.8.6.3), else a little later in the hope of data.
func (c *Conn) sendACKIfDue() {
	pending := int(c.lastAckSent.Size(c.rcvNxt))
	switch {
	case c.ackNow, pending >= 2*c.rcvMSS, c.windowUpdateDue():
		c.sendBare(c.sndNxt)
	case pending == 0:
	case c.quickACKs > 0:
		c.quickACKs--
		c.sendBare(c.sndNxt)
	case !c.armed(timerDelayedACK):
		c.arm(timerDelayedACK, delayedACK)
	}
}

// noteAckSent settles what an outgoing segment has acknowledged.
func (c *Conn) noteAckSent() {
	c.lastAckSent = c.rcvNxt
	c.ackNow = false
	c.dsack = span{}
	c.in.fresh = 0 // or reportRanges sets it to what is left
	c.cancel(timerDelayedACK)
}

// noteDialogue recognises request and response: data that goes out soon after
// data came in carries its acknowledgement, so the next one may wait.
func (c *Conn) noteDialogue(n int) {
	if n > 0 && c.lastAckSent != c.rcvNxt && c.engine.now.Sub(c.lastData) < delayedACK {
		c.quickACKs = 0
	}
}
