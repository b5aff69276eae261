package tcp

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"sbxnet/netstack/header"
)

func TestRefusals(t *testing.T) {
	tests := []struct {
		r       Refusal
		rst     bool
		unreach bool
	}{
		{Reset, true, false}, {Silent, false, false}, {NetUnreachable, false, true},
		{HostUnreachable, false, true}, {PortUnreachable, false, true}, {Prohibited, false, true},
	}
	for _, tt := range tests {
		s := newScript(t, testConfig())
		s.e.SetOpenHandler(func(c *Conn) { s.log.c = c })
		s.none(s.exchange(seg{flags: fSYN, opt: mss(1460)}))
		s.conn().Refuse(tt.r)
		out := s.flush()
		if tt.rst {
			s.one(out, fRST|fACK, int(-s.iss), 1, 0)
		} else {
			s.none(out)
		}
		if got := len(s.unreachable) == 1 && s.unreachable[0] == tt.r; got != tt.unreach {
			t.Errorf("refusal %d: ICMP %v", tt.r, s.unreachable)
		}
		if st := s.e.Stats(); st.Connections != 0 || st.Held != 0 || s.timers.Len() != 0 {
			t.Errorf("refusal %d leaves %+v", tt.r, st)
		}
	}
}

func TestHeldConnectionAbsorbsSYNs(t *testing.T) {
	s := newScript(t, testConfig())
	opens := 0
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; opens++ })
	for range 5 {
		s.none(s.exchange(seg{flags: fSYN, opt: mss(1460)}))
		s.after(time.Second)
	}
	if opens != 1 || s.e.Stats().Held != 1 {
		t.Fatalf("%d opens, %d held", opens, s.e.Stats().Held)
	}
	s.conn().Accept(s.log)
	s.one(s.flush(), fSYN|fACK, 0, 1, 0)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	if s.log.established != 1 || s.e.Stats().Held != 0 {
		t.Fatal("not established")
	}
}

func TestResetCancelsHeldConnection(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.SetHandler(s.log) })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.none(s.exchange(seg{flags: fRST, seq: 1}))
	if s.log.closed != 1 || s.log.err != ErrReset || s.e.Stats().Held != 0 {
		t.Fatalf("closed %d %v", s.log.closed, s.log.err)
	}
	s.conn().Accept(s.log)
	s.conn().Refuse(Reset)
	s.none(s.flush())
}

func TestHeldConnectionsAreBoundedAndTimeOut(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Held = 10
	s := newScript(t, cfg)
	s.e.SetOpenHandler(func(c *Conn) {})
	for port := uint16(1); port <= 50; port++ {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
		s.none(s.exchange(seg{flags: fSYN, opt: mss(1460)}))
	}
	if st := s.e.Stats(); st.Held != 10 || st.Drops.HeldOverflow != 40 {
		t.Fatalf("%+v", st)
	}
	s.after(holdTimeout + time.Second)
	if st := s.e.Stats(); st.Held != 0 || st.Connections != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 1536 {
		t.Fatalf("a Conn takes %d bytes: ten thousand held ones must cost little", n)
	}
}

func TestStraySegmentsGetReset(t *testing.T) {
	s := newScript(t, testConfig())
	s.one(s.exchange(seg{flags: fSYN}), fRST|fACK, 0, 1, 0)
	s.one(s.exchange(seg{flags: fACK, seq: 5, ack: 77}), fRST, 77, 0, 0)
	s.one(s.exchange(seg{flags: fFIN, seq: 5, data: "abc"}), fRST|fACK, 0, 9, 0)
	s.none(s.exchange(seg{flags: fRST, seq: 5}))
	s.none(s.exchange(seg{flags: fRST | fACK, seq: 5, ack: 6}))
}

func TestConnectionLimitRefusesNewOnes(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Connections = 1
	s := established(t, cfg, mss(1460))
	s.remote = netip.MustParseAddrPort("10.0.2.100:6000")
	out := s.exchange(seg{flags: fSYN})
	if len(out) != 1 || !out[0].flags.Has(fRST) || s.conn().State() != Established {
		t.Fatalf("%v", out)
	}
}

