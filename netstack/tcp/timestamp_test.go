package tcp

import (
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// TestTimestampToEchoIsThatOfTheSegmentThatTheAckAnswers is the rule of
// Last.ACK.sent (RFC 7323 §4.3): not the latest timestamp is echoed, but that of
// the first segment which the acknowledgement answers, so that a delayed or
// duplicate one does not make the round trip look short.
func TestTimestampToEchoIsThatOfTheSegmentThatTheAckAnswers(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	text := strings.Repeat("x", 1448)
	s.tsVal = 6000
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: text}))
	s.tsVal = 6010
	o := s.one(s.exchange(seg{flags: fACK, seq: 1449, ack: 1, data: text}), fACK, 1, 2897, 0)
	if o.opt.TSEcr != 6000 {
		t.Errorf("delayed ACK echoes %d, want the first segment's", o.opt.TSEcr)
	}
	s.tsVal = 6020 // behind a gap
	o = s.one(s.exchange(seg{flags: fACK, seq: 5000, ack: 1, data: "gap"}), fACK, 1, 2897, 0)
	if o.opt.TSEcr != 6000 {
		t.Errorf("duplicate ACK echoes %d, want the last segment in order's", o.opt.TSEcr)
	}
	s.tsVal = 6030
	o = s.one(s.exchange(seg{flags: fACK, seq: 2897, ack: 1, data: text}), fACK, 1, 4345, 0)
	if o.opt.TSEcr != 6030 {
		t.Errorf("ACK of a filled gap echoes %d, want that of the segment that filled it", o.opt.TSEcr)
	}
}

func TestTimestampClockTicksInMillisecondsFromAnOffsetOfItsOwn(t *testing.T) {
	listen := func(port uint16, secret byte, after time.Duration) uint32 {
		cfg := testConfig()
		cfg.Secret[5] = secret
		s := newScript(t, cfg)
		s.e.Listen(s.local, 9)
		s.after(after)
		out, _ := s.client(port, fullOptions())
		return out[0].opt.TSVal
	}
	a := listen(1, 0, 0)
	if d := listen(1, 0, time.Second) - a; d != 1000 {
		t.Errorf("%d ticks in a second, want 1000", d)
	}
	if a == listen(2, 0, 0) {
		t.Error("two flows tell the same time (RFC 7323 §7.1)")
	}
	if a == listen(1, 1, 0) {
		t.Error("the offset does not depend on the secret")
	}
}

// A host that is busy reads a frame late and answers it later still. The round
// trip ends when it was read.
func TestRoundTripEndsWhenTheFrameWasRead(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1000))
	c := s.conn()
	c.rtt = rttEstimator{rto: initialRTO}
	c.Write(make([]byte, 1000))
	s.flush()
	s.now = s.now.Add(20 * time.Millisecond)
	s.in(seg{flags: fACK, seq: 1, ack: 1001})
	s.now = s.now.Add(500 * time.Millisecond)
	s.e.SetNow(s.now)
	s.flush()
	if c.rtt.srtt != 20*time.Millisecond {
		t.Fatalf("round trip of %v, want 20ms", c.rtt.srtt)
	}
}

// RFC 7323 §5.3 takes a segment with a timestamp that is not older, whatever
// happened to the high bit.
func TestTimestampsWrap(t *testing.T) {
	opt := fullOptions()
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.ts, s.tsVal = true, 1<<32-5
	opt.TSVal = s.tsVal
	s.exchange(seg{flags: fSYN, opt: opt})
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	s.tsVal = 3
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "new"})
	old := header.TCPOptions{Timestamp: true, TSVal: 1<<32 - 1, TSEcr: s.tsEcr}
	s.exchange(seg{flags: fACK, seq: 4, ack: 1, data: "old", opt: old})
	if string(s.log.got) != "new" || s.e.Stats().Drops.PAWS != 1 {
		t.Fatalf("got %q, %d dropped", s.log.got, s.e.Stats().Drops.PAWS)
	}
}
