package tcp

import (
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// block is a SACK block counted from our ISN.
func (s *script) block(left, right int) header.SACKBlock {
	return header.SACKBlock{Left: s.iss.Add(uint32(left)), Right: s.iss.Add(uint32(right))}
}

// sack acknowledges ack and SACKs the given blocks.
func (s *script) sack(ack int, blocks ...header.SACKBlock) []outSegment {
	s.t.Helper()
	o := header.TCPOptions{NumSACK: len(blocks)}
	copy(o.SACK[:], blocks)
	return s.exchange(seg{flags: fACK, seq: 1, ack: ack, opt: o})
}

// noTSO is a link that takes single segments only.
func noTSO() Config {
	c := testConfig()
	c.Caps.TSO4, c.Caps.TSO6 = false, false
	return c
}

func TestInitialWindowIsTenSegments(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.conn().Write(make([]byte, 100_000))
	if out := s.flush(); len(out) != 10 {
		t.Fatalf("%d segments", len(out))
	}
}

func TestSlowStartDoublesAndStopsWhenNotUsed(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	c := s.conn()
	c.Write(make([]byte, 50_000))
	s.flush()
	if out := s.sack(10_001); len(out) != 20 {
		t.Fatalf("%d segments after a full window's ACK, want 20", len(out))
	}
	s.sack(30_001)
	s.sack(50_001)
	before := c.cwnd
	for i := range 20 { // application-limited: one segment at a time
		c.Write(make([]byte, 1000))
		s.flush()
		s.sack(50_001 + 1000*(i+1))
	}
	if c.cwnd != before {
		t.Fatalf("grew from %d to %d while nothing used it", before, c.cwnd)
	}
}

func TestFastRetransmitBySack(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.after(time.Millisecond)
	s.conn().Write(make([]byte, 10_000))
	s.flush()
	s.after(20 * time.Millisecond)
	s.sack(1, s.block(1001, 2001))
	s.sack(1, s.block(1001, 3001))
	out := s.sack(1, s.block(1001, 4001))
	if len(out) != 1 || out[0].seq != 1 || len(out[0].data) != 1000 {
		t.Fatalf("want the first segment again, got %v", out)
	}
	c := s.conn()
	if c.recovery != stateRecovery || c.ssthresh >= 10_000 {
		t.Fatalf("recovery %d, ssthresh %d", c.recovery, c.ssthresh)
	}
	s.sack(10_001)
	if c.recovery != stateOpen || c.cwnd != c.ssthresh {
		t.Fatalf("recovery %d, cwnd %d, ssthresh %d", c.recovery, c.cwnd, c.ssthresh)
	}
}

func TestLimitedTransmit(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.conn().Write(make([]byte, 20_000))
	s.flush()
	out := s.sack(1, s.block(1001, 2001))
	if len(out) != 1 || out[0].seq != 10_001 {
		t.Fatalf("want one new segment for the first duplicate ACK (RFC 3042), got %v", out)
	}
}

func TestFastRetransmitWithoutSack(t *testing.T) {
	s := established(t, noTSO(), mss(1000))
	s.conn().Write(make([]byte, 10_000))
	s.flush()
	s.none(s.sack(1))
	s.none(s.sack(1))
	out := s.sack(1)
	if len(out) != 1 || out[0].seq != 1 || len(out[0].data) != 1000 {
		t.Fatalf("got %v", out)
	}
	// A partial ACK shows the next hole (RFC 6582).
	out = s.sack(3001)
	if len(out) < 1 || out[0].seq != 3001 {
		t.Fatalf("after a partial ACK: %v", out)
	}
	s.sack(10_001)
	if s.conn().recovery != stateOpen {
		t.Fatal("recovery does not end")
	}
}

func TestRetransmissionTimeoutBacksOffAndGivesUp(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.conn().Write([]byte("lost"))
	s.flush()
	var at []time.Duration
	start := s.now
	for s.conn().State() != Closed {
		if out := s.after(50 * time.Millisecond); len(out) > 0 {
			at = append(at, s.now.Sub(start))
		}
	}
	if len(at) != maxRetries+1 || s.log.err != ErrTimeout { // and an RST
		t.Fatalf("%d transmissions, %v", len(at), s.log.err)
	}
	if at[0] > 300*time.Millisecond || at[len(at)-1]-at[len(at)-2] < maxRTO-time.Second {
		t.Fatalf("at %v", at)
	}
}

func TestTimeoutRetransmitsAllInSlowStart(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.conn().Write(make([]byte, 10_000))
	s.flush()
	s.sack(1, s.block(9001, 10_001)) // one SACK, too few to tell
	s.conn().cancel(timerReorder)
	c := s.conn()
	out := s.after(1500 * time.Millisecond)
	if len(out) == 0 || out[0].seq != 1 {
		t.Fatalf("%v", out)
	}
	if c.recovery == stateOpen {
		t.Fatal("not in recovery")
	}
	s.sack(10_001)
	if c.outstanding() != 0 || c.lost != 0 || c.sacked != 0 {
		t.Fatalf("outstanding %d, lost %d, sacked %d", c.outstanding(), c.lost, c.sacked)
	}
}

func TestPeerThatRenegesIsSurvived(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.conn().Write(make([]byte, 10_000))
	s.flush()
	s.sack(1, s.block(1001, 10_001))
	s.sack(1001) // and now it has forgotten all of it
	var seen [11]bool
	for range 40 {
		for _, o := range s.after(500 * time.Millisecond) {
			seen[o.seq/1000] = true
		}
		if s.conn().sacked == 0 && seen[1] {
			break
		}
	}
	if !seen[1] {
		t.Fatal("what was SACKed and thrown away is never sent again")
	}
}

func TestTailLossProbe(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	c := s.conn()
	// A round trip of 20 ms.
	for i := range 5 {
		c.Write(make([]byte, 1000))
		s.flush()
		s.after(20 * time.Millisecond)
		s.sack(1001 + 1000*i)
	}
	c.Write(make([]byte, 3000))
	s.flush()
	out := s.after(60 * time.Millisecond)
	if len(out) != 1 || out[0].seq != 7001 {
		t.Fatalf("want the tail again long before the timeout, got %v", out)
	}
	// The probe shows that the two before it were lost.
	out = s.sack(5001, s.block(7001, 8001))
	if len(out) == 0 || out[0].seq != 5001 {
		t.Fatalf("got %v", out)
	}
}

func TestRackRetransmitsALostRetransmission(t *testing.T) {
	s := established(t, noTSO(), fullOptions())
	c := s.conn()
	s.after(20 * time.Millisecond)
	c.Write(make([]byte, 60_000))
	s.flush()
	s.after(20 * time.Millisecond)
	m := c.mss
	out := s.sack(1, s.block(1+m, 1+5*m))
	if !contains(out, 1) {
		t.Fatalf("no fast retransmit: %v", out)
	}
	s.after(20 * time.Millisecond)
	s.tsVal++
	s.sack(1, s.block(1+m, int(c.sndNxt.Diff(s.iss)))) // lets new data out
	s.after(20 * time.Millisecond)
	// That arrives, sent after the retransmission: so the retransmission is lost.
	out = s.sack(1, s.block(1+m, int(c.sndNxt.Diff(s.iss))))
	out = append(out, s.after(30*time.Millisecond)...)
	if !contains(out, 1) {
		t.Fatalf("the lost retransmission waits for the timeout")
	}
}

func contains(out []outSegment, at int) bool {
	for _, o := range out {
		if o.seq == at && len(o.data) > 0 {
			return true
		}
	}
	return false
}

func TestEifelUndoesASpuriousTimeout(t *testing.T) {
	s := established(t, noTSO(), fullOptions())
	c := s.conn()
	c.Write(make([]byte, 10*c.mss))
	s.flush()
	echo := s.tsEcr
	cwnd := c.cwnd
	s.after(2 * time.Second)
	if c.recovery != stateLoss {
		t.Fatal("no timeout")
	}
	// The original's acknowledgement was only late.
	opt := header.TCPOptions{Timestamp: true, TSVal: s.tsVal + 1, TSEcr: echo}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1 + 2*c.mss, opt: opt})
	if c.recovery != stateOpen || c.cwnd < cwnd {
		t.Fatalf("recovery %d, cwnd %d, was %d", c.recovery, c.cwnd, cwnd)
	}
}