func TestSynAckIsRepeatedAndGivenUp(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	if n := len(s.after(5 * time.Minute)); n != maxSYNACK {
		t.Fatalf("%d repetitions", n)
	}
	if s.log.closed != 1 || s.log.err != ErrTimeout || s.e.Stats().Connections != 0 {
		t.Fatalf("%v", s.log.err)
	}
}

func TestRepeatedSynGetsSynAckAgain(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.one(s.exchange(seg{flags: fSYN, opt: mss(1460)}), fSYN|fACK, 0, 1, 0)
}

func TestBadHandshakeAckGetsReset(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 5}), fRST, 5, 0, 0)
	if s.conn().State() != SynReceived {
		t.Fatalf("state %v", s.conn().State())
	}
}

// dial is a script that has sent a SYN.
func dial(t *testing.T) *script {
	t.Helper()
	s := newScript(t, testConfig())
	c, err := s.e.Dial(s.local, s.remote, s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.log.c = c
	s.one(s.flush(), fSYN, 0, 0, 0)
	return s
}

func TestDialEstablishes(t *testing.T) {
	s := dial(t)
	s.one(s.exchange(seg{flags: fSYN | fACK, ack: 1, opt: mss(1400)}), fACK, 1, 1, 0)
	if s.log.established != 1 || s.conn().mss != 1400 || s.conn().tsOK {
		t.Fatalf("established %d, MSS %d", s.log.established, s.conn().mss)
	}
}

func TestDialIsRefused(t *testing.T) {
	s := dial(t)
	s.none(s.exchange(seg{flags: fRST}))
	s.none(s.exchange(seg{flags: fRST | fACK, ack: 2}))
	if s.log.closed != 0 {
		t.Fatal("an RST that acknowledges nothing of ours refuses")
	}
	s.none(s.exchange(seg{flags: fRST | fACK, ack: 1}))
	if s.log.closed != 1 || s.log.err != ErrRefused {
		t.Fatalf("%v", s.log.err)
	}
}

func TestDialTimesOut(t *testing.T) {
	s := dial(t)
	if n := len(s.after(10 * time.Minute)); n != maxSYN {
		t.Fatalf("%d repetitions", n)
	}
	if s.log.err != ErrTimeout {
		t.Fatalf("%v", s.log.err)
	}
}

func TestSimultaneousOpen(t *testing.T) {
	s := dial(t)
	s.one(s.exchange(seg{flags: fSYN, opt: mss(1460)}), fSYN|fACK, 0, 1, 0)
	s.exchange(seg{flags: fSYN | fACK, ack: 1, opt: mss(1460)})
	if s.log.established != 1 {
		t.Fatalf("state %v", s.conn().State())
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "hi"})
	if string(s.log.got) != "hi" {
		t.Fatalf("got %q", s.log.got)
	}
}

func TestOldSynAckGetsReset(t *testing.T) {
	s := dial(t)
	s.one(s.exchange(seg{flags: fSYN | fACK, ack: 99}), fRST, 99, 0, 0)
	if s.conn().State() != SynSent {
		t.Fatalf("state %v", s.conn().State())
	}
}

func TestDialErrors(t *testing.T) {
	s := dial(t)
	if _, err := s.e.Dial(s.local, s.remote, s.log); err != ErrInUse {
		t.Errorf("same ends: %v", err)
	}
	v6 := netip.MustParseAddrPort("[fd00::1]:80")
	if _, err := s.e.Dial(s.local, v6, s.log); err != ErrAddress {
		t.Errorf("mixed families: %v", err)
	}
}

