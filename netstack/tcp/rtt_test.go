package tcp

import (
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// The acknowledgement was lost, and the retransmission's brings a DSACK and the
// first segment's timestamp. The time between is no round trip.
func TestLostAcknowledgementIsNoRoundTrip(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	s.now = s.now.Add(time.Millisecond)
	s.conn().Write([]byte("data"))
	first := s.flush()[0]
	for range 3 {
		for len(s.after(time.Second)) == 0 {
		}
	}
	before := s.conn().rtt.srtt
	o := header.TCPOptions{Timestamp: true, TSVal: s.tsVal, TSEcr: first.opt.TSVal, NumSACK: 1,
		SACK: [header.MaxSACKBlocks]header.SACKBlock{{Left: s.iss.Add(1), Right: s.iss.Add(5)}}}
	s.exchange(seg{flags: fACK, seq: 1, ack: 5, opt: o})
	if c := s.conn(); c.outstanding() != 0 || c.rtt.srtt != before {
		t.Fatalf("SRTT %v after %v", c.rtt.srtt, before)
	}
}

// Segments behind a hole are acknowledged together with the retransmission that
// fills it. How long they have waited for that is no round trip either.
func TestWaitBehindAHoleIsNoRoundTrip(t *testing.T) {
	s := established(t, testConfig(), mss(1000)) // no SACK, no timestamps
	s.conn().Write(make([]byte, 3000))
	s.flush()
	for len(s.after(time.Second)) == 0 {
	}
	before := s.conn().rtt.srtt
	s.exchange(seg{flags: fACK, seq: 1, ack: 3001})
	if c := s.conn(); c.outstanding() != 0 || c.rtt.srtt != before {
		t.Fatalf("SRTT %v after %v", c.rtt.srtt, before)
	}
}