func TestDSACKUndoesASpuriousRetransmit(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	s.after(time.Millisecond)
	c := s.conn()
	c.Write(make([]byte, 10_000))
	s.flush()
	s.after(20 * time.Millisecond)
	out := s.sack(1, s.block(1001, 5001))
	if !contains(out, 1) {
		t.Fatalf("no fast retransmit: %v", out)
	}
	before := c.ssthresh
	s.sack(5001, s.block(1, 1001))
	if c.recovery != stateOpen || c.ssthresh <= before {
		t.Fatalf("recovery %d, ssthresh %d", c.recovery, c.ssthresh)
	}
}

func TestHostileSacksAreIgnoredAndBounded(t *testing.T) {
	s := established(t, testConfig(), sackMSS(48))
	c := s.conn()
	c.Write(make([]byte, 60_000))
	c.cwnd = 1 << 20
	s.flush()
	s.sack(1, s.block(100, 50), s.block(-5, 10), s.block(1, 1_000_000))
	if c.sacked != 0 {
		t.Fatalf("%d bytes SACKed by blocks that make no sense", c.sacked)
	}
	for i := 2; i < 59_000; i += 8 { // every few bytes (CVE-2019-11478)
		s.in(seg{flags: fACK, seq: 1, ack: 1, opt: header.TCPOptions{NumSACK: 4, SACK: [4]header.SACKBlock{
			s.block(i, i+1), s.block(i+2, i+3), s.block(i+4, i+5), s.block(i+6, i+7)}}})
		if n := c.sent.count(); n > 2*maxSent {
			t.Fatalf("%d records", n)
		}
	}
	s.flush()
	s.sack(60_001)
	if c.outstanding() != 0 || c.sacked != 0 || c.lost != 0 {
		t.Fatal("does not recover")
	}
}