func TestSetHandlerDeliversWhatHasArrived(t *testing.T) {
	s := newScript(t, testConfig())
	l, err := s.e.Listen(s.local, 5)
	if err != nil {
		t.Fatal(err)
	}
	notified := 0
	l.SetNotify(func() { notified++ })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	s.exchange(seg{flags: fACK | fFIN, seq: 1, ack: 1, data: "early"})
	c, ok := l.Accept()
	if !ok || notified != 1 {
		t.Fatal("nothing to accept")
	}
	if got := c.Buffered(); got != 5 {
		t.Fatalf("buffered %d", got)
	}
	c.SetHandler(s.log)
	s.flush()
	if string(s.log.got) != "early" || s.log.eof != 1 {
		t.Fatalf("got %q, eof %d", s.log.got, s.log.eof)
	}
}

// client completes a handshake with a listener from the given port, if it is
// answered, and returns the SYN-ACK.
func (s *script) client(port uint16, opt header.TCPOptions) (synack []outSegment, rest []outSegment) {
	s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
	s.ts = opt.Timestamp
	opt.TSVal = s.tsVal
	synack = append([]outSegment(nil), s.exchange(seg{flags: fSYN, opt: opt})...)
	if len(synack) == 1 {
		rest = s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	}
	return synack, rest
}

func TestAcceptQueueFullDropsSYN(t *testing.T) {
	s := newScript(t, testConfig())
	l, _ := s.e.Listen(s.local, 2)
	for port := uint16(1); port <= 3; port++ {
		if out, _ := s.client(port, mss(1460)); len(out) != 1 {
			t.Fatalf("client %d not answered", port)
		}
	}
	if out, _ := s.client(4, mss(1460)); len(out) != 0 {
		t.Fatalf("answered with the accept queue full: %v", out)
	}
	if _, ok := l.Accept(); !ok {
		t.Fatal("nothing accepted")
	}
	if out, _ := s.client(4, mss(1460)); len(out) != 1 {
		t.Fatal("not answered though there is room again")
	}
}

func TestLastAckIsDroppedSilentlyWhenQueueIsFull(t *testing.T) {
	s := newScript(t, testConfig())
	l, _ := s.e.Listen(s.local, 1)
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 99)
	s.exchange(seg{flags: fSYN, opt: mss(1460)}) // its handshake stays open
	late, iss := s.remote, s.iss
	s.client(1, mss(1460))
	s.client(2, mss(1460))
	s.remote, s.iss = late, iss
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 1}))
	c := s.e.conns[flowKey{s.local, late}]
	if c.State() != SynReceived {
		t.Fatalf("state %v", c.State())
	}
	l.Accept()
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "retry"})
	if c.State() != Established || c.Buffered() != 5 {
		t.Fatalf("state %v, %d bytes", c.State(), c.Buffered())
	}
}

func TestCookiesPastTheBacklog(t *testing.T) {
	s := newScript(t, testConfig())
	l, _ := s.e.Listen(s.local, 4)
	for port := uint16(1); port <= 100; port++ {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
		s.one(s.exchange(seg{flags: fSYN, opt: mss(1460)}), fSYN|fACK, 0, 1, 0)
	}
	if st := s.e.Stats(); st.Connections != 5 || st.Cookies != 95 {
		t.Fatalf("%+v", st)
	}
	opt := fullOptions()
	opt.WindowScale = 9
	if out, rest := s.client(200, opt); len(out) != 1 || len(rest) != 0 {
		t.Fatalf("%v %v", out, rest)
	}
	c, ok := l.Accept()
	if !ok {
		t.Fatal("the cookie's connection was not made")
	}
	if !c.sackOK || !c.tsOK || c.sndShift != 9 || c.mss != 1460-12 {
		t.Fatalf("crippled: SACK %v, timestamps %v, shift %d, MSS %d", c.sackOK, c.tsOK, c.sndShift, c.mss)
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "data"})
	if c.Buffered() != 4 {
		t.Fatalf("%d bytes", c.Buffered())
	}
}

