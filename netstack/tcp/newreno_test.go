package tcp

import "testing"

// Without SACK every hole that a partial acknowledgement uncovers is filled at
// once, one a round trip, and not left to the timeout.
func TestPartialAckRetransmitsAtOnceWithoutSACK(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 60000})
	s.conn().Write(make([]byte, 30_000))
	s.flush() // ten segments
	for ack := 1001; ack <= 10_001; ack += 1000 {
		s.exchange(seg{flags: fACK, seq: 1, ack: ack})
	}
	una := 10_001
	for range 3 { // all the rest is lost but what brings these
		s.exchange(seg{flags: fACK, seq: 1, ack: una})
	}
	for range 5 {
		una += 1000
		out := s.exchange(seg{flags: fACK, seq: 1, ack: una})
		if len(out) == 0 || out[0].seq != una {
			t.Fatalf("after a partial acknowledgement of %d: %v", una, out)
		}
	}
}