func TestPersistProbesBackOffAndOrphanGivesUp(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.Write([]byte("wait"))
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 5, wnd: -1})
	c.Write([]byte("for the window"))
	s.none(s.flush())
	probes := 0
	for range 600 { // the peer answers: it may take as long as it likes
		for _, o := range s.after(time.Second) {
			if len(o.data) > 0 {
				t.Fatalf("data into a closed window: %v", o)
			}
			probes++
			s.exchange(seg{flags: fACK, seq: 1, ack: 5, wnd: -1})
		}
	}
	if probes < 8 || probes > 30 || c.State() != Established {
		t.Fatalf("%d probes in ten minutes, %v", probes, c.State())
	}
	c.Close()
	s.flush()
	for range 3000 {
		if c.State() == Closed {
			break
		}
		if len(s.after(time.Second)) > 0 {
			s.exchange(seg{flags: fACK, seq: 1, ack: 5, wnd: -1})
		}
	}
	if c.State() != Closed || s.e.Stats().BufferBytes > 1<<20 {
		t.Fatalf("an orphan waits for ever for a closed window: %v", c.State())
	}
}

func TestWindowOpensAgain(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: -1})
	// That came without new sequence or ACK numbers, but equal ones count.
	s.conn().Write([]byte("data"))
	s.none(s.flush())
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 100}), fACK|fPSH, 1, 1, 4)
}

func TestSenderAvoidsSillyWindows(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.Write(make([]byte, 2000))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 2000})
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 2001, wnd: 10})
	c.Write(make([]byte, 2000))
	s.none(s.flush())
	if out := s.after(time.Second); len(out) == 0 || len(out[0].data) != 10 {
		t.Fatalf("the persist timer overrides with what fits, got %v", out)
	}
}

func TestSuperSegmentsAreWholeSegments(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1000))
	c := s.conn()
	c.cwnd = 200_000
	c.Write(make([]byte, 66_500))
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535})
	if len(s.out) != 1 || s.out[0].gsoSize != 1000 || len(s.out[0].data) != 65_000 {
		t.Fatalf("%d frames, the first with %d bytes by %d", len(s.out), len(s.out[0].data), s.out[0].gsoSize)
	}
	out := s.exchange(seg{flags: fACK, seq: 1, ack: 65_001, wnd: 65535})
	if len(out) != 1 || len(out[0].data) != 1500 || !out[0].flags.Has(fPSH) {
		t.Fatalf("the end does not go out in one: %v", out)
	}
}

func TestOneAckPerFlush(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1000))
	for i := range 20 {
		s.in(seg{flags: fACK | fPSH, seq: 1 + 1000*i, ack: 1, data: strings.Repeat("x", 1000)})
	}
	s.one(s.flush(), fACK, 1, 20_001, 0)
}

