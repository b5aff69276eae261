package tcp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

func TestSynAckHasOptionsInOrder(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { c.Accept(s.log) })
	s.ts = true
	out := s.exchange(seg{flags: fSYN, opt: fullOptions()})
	o := s.one(out, fSYN|fACK, 0, 1, 0)
	got := o.raw.OptionBytes()
	order := []byte{got[0], got[4], got[6], got[16], got[17]}
	if fmt.Sprint(order) != fmt.Sprint([]byte{2, 4, 8, 1, 3}) {
		t.Fatalf("options in order %v", order)
	}
	if o.wnd != 65535 {
		t.Errorf("SYN-ACK window %d, want an unscaled 65535", o.wnd)
	}
}

func TestOptionsNotOfferedAreNotUsed(t *testing.T) {
	s := established(t, testConfig(), header.TCPOptions{})
	c := s.conn()
	if c.sackOK || c.tsOK || c.sndShift != 0 || c.rcvShift != 0 {
		t.Fatalf("uses what the peer did not offer")
	}
	if c.mss != 536 {
		t.Errorf("MSS %d without the option, want 536", c.mss)
	}
	c.Write(make([]byte, 600))
	out := s.flush()
	if len(out) != 1 || len(out[0].raw) != 20 || out[0].gsoSize != 536 {
		t.Fatalf("sent %+v", out)
	}
}

func TestTinyMSSIsRaisedToTheFloor(t *testing.T) {
	s := established(t, testConfig(), mss(1))
	if s.conn().mss != minMSS {
		t.Fatalf("MSS %d", s.conn().mss)
	}
}

// TestAcceptability is the four-case table of RFC 9293 §3.10.7.4 with RST, SYN
// and ACK at every place of the window.
func TestAcceptability(t *testing.T) {
	const wnd = 65535 // no window scale: what the SYN-ACK told
	place := map[string]int{
		"outside left": 1 - 10, "left edge": 1, "inside": 1 + 100,
		"right edge": 1 + wnd, "outside right": 1 + wnd + 10,
	}
	tests := []struct {
		flags  header.TCPFlags
		at     string
		answer bool // an ACK comes
		alive  bool
	}{
		{fRST, "outside left", false, true},
		{fRST, "left edge", false, false},
		{fRST, "inside", true, true},
		{fRST, "right edge", false, true},
		{fRST, "outside right", false, true},
		{fSYN, "outside left", true, true},
		{fSYN, "left edge", true, true},
		{fSYN, "inside", true, true},
		{fSYN, "right edge", true, true},
		{fSYN, "outside right", true, true},
		{fSYN | fACK, "left edge", true, true},
		{fACK, "outside left", true, true},
		{fACK, "left edge", false, true},
		{fACK, "inside", false, true},
		{fACK, "right edge", true, true},
		{fACK, "outside right", true, true},
		{fACK | fFIN, "outside right", true, true},
		{fSYN | fFIN, "left edge", false, true},
		{fSYN | fRST, "left edge", false, true},
		{0, "left edge", false, true},
		{0xff, "left edge", false, true},
		{fPSH, "left edge", false, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%v %s", tt.flags, tt.at), func(t *testing.T) {
			cfg := testConfig()
			cfg.ReceiveBuffer = 1 << 20
			s := established(t, cfg, mss(1460))
			out := s.exchange(seg{flags: tt.flags, seq: place[tt.at], ack: 1})
			if tt.answer {
				s.one(out, fACK, 1, 1, 0)
			} else {
				s.none(out)
			}
			if alive := s.conn().State() == Established; alive != tt.alive {
				t.Errorf("state %v", s.conn().State())
			}
			if !tt.alive && (s.log.closed != 1 || s.log.err != ErrReset) {
				t.Errorf("handler told %d times, %v", s.log.closed, s.log.err)
			}
		})
	}
}

func TestAckBeyondSndNxtDropsData(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	out := s.exchange(seg{flags: fACK, seq: 1, ack: 2, data: "evil"})
	s.one(out, fACK, 1, 1, 0)
	if len(s.log.got) != 0 {
		t.Fatalf("took %q", s.log.got)
	}
}

func TestAckFarInThePastDropsData(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	out := s.exchange(seg{flags: fACK, seq: 1, ack: 1 - 70_000, data: "evil"})
	s.one(out, fACK, 1, 1, 0)
	if len(s.log.got) != 0 {
		t.Fatalf("took %q", s.log.got)
	}
}

