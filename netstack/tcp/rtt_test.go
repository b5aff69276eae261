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

// TestReorderingIsWaitedFor: what others have overtaken is taken for lost only
// after a part of the round trip, which DSACKs widen (RFC 8985 §6.2 step 4).
func TestReorderingIsWaitedFor(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	c := s.conn()
	c.rtt = rttEstimator{rto: initialRTO}
	c.rtt.sample(s.now, 80*time.Millisecond)
	c.rack.reorderSeen = true
	if w := c.reorderWindow(); w != 20*time.Millisecond {
		t.Fatalf("window %v, want a quarter of the round trip", w)
	}
	c.Write(make([]byte, 10_000))
	s.flush()
	s.after(80 * time.Millisecond)
	s.none(s.sack(1, s.block(1001, 5001)))
	s.none(s.after(15 * time.Millisecond))
	if out := s.after(6 * time.Millisecond); !contains(out, 1) {
		t.Fatalf("not sent again when the window is over: %v", out)
	}
	s.sack(5001, s.block(1, 1001)) // it had come after all
	if w := c.reorderWindow(); w != 40*time.Millisecond {
		t.Fatalf("window %v after a DSACK, want twice as wide", w)
	}
	for range rackPersist {
		c.rack.onRecoveryEnd()
	}
	if w := c.reorderWindow(); w != 20*time.Millisecond {
		t.Fatalf("window %v after %d recoveries without DSACK", w, rackPersist)
	}
}

// TestLossThatAProbeRepairedCounts: the tail was lost, and the probe brought it.
// Nothing else shows that loss, so the acknowledgement of more than the probe,
// without a DSACK, reduces the window (RFC 8985 §7.4).
func TestLossThatAProbeRepairedCounts(t *testing.T) {
	for _, arrivedTwice := range []bool{false, true} {
		s := established(t, noTSO(), sackMSS(1000))
		c := s.conn()
		s.after(20 * time.Millisecond)
		c.rtt.sample(s.now, 20*time.Millisecond)
		c.Write(make([]byte, 3000))
		s.flush()
		if out := s.after(60 * time.Millisecond); len(out) != 1 || out[0].seq != 2001 {
			t.Fatalf("no probe: %v", out)
		}
		c.Write(make([]byte, 500))
		s.flush()
		before := c.cwnd
		if arrivedTwice {
			s.sack(3501, s.block(2001, 3001))
		} else {
			s.sack(3501)
		}
		if reduced := c.cwnd < before; reduced == arrivedTwice {
			t.Errorf("probe that arrived twice %v: window %d, was %d", arrivedTwice, c.cwnd, before)
		}
	}
}
