package tcp

import (
	"net/netip"
	"testing"
	"time"
)

func TestChallengeAckLimitIsNotShared(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	first, iss := s.remote, s.iss
	s.remote = netip.AddrPortFrom(first.Addr(), 6000)
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	for range 50 { // uses the second connection's up
		s.exchange(seg{flags: fRST, seq: 100})
	}
	s.none(s.exchange(seg{flags: fRST, seq: 100}))
	s.remote, s.iss = first, iss
	s.one(s.exchange(seg{flags: fRST, seq: 100}), fACK, 1, 1, 0) // CVE-2016-5696
}

func TestTimeWaitReopensForNewerSequenceNumber(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().CloseWrite()
	s.flush()
	s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2})
	if s.e.Stats().TimeWait != 1 {
		t.Fatalf("state %v", s.conn().State())
	}
	s.one(s.exchange(seg{flags: fSYN, seq: -500, opt: mss(1460)}), fACK, 2, 2, 0)
	s.one(s.exchange(seg{flags: fSYN, seq: 500, opt: mss(1460)}), fSYN|fACK, 0, 501, 0)
	if st := s.e.Stats(); st.TimeWait != 0 || st.Connections != 1 {
		t.Fatalf("%+v", st)
	}
}

// TestCookieLastsTwoMinutesAtMost keeps the flood up, so that it is the cookie
// that is too old, not the listener that has forgotten about cookies.
func TestCookieLastsTwoMinutesAtMost(t *testing.T) {
	for _, tt := range []struct {
		age  time.Duration
		good bool
	}{{59 * time.Second, true}, {121 * time.Second, false}} {
		s := newScript(t, testConfig())
		l, _ := s.e.Listen(s.local, 0)
		flood := func(port uint16) {
			s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
			s.exchange(seg{flags: fSYN, opt: mss(1400)})
		}
		flood(1)
		flood(2)
		client, iss := s.remote, s.iss
		for d := time.Duration(0); d < tt.age; d += time.Second {
			s.after(time.Second)
			flood(3)
		}
		if s.e.Stats().Cookies < 50 {
			t.Fatalf("%d cookies", s.e.Stats().Cookies)
		}
		s.remote, s.iss = client, iss
		out := s.exchange(seg{flags: fACK, seq: 1, ack: 1})
		c, ok := l.Accept()
		if ok != tt.good {
			t.Fatalf("after %v: accepted %v, %v", tt.age, ok, out)
		}
		if !ok {
			s.one(out, fRST, 1, 0, 0)
		} else if c.mss != 1360 { // the next lower the cookie can say
			t.Fatalf("MSS %d", c.mss)
		}
	}
}

// TestClosedWindowsHoldBoundedMemory is sockstress: connections whose peer
// closes its window for good and says so whenever it is asked.
func TestClosedWindowsHoldBoundedMemory(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.BufferBytes = 8 * chunkSize
	cfg.Limits.IdleBytes = 1
	s := newScript(t, cfg)
	var conns []*Conn
	s.e.SetOpenHandler(func(c *Conn) { conns = append(conns, c); c.Accept(s.log) })
	for port := uint16(1); port <= 40; port++ {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
		s.exchange(seg{flags: fSYN, opt: mss(1460)})
		s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: -1})
		conns[len(conns)-1].Write(make([]byte, 4*chunkSize))
	}
	// Each has its first chunk, the rest shares what the bound leaves.
	if n := s.e.Stats().BufferBytes; n > (40+8)*chunkSize {
		t.Fatalf("%d bytes", n)
	}
	for _, c := range conns {
		c.Abort()
	}
	s.flush()
	if n := s.e.Stats().BufferBytes; n > chunkSize {
		t.Fatalf("%d bytes left", n)
	}
}

// A peer that answers no probe has gone, whatever it said about its window.
func TestUnansweredWindowProbesEndTheConnection(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: -1})
	s.conn().Write([]byte("wait"))
	s.flush()
	probes := 0
	for range 3000 {
		if s.conn().State() == Closed {
			break
		}
		probes += len(s.after(time.Second))
	}
	if s.log.err != ErrTimeout || probes != maxProbes+1 { // and an RST
		t.Fatalf("%v after %d probes", s.log.err, probes)
	}
}