func TestChallengeAcksAreLimitedPerConnection(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	n := 0
	for range 50 {
		n += len(s.exchange(seg{flags: fRST, seq: 100}))
	}
	if n != challengeMax {
		t.Fatalf("%d challenge ACKs, want %d", n, challengeMax)
	}
	if w := s.e.Stats().ChallengesWithheld; w != 50-challengeMax {
		t.Fatalf("%d withheld, want %d", w, 50-challengeMax)
	}
	s.after(challengeSlot)
	s.one(s.exchange(seg{flags: fRST, seq: 100}), fACK, 1, 1, 0)
}

func TestStaleAckDoesNotShrinkWindow(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	c := s.conn()
	c.Write([]byte("0123456789"))
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 11, wnd: 50000})
	// An older acknowledgement that was overtaken, with an older window.
	s.exchange(seg{flags: fACK, seq: 1, ack: 6, wnd: 100})
	if c.sndWnd != 50000 {
		t.Fatalf("window %d", c.sndWnd)
	}
	// An older sequence number does not update it either.
	s.exchange(seg{flags: fACK, seq: 1, ack: 11, wnd: 50000, data: "abc"})
	s.exchange(seg{flags: fACK, seq: 1, ack: 11, wnd: 200})
	if c.sndWnd != 50000 {
		t.Fatalf("window %d after an older sequence number", c.sndWnd)
	}
}

func TestPeerMayShrinkItsWindow(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.Write(make([]byte, 5000))
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 1001, wnd: 1000})
	c.Write(make([]byte, 5000))
	s.none(s.flush())
	if c.windowRoom() >= 0 {
		t.Fatalf("room %d: the test proves nothing", c.windowRoom())
	}
	out := s.exchange(seg{flags: fACK, seq: 1, ack: 5001, wnd: 60000})
	if len(out) == 0 {
		t.Fatal("does not go on when the window opens")
	}
}

func TestPartialOverlapIsTrimmed(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1460))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "hello"})
	s.exchange(seg{flags: fACK, seq: 4, ack: 1, data: "lo world"})
	if string(s.log.got) != "hello world" {
		t.Fatalf("got %q", s.log.got)
	}
}

func TestDuplicateDataIsReportedByDSACK(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1460))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "hello"})
	o := s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "hello"}), fACK, 1, 6, 0)
	want := header.SACKBlock{Left: peerISN + 1, Right: peerISN + 6}
	if o.opt.NumSACK != 1 || o.opt.SACK[0] != want {
		t.Fatalf("SACK %v", o.opt.SACK[:o.opt.NumSACK])
	}
}

func TestSackReportsNewestRangeFirst(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1460))
	s.exchange(seg{flags: fACK, seq: 11, ack: 1, data: "0123456789"})
	s.exchange(seg{flags: fACK, seq: 51, ack: 1, data: "0123456789"})
	out := s.exchange(seg{flags: fACK, seq: 31, ack: 1, data: "0123456789"})
	o := s.one(out, fACK, 1, 1, 0)
	want := []int{31, 51, 11}
	if o.opt.NumSACK != 3 {
		t.Fatalf("%d blocks", o.opt.NumSACK)
	}
	for i, w := range want {
		if got := int(o.opt.SACK[i].Left.Diff(peerISN)); got != w {
			t.Errorf("block %d begins at %d, want %d", i, got, w)
		}
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "0123456789"})
	if string(s.log.got) != "01234567890123456789" {
		t.Errorf("filled gap delivered %q", s.log.got)
	}
}

// TestEveryOrderOfFiveSegments delivers five segments in all 120 orders.
func TestEveryOrderOfFiveSegments(t *testing.T) {
	order := []int{0, 1, 2, 3, 4}
	var permute func(k int)
	permute = func(k int) {
		if k < len(order) {
			for i := k; i < len(order); i++ {
				order[k], order[i] = order[i], order[k]
				permute(k + 1)
				order[k], order[i] = order[i], order[k]
			}
			return
		}
		s := established(t, testConfig(), sackMSS(1460))
		for _, i := range order {
			flags := fACK
			if i == 4 {
				flags |= fFIN
			}
			s.exchange(seg{flags: flags, seq: 1 + 3*i, ack: 1, data: "abcdefghijklmno"[3*i : 3*i+3]})
		}
		if string(s.log.got) != "abcdefghijklmno" || s.log.eof != 1 {
			t.Fatalf("order %v: got %q, eof %d", order, s.log.got, s.log.eof)
		}
	}
	permute(0)
}

// TestOverlapGrid covers every pair of overlapping out-of-order segments.
func TestOverlapGrid(t *testing.T) {
	const text = "0123456789ABCDEF"
	for a := 2; a < 8; a++ {
		for b := a + 1; b <= 9; b++ {
			for c := 2; c < 9; c++ {
				for d := c + 1; d <= 10; d++ {
					s := established(t, testConfig(), sackMSS(1460))
					s.exchange(seg{flags: fACK, seq: 1 + a, ack: 1, data: text[a:b]})
					s.exchange(seg{flags: fACK, seq: 1 + c, ack: 1, data: text[c:d]})
					s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: text[:12]})
					if string(s.log.got) != text[:12] {
						t.Fatalf("[%d,%d) [%d,%d): got %q", a, b, c, d, s.log.got)
					}
				}
			}
		}
	}
}

