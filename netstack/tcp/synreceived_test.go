package tcp

import "testing"

func TestUnacceptableSegmentIsAnsweredInSynReceived(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.one(s.exchange(seg{flags: fSYN}), fSYN|fACK, 0, 1, 0)
	s.one(s.exchange(seg{flags: fACK, seq: -1000, ack: 1}), fACK, 1, 1, 0)
	s.one(s.exchange(seg{flags: fRST, seq: 100}), fACK, 1, 1, 0)
	s.one(s.exchange(seg{flags: fSYN}), fSYN|fACK, 0, 1, 0) // no more than the SYN-ACK
	if s.conn().State() != SynReceived {
		t.Fatal(s.conn().State())
	}
}