func TestDelayedAck(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1000))
	s.none(s.exchange(seg{flags: fACK | fPSH, seq: 1, ack: 1, data: "question"}))
	s.conn().Write([]byte("answer"))
	s.one(s.flush(), fACK|fPSH, 1, 9, 6) // carries the ACK
	s.exchange(seg{flags: fACK, seq: 9, ack: 7})
	s.none(s.exchange(seg{flags: fACK | fPSH, seq: 9, ack: 7, data: "more"}))
	s.one(s.after(40*time.Millisecond), fACK, 7, 13, 0)
	// The reply did not come in time, so the next is not kept waiting.
	s.one(s.exchange(seg{flags: fACK | fPSH, seq: 13, ack: 7, data: "x"}), fACK, 7, 14, 0)
}

func TestSecondFullSegmentIsAckedAtOnce(t *testing.T) {
	s := established(t, testConfig(), sackMSS(1460))
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: strings.Repeat("x", 1460)}))
	s.one(s.exchange(seg{flags: fACK, seq: 1461, ack: 1, data: strings.Repeat("x", 1460)}), fACK, 1, 2921, 0)
	// A super-segment counts as the segments it was made of.
	s.one(s.exchange(seg{flags: fACK, seq: 2921, ack: 1, data: strings.Repeat("x", 14600), size: 1460}), fACK, 1, 17521, 0)
}

func TestECNIsNegotiatedAndAnswered(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.one(s.exchange(seg{flags: fSYN | header.ECE | header.CWR, opt: mss(1000)}), fSYN|fACK|header.ECE, 0, 1, 0)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	c := s.conn()
	c.quickACKs = 0
	o := s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "x", ecn: ecnCE}), fACK|header.ECE, 1, 2, 0)
	if o.ecn != ecnNotCapable {
		t.Error("a pure ACK is ECN-capable (RFC 3168 §6.1.4)")
	}
	c.Write(make([]byte, 5000))
	out := s.flush()
	if len(out) == 0 || out[0].ecn != ecnECT0 || !out[0].flags.Has(header.ECE) {
		t.Fatalf("%v", out)
	}
	s.exchange(seg{flags: fACK | header.CWR, seq: 2, ack: 1, data: "y"})
	if c.ecnEcho {
		t.Error("CWR does not end the echo")
	}
	cwnd := c.cwnd
	s.exchange(seg{flags: fACK | header.ECE, seq: 3, ack: 1001})
	if c.cwnd >= cwnd {
		t.Errorf("window %d after an echo, was %d", c.cwnd, cwnd)
	}
	c.Write(make([]byte, 1000))
	s.exchange(seg{flags: fACK, seq: 3, ack: 5001})
	if !s.out[0].flags.Has(header.CWR) {
		t.Errorf("no CWR on the next data: %v", s.out)
	}
}

func TestIcmpIsValidated(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1460))
	c := s.conn()
	c.Write(make([]byte, 5000))
	s.flush()
	s.e.Unreachable(s.local, s.remote, s.iss.Add(9000), HostUnreachable, 0)
	s.e.Unreachable(s.local, s.remote, s.iss.Sub(1), 0, 600)
	if s.e.Stats().Drops.Unreachable != 2 || c.mss != 1460 {
		t.Fatalf("an error that quotes nothing of ours counts: %+v", s.e.Stats().Drops)
	}
	s.e.Unreachable(s.local, s.remote, s.iss.Add(1), PortUnreachable, 0)
	if c.State() != Established {
		t.Fatal("a soft error aborts")
	}
	s.e.Unreachable(s.local, s.remote, s.iss.Add(1), 0, 100)
	if c.mss != minPMTU4-40 {
		t.Fatalf("MSS %d, want the floor's", c.mss)
	}
	out := s.flush()
	if len(out) == 0 || len(out[0].data) != minPMTU4-40 || out[0].seq != 1 {
		t.Fatalf("not cut anew: %v", out)
	}
	s.e.Unreachable(s.local, s.remote, s.iss.Add(1), 0, 1400)
	if c.mss != minPMTU4-40 {
		t.Fatal("an error raised the MTU")
	}
	s.sack(5001)
	s.after(pmtuExpiry + time.Second)
	c.Write([]byte("x"))
	s.flush()
	if c.mss != 1460 {
		t.Fatalf("MSS %d: not forgotten after ten minutes", c.mss)
	}
}

