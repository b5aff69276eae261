package tcp

import (
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

const fECE, fCWR = header.ECE, header.CWR

// TestSynWithECNBitsIsNeverRefused has SYNs with every use of the bits that RFC
// 3168 took from the reserved ones, towards an open handler, a listener, and a
// listener that serves cookies.
func TestSynWithECNBitsIsNeverRefused(t *testing.T) {
	for _, bits := range []header.TCPFlags{fECE, fCWR, fECE | fCWR} {
		want := fSYN | fACK
		if bits == fECE|fCWR {
			want |= fECE // the only one that asks (RFC 3168 §6.1.1)
		}
		s := newScript(t, testConfig())
		s.e.SetOpenHandler(func(c *Conn) { c.Accept(s.log) })
		s.one(s.exchange(seg{flags: fSYN | bits, opt: fullOptions()}), want, 0, 1, 0)

		s = newScript(t, testConfig())
		s.e.Listen(s.local, 0)
		for port := uint16(1); port <= 2; port++ { // the second is answered with a cookie
			s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
			s.one(s.exchange(seg{flags: fSYN | bits, opt: fullOptions()}), want, 0, 1, 0)
		}
		if n := s.e.Stats().Cookies; n != 1 {
			t.Fatalf("%d cookies", n)
		}
	}
}

func TestCookieKeepsECN(t *testing.T) {
	s := newScript(t, testConfig())
	l, _ := s.e.Listen(s.local, 0)
	s.exchange(seg{flags: fSYN, opt: mss(1460)}) // fills the backlog
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 1)
	s.ts = true
	s.one(s.exchange(seg{flags: fSYN | fECE | fCWR, opt: fullOptions()}), fSYN|fACK|fECE, 0, 1, 0)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	c, ok := l.Accept()
	if !ok {
		t.Fatal("no connection")
	}
	c.Write(make([]byte, 100))
	if out := s.flush(); len(out) != 1 || out[0].ecn != ecnECT0 {
		t.Fatalf("data is not ECN-capable: %v", out)
	}
}

// askECN is a script that has sent a SYN which asks for ECN.
func askECN(t *testing.T) *script {
	cfg := testConfig()
	cfg.ECN = true
	s := newScript(t, cfg)
	c, err := s.e.Dial(s.local, s.remote, s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.log.c = c
	s.one(s.flush(), fSYN|fECE|fCWR, 0, 0, 0)
	return s
}

func TestECNIsUsedIfThePeerAgrees(t *testing.T) {
	for answer, want := range map[header.TCPFlags]uint8{
		fECE: ecnECT0, 0: ecnNotCapable, fECE | fCWR: ecnNotCapable, fCWR: ecnNotCapable,
	} {
		s := askECN(t)
		out := s.exchange(seg{flags: fSYN | fACK | answer, ack: 1, opt: mss(1000)})
		if o := s.one(out, fACK, 1, 1, 0); o.ecn != ecnNotCapable {
			t.Errorf("the handshake's ACK is ECN-capable")
		}
		s.conn().Write(make([]byte, 100))
		if out := s.flush(); len(out) != 1 || out[0].ecn != want {
			t.Errorf("SYN-ACK with %v: data with codepoint %d, want %d", answer, out[0].ecn, want)
		}
	}
}

// A SYN that asks may have been dropped for it, so the next one does not; and
// from then on it is too late (RFC 3168 §6.1.1, §6.1.1.1).
func TestECNIsNotAskedForTwice(t *testing.T) {
	s := askECN(t)
	s.one(s.after(1100*time.Millisecond), fSYN, 0, 0, 0)
	s.exchange(seg{flags: fSYN | fACK | fECE, ack: 1, opt: mss(1000)})
	s.conn().Write(make([]byte, 100))
	if out := s.flush(); len(out) != 1 || out[0].ecn != ecnNotCapable {
		t.Fatalf("%v", out)
	}
}

func TestECNIsNotAskedForByDefault(t *testing.T) {
	s := dial(t) // wants a SYN without further flags
	s.exchange(seg{flags: fSYN | fACK | fECE, ack: 1, opt: mss(1000)})
	if s.conn().ecnOK {
		t.Fatal("a peer answers what was not asked, and is believed")
	}
}

// A retransmission is not ECN-capable: a mark on it would tell of congestion that
// the loss has told of (RFC 3168 §6.1.5).
func TestRetransmissionIsNotECNCapable(t *testing.T) {
	s := askECN(t)
	s.exchange(seg{flags: fSYN | fACK | fECE, ack: 1, opt: mss(1000)})
	s.conn().Write(make([]byte, 100))
	if out := s.flush(); len(out) != 1 || out[0].ecn != ecnECT0 {
		t.Fatalf("%v", out)
	}
	if out := s.after(1100 * time.Millisecond); len(out) == 0 || len(out[0].data) != 100 || out[0].ecn != ecnNotCapable {
		t.Fatalf("sent again: %v", out)
	}
}
