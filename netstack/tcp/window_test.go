package tcp

import "testing"

// A segment from behind a gap has a higher sequence number than the
// acknowledgements that follow it. Their windows count all the same.
func TestWindowBehindOutOfOrderSegmentIsTaken(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.exchange(seg{flags: fACK, seq: 1001, ack: 1, wnd: 4000, data: "out of order"})
	s.conn().Write(make([]byte, 10_000))
	sent := 0
	for _, o := range s.flush() {
		sent = max(sent, o.seq+len(o.data))
	}
	if sent != 4001 {
		t.Fatalf("sent up to %d, want 4001", sent)
	}
	for _, o := range s.exchange(seg{flags: fACK, seq: 1, ack: 2001, wnd: 2000}) {
		if len(o.data) > 0 {
			t.Fatalf("sends %d bytes at %d, beyond the right edge 4001", len(o.data), o.seq)
		}
	}
	for _, o := range s.exchange(seg{flags: fACK, seq: 1, ack: 2001, wnd: 3000}) {
		sent = max(sent, o.seq+len(o.data))
	}
	if sent != 5001 {
		t.Fatalf("sent up to %d, want 5001", sent)
	}
	// An older one, which the network has held back, does not shrink it.
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 1})
	if c := s.conn(); c.sndWnd != 3000 {
		t.Fatalf("window %d", c.sndWnd)
	}
}