func TestRestartAfterIdle(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	c := s.conn()
	c.Write(make([]byte, 30_000))
	s.flush()
	s.sack(10_001)
	s.sack(30_001)
	if c.cwnd <= 10_000 {
		t.Fatalf("window %d", c.cwnd)
	}
	s.after(10 * time.Second)
	c.Write(make([]byte, 100_000))
	if out := s.flush(); len(out) != 10 {
		t.Fatalf("%d segments after idle time, want 10", len(out))
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	w := newWorld(t, 3, testConfig(), testConfig())
	w.path.loss = 0.02
	la, lb := &peerLog{}, &peerLog{}
	w.a.e.isnFloor, w.a.e.isnFloored = seq.Value(1<<32-100_000), true
	data := randomBytes(w.rand, 500_000)
	sa := &source{data, w.rand}
	la.onWritable = sa.pump
	lb.onEOF = func(c *Conn) { c.Close() }
	sa.pump(w.connect(la, lb))
	if !w.run(10*time.Minute, func() bool { return la.closed == 1 && lb.closed == 1 }) {
		t.Fatal("not done")
	}
	if string(lb.got) != string(data) {
		t.Fatalf("bytes differ, %d of %d", len(lb.got), len(data))
	}
}

func TestTinyWritesAreBoundedInRecords(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	c := s.conn()
	c.cwnd = 1 << 20
	for range 5000 {
		c.Write([]byte("x"))
		s.flush()
	}
	if n := c.sent.count(); n != maxSent || c.outstanding() != 5000 {
		t.Fatalf("%d records for %d bytes", n, c.outstanding())
	}
	if n := s.e.Stats().RecordsJoined; n != 5000-maxSent {
		t.Fatalf("%d joined, want %d", n, 5000-maxSent)
	}
	s.after(20 * time.Millisecond)
	s.tsVal++
	s.sack(1, s.block(2000, 4000))
	s.sack(5001)
	if c.outstanding() != 0 || cap(c.sent.recs) > keepSent {
		t.Fatalf("outstanding %d, room for %d records kept", c.outstanding(), cap(c.sent.recs))
	}
}

func TestWindowClosedOnDataInFlightIsSurvived(t *testing.T) {
	s := established(t, noTSO(), mss(1000))
	c := s.conn()
	c.Write(make([]byte, 5000))
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: -1}) // dropped it all
	for range 2000 {
		if len(s.after(time.Second)) > 0 {
			s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: -1})
		}
	}
	if c.State() != Established {
		t.Fatalf("gave a living peer up: %v", s.log.err)
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 60000})
	if out := s.after(500 * time.Millisecond); !contains(out, 1) {
		t.Fatalf("does not go on soon after the window opens: %v", out)
	}
}

// TestBatchReportsEveryRange has a batch leave more holes than one
// acknowledgement can tell of: a sender that RACK guides would send again all
// that it does not hear of.
func TestBatchReportsEveryRange(t *testing.T) {
	s := established(t, testConfig(), fullOptions())
	const n = 10
	for i := range n {
		s.in(seg{flags: fACK, seq: 101 + 200*i, ack: 1, data: strings.Repeat("x", 100)})
	}
	told := map[int]bool{}
	out := s.flush()
	for _, o := range out {
		for _, b := range o.opt.SACK[:o.opt.NumSACK] {
			told[int(b.Left.Diff(peerISN))] = true
		}
	}
	if len(told) != n || len(out) != 4 {
		t.Fatalf("%d ranges told of in %d acknowledgements, want %d in 4", len(told), len(out), n)
	}
	if newest := int(out[3].opt.SACK[0].Left.Diff(peerISN)); newest != 101+200*(n-1) {
		t.Fatalf("the last begins with %d, not with the newest", newest)
	}
	// Once told, one acknowledgement a batch is enough again.
	s.one(s.exchange(seg{flags: fACK, seq: 5001, ack: 1, data: "x"}), fACK, 1, 1, 0)
}

func TestBatchOutOfOrderGetsDuplicateAcksWithoutSack(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	for i := range 4 {
		s.in(seg{flags: fACK, seq: 1001 + 1000*i, ack: 1, data: strings.Repeat("x", 1000)})
	}
	if out := s.flush(); len(out) != 4 {
		t.Fatalf("%d acknowledgements, want the four that fast retransmit counts", len(out))
	}
	for i := range 100 {
		s.in(seg{flags: fACK, seq: 10_001 + 10*i, ack: 1, data: "x"})
	}
	if out := s.flush(); len(out) > maxDupACK {
		t.Fatalf("%d acknowledgements for one batch", len(out))
	}
}
