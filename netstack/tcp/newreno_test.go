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

// A peer without SACK counts duplicate acknowledgements: one for each segment
// out of order, whether they come together or one by one.
func TestOneDuplicateAckForEachSegmentOutOfOrder(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	for i := 1; i <= 4; i++ {
		s.one(s.exchange(seg{flags: fACK, seq: 1 + 1000*i, ack: 1, data: string(make([]byte, 1000))}), fACK, 1, 1, 0)
	}
	for i := 5; i <= 7; i++ {
		s.in(seg{flags: fACK, seq: 1 + 1000*i, ack: 1, data: string(make([]byte, 1000))})
	}
	if out := s.flush(); len(out) != 3 {
		t.Fatalf("%d acknowledgements for three segments in a batch", len(out))
	}
}
