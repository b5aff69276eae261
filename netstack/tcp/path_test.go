package tcp

import (
	"testing"
	"time"
)

// After a timeout the congestion window is one segment. When the path's MTU is
// forgotten then, one segment is more than it was, and must still fit.
func TestLargerPathFindsRoomInASmallWindow(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().Write(make([]byte, 1460))
	s.flush()
	s.e.Unreachable(s.local, s.remote, s.iss.Add(1), 0, 600)
	s.flush()
	s.after(2 * time.Second)
	if c := s.conn(); c.mss != 560 || c.cwnd > 2*c.mss {
		t.Fatalf("MSS %d, window %d", c.mss, c.cwnd)
	}
	s.conn().cwnd = s.conn().mss
	s.conn().cwndLimited = false
	s.e.now, s.now = s.now.Add(pmtuExpiry+time.Second), s.now.Add(pmtuExpiry+time.Second)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1461})
	s.conn().Write(make([]byte, 3000))
	sent := len(s.flush()) > 0
	if c := s.conn(); !sent || c.mss != 1460 {
		t.Fatalf("nothing is sent: window %d, MSS %d, in flight %d", c.cwnd, c.mss, c.inFlight())
	}
}