func TestOutOfOrderRangesAreBounded(t *testing.T) {
	cfg := testConfig()
	s := established(t, cfg, sackMSS(1460))
	for i := range 2000 {
		s.exchange(seg{flags: fACK, seq: 10 + 2*i, ack: 1, data: "x"})
	}
	c := s.conn()
	if n := len(c.in.ranges); n != maxRanges {
		t.Fatalf("%d ranges", n)
	}
	if s.e.Stats().Drops.Memory == 0 {
		t.Error("the rest was not counted as dropped")
	}
}

// Out of order a sender may fill the window and nothing beyond: what is held is
// bounded by what was advertised.
func TestOutOfOrderBytesAreBoundedByTheWindow(t *testing.T) {
	cfg := testConfig()
	cfg.ReceiveBuffer = 64 << 10
	s := established(t, cfg, sackMSS(1460))
	full := strings.Repeat("x", 1000)
	for i := range 200 { // three times the window, from byte 2 on
		s.exchange(seg{flags: fACK, seq: 2 + 1000*i, ack: 1, data: full})
	}
	held := 0
	for _, r := range s.conn().in.ranges {
		held += r.len()
	}
	if held < 60<<10 || held > 64<<10 {
		t.Errorf("%d bytes out of order are held, want up to the window of %d", held, 64<<10)
	}
	if s.e.Stats().Drops.OutOfWindow == 0 {
		t.Error("the rest was not counted as dropped")
	}
	if n := s.e.Stats().BufferBytes; n > 3*chunkSize {
		t.Errorf("%d bytes of buffers for a window of %d", n, 64<<10)
	}
}

func TestPAWSDropsOldTimestamps(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	s.tsVal = 6000
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "new"})
	s.flush()
	s.after(delayedACK)
	old := header.TCPOptions{Timestamp: true, TSVal: 5999, TSEcr: s.tsEcr}
	s.exchange(seg{flags: fACK, seq: 4, ack: 1, data: "newer"})
	s.after(delayedACK)
	out := s.exchange(seg{flags: fACK, seq: 9, ack: 1, data: "old", opt: old})
	s.one(out, fACK, 1, 9, 0)
	if string(s.log.got) != "newnewer" || s.e.Stats().Drops.PAWS != 1 {
		t.Fatalf("got %q", s.log.got)
	}
	// After 24 days of silence any timestamp counts (RFC 7323 §5.5).
	s.after(25 * 24 * time.Hour)
	s.exchange(seg{flags: fACK, seq: 9, ack: 1, data: "!", opt: old})
	if string(s.log.got) != "newnewer!" {
		t.Fatalf("after 25 days got %q", s.log.got)
	}
}

func TestResetNeedsNoTimestamp(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	s.ts = false
	s.exchange(seg{flags: fRST, seq: 1})
	if s.log.err != ErrReset {
		t.Fatalf("state %v", s.conn().State())
	}
}

func TestHandshakeAckMayLackTimestamp(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.exchange(seg{flags: fSYN, opt: fullOptions()})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	if s.log.established != 1 {
		t.Fatal("not established")
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "x"})
	if len(s.log.got) != 0 {
		t.Fatal("data without timestamp was taken (RFC 7323 §3.2)")
	}
}

func TestZeroWindowStillTakesAcks(t *testing.T) {
	cfg := testConfig()
	cfg.ReceiveBuffer = 8192
	s := established(t, cfg, mss(1460))
	s.log.limit = -1 // takes nothing
	at := 1
	for range 8 {
		s.exchange(seg{flags: fACK, seq: at, ack: 1, data: string(make([]byte, 1024))})
		at += 1024
	}
	c := s.conn()
	c.Write([]byte("abc"))
	s.flush()
	// A window probe with one byte: answered, its ACK counts, its text does not.
	out := s.exchange(seg{flags: fACK, seq: at, ack: 4, data: "x"})
	o := s.one(out, fACK, 4, at, 0)
	if o.wnd != 0 || c.Unacked() != 0 {
		t.Fatalf("window %d, unacked %d", o.wnd, c.Unacked())
	}
	// Draining opens the window, and the peer hears of it.
	s.log.drain(c, 8192)
	if o := s.one(s.flush(), fACK, 4, at, 0); o.wnd != 8192 {
		t.Fatalf("window update %d", o.wnd)
	}
}