func TestForgedAndStaleCookiesGetReset(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.Listen(s.local, 0)
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 1)
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1}), fRST, 1, 0, 0) // none given out
	for port := uint16(1); port <= 3; port++ {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
		s.exchange(seg{flags: fSYN, opt: mss(1460)})
	}
	for i := 2; i < 1000; i++ {
		s.one(s.exchange(seg{flags: fACK, seq: 1, ack: i}), fRST, i, 0, 0)
	}
	s.after(125 * time.Second)
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1}), fRST, 1, 0, 0)
}

func TestListenerCloseResetsWhatNobodyAccepted(t *testing.T) {
	s := newScript(t, testConfig())
	l, _ := s.e.Listen(netip.MustParseAddrPort("0.0.0.0:80"), 4)
	s.client(1, mss(1460))
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 2)
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	if _, err := s.e.Listen(netip.MustParseAddrPort("0.0.0.0:80"), 4); err != ErrInUse {
		t.Fatalf("second listener: %v", err)
	}
	l.Close()
	if out := s.flush(); len(out) != 2 || !out[0].flags.Has(fRST) || !out[1].flags.Has(fRST) {
		t.Fatalf("%v", out)
	}
	if s.e.Stats().Connections != 0 || s.timers.Len() != 0 {
		t.Fatalf("%+v", s.e.Stats())
	}
}

func TestPortsAreSpreadAndFree(t *testing.T) {
	s := newScript(t, testConfig())
	seen := map[uint16]bool{}
	for range 100 {
		c, err := s.e.Dial(netip.AddrPortFrom(s.local.Addr(), 0), s.remote, s.log)
		if err != nil {
			t.Fatal(err)
		}
		p := c.LocalAddr().Port()
		if p < firstPort || seen[p] {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
}

func TestISNDependsOnFlowSecretAndTime(t *testing.T) {
	s := newScript(t, testConfig())
	k := flowKey{s.local, s.remote}
	k2 := flowKey{s.local, netip.AddrPortFrom(s.remote.Addr(), 5001)}
	a := s.e.isn(&k)
	if a == s.e.isn(&k2) {
		t.Error("same for two flows")
	}
	s.e.now = s.e.now.Add(time.Second)
	if d := s.e.isn(&k).Diff(a); d != 250_000 {
		t.Errorf("moved %d in a second, want 250000 (RFC 6528)", d)
	}
	s.e.cfg.Secret[0]++
	if s.e.isn(&k) == a.Add(250_000) {
		t.Error("does not depend on the secret")
	}
}

func TestSipHashKnownAnswer(t *testing.T) {
	// The vector of the SipHash paper, appendix A.
	var key [16]byte
	var msg [15]byte
	for i := range key {
		key[i] = byte(i)
	}
	for i := range msg {
		msg[i] = byte(i)
	}
	if got := sipHash(&key, msg[:]); got != 0xa129ca6149be45e5 {
		t.Fatalf("%#x", got)
	}
}

func TestDialFromAPortInTimeWaitBeginsBeyondIt(t *testing.T) {
	s := dial(t)
	s.exchange(seg{flags: fSYN | fACK, ack: 1, opt: mss(1400)})
	s.conn().CloseWrite()
	s.flush()
	s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2})
	if s.e.Stats().TimeWait != 1 {
		t.Fatalf("state %v", s.conn().State())
	}
	old := s.iss
	if _, err := s.e.Dial(s.local, s.remote, s.log); err != nil {
		t.Fatal(err)
	}
	s.one(s.flush(), fSYN, 0, 0, 0)
	if !old.Add(2).LessThan(s.iss) || s.e.Stats().TimeWait != 0 {
		t.Fatalf("ISN %d, the old connection ended at %d", s.iss, old.Add(2))
	}
}

func TestHeldConnectionFollowsANewerSYN(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c })
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 1})) // means nothing yet
	s.none(s.exchange(seg{flags: fSYN, seq: 700, opt: mss(1000)}))
	s.conn().Accept(s.log)
	s.one(s.flush(), fSYN|fACK, 0, 701, 0)
	if s.conn().mss != 1000 {
		t.Fatalf("MSS %d", s.conn().mss)
	}
}
