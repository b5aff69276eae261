package tcp

import (
	"net/netip"
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

// established6 is a script like established, over IPv6 and without options.
func established6(t *testing.T) *script {
	s := newScript(t, noTSO())
	s.local, s.remote = netip.MustParseAddrPort("[fd00::2]:80"), netip.MustParseAddrPort("[fd00::100]:5000")
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	return s
}

func TestDefaultMSSOfIPv6(t *testing.T) {
	s := established6(t)
	s.exchange(seg{flags: fSYN})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	s.conn().Write(make([]byte, 3000))
	if out := s.flush(); len(out) != 3 || len(out[0].data) != 1220 {
		t.Fatalf("%d segments, the first of %d bytes, want 1220", len(out), len(out[0].data))
	}
}

// RFC 8201 §4: a packet too big that asks for less than every IPv6 link carries
// is discarded.
func TestPathMTUFloorOfIPv6(t *testing.T) {
	s := established6(t)
	s.exchange(seg{flags: fSYN, opt: mss(1440)})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	c := s.conn()
	c.Write(make([]byte, 5000))
	s.flush()
	for _, mtu := range []int{1, 68, 1279} {
		s.e.Unreachable(s.local, s.remote, s.iss.Add(1), 0, mtu)
		if c.mss != 1440 {
			t.Fatalf("MSS %d after packet too big %d", c.mss, mtu)
		}
	}
	s.e.Unreachable(s.local, s.remote, s.iss.Add(1), 0, 1280)
	if out := s.flush(); len(out) == 0 || out[0].seq != 1 || len(out[0].data) != 1220 {
		t.Fatalf("not cut anew for 1280 bytes: %v", out)
	}
}

// Whatever ICMP says, a connection is not aborted by it (RFC 5927 §5.2). It says
// why, once the timeout has ended it.
func TestSoftErrorsNeverAbort(t *testing.T) {
	s := established(t, noTSO(), mss(1000))
	s.conn().Write([]byte("x"))
	s.flush()
	for r := Reset; r <= Silent; r++ {
		s.e.Unreachable(s.local, s.remote, s.iss.Add(1), r, 0)
		s.none(s.flush())
		if s.conn().State() != Established {
			t.Fatalf("%v by refusal %d", s.conn().State(), r)
		}
	}
	for range 3000 {
		s.after(time.Second)
	}
	if s.log.err != ErrUnreachable {
		t.Fatalf("closed with %v", s.log.err)
	}
	// Nor is an attempt to connect, but by what says that nobody is there.
	for r, want := range map[Refusal]State{NetUnreachable: SynSent, HostUnreachable: SynSent, PortUnreachable: Closed, Prohibited: Closed} {
		s := dial(t)
		s.e.Unreachable(s.local, s.remote, s.iss, r, 0)
		if s.conn().State() != want {
			t.Errorf("refusal %d: %v, want %v", r, s.conn().State(), want)
		}
	}
}
