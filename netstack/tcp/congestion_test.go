package tcp

import (
	"math"
	"testing"
	"time"

	"sbxnet/netstack/timer"
)

// ackWindow has the congestion control see a whole window acknowledged, in
// segments, one round trip after the last.
func ackWindow(s *script, rtt time.Duration) {
	c := s.conn()
	s.now = s.now.Add(rtt)
	s.e.now = s.now
	for left := c.cwnd; left > 0; left -= c.mss {
		c.cwndLimited = true
		c.growWindow(&ackEvent{acked: c.mss, rtt: rtt, priorInFlight: c.cwnd})
	}
}

func TestNewRenoGrowsOneSegmentPerRoundTrip(t *testing.T) {
	cfg := testConfig()
	cfg.Congestion = "newreno"
	s := established(t, cfg, mss(1000))
	c := s.conn()
	c.cwnd, c.ssthresh = 20_000, 10_000
	for range 10 {
		ackWindow(s, 10*time.Millisecond)
	}
	if c.cwnd < 29_000 || c.cwnd > 31_000 {
		t.Fatalf("window %d after ten round trips from 20000", c.cwnd)
	}
}

func TestCubicReturnsToWmaxAtK(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.cwnd, c.ssthresh = 200_000, 100_000
	c.sndNxt = c.sndNxt.Add(200_000) // all in flight
	c.ssthresh = c.cc.reduce(c)
	c.sndNxt = c.sndNxt.Sub(200_000)
	if c.ssthresh != 140_000 {
		t.Fatalf("ssthresh %d, want β·cwnd", c.ssthresh)
	}
	c.cwnd = c.ssthresh
	k := math.Cbrt(200 * 0.3 / cubicC) // seconds (RFC 9438 §4.2)
	const rtt = 100 * time.Millisecond
	c.rtt.srtt = rtt
	start := s.now
	var at float64
	for c.cwnd < 199_000 && s.now.Sub(start) < time.Minute {
		ackWindow(s, rtt)
		at = s.now.Sub(start).Seconds()
	}
	if at < 0.6*k || at > 1.3*k {
		t.Fatalf("back at Wmax after %.2f s, K is %.2f s", at, k)
	}
}

func TestCubicFastConvergence(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.cubic.wMax = 300
	c.cwnd = 200_000
	c.sndNxt = c.sndNxt.Add(200_000) // all in flight
	c.cc.reduce(c)
	if c.cubic.wMax != 170 {
		t.Fatalf("Wmax %.0f, want 200·(1+β)/2", c.cubic.wMax)
	}
}

func TestHystartLeavesSlowStartWhenTheRoundTripGrows(t *testing.T) {
	cfg := testConfig()
	cfg.SendBuffer = 64 << 20
	s := established(t, cfg, mss(1000))
	c := s.conn()
	rtt := 20 * time.Millisecond
	round := func() {
		c.sndUna = c.sndNxt
		c.sndNxt = c.sndNxt.Add(uint32(c.cwnd))
		ackWindow(s, rtt)
	}
	for range 4 {
		round()
	}
	if c.hystart.inCSS {
		t.Fatal("conservative although the round trip is steady")
	}
	before := c.cwnd
	rtt = 30 * time.Millisecond
	round()
	round()
	if !c.hystart.inCSS || c.cwnd >= 4*before {
		t.Fatalf("CSS %v, window %d from %d", c.hystart.inCSS, c.cwnd, before)
	}
	for range cssMaxRounds + 1 {
		round()
	}
	if !c.hystart.finishedSS || c.ssthresh > c.cwnd {
		t.Fatalf("slow start goes on: %+v, ssthresh %d", c.hystart, c.ssthresh)
	}
}

func TestPrrSpreadsTheReduction(t *testing.T) {
	s := established(t, noTSO(), sackMSS(1000))
	c := s.conn()
	c.cwnd = 30_000
	s.after(time.Millisecond)
	c.Write(make([]byte, 120_000))
	s.flush()
	s.after(10 * time.Millisecond)
	sent := 0
	for i := 1; i < 30; i++ {
		for _, o := range s.sack(1, s.block(1001, 1001+1000*i)) {
			sent += len(o.data)
		}
		if c.inFlight() > 30_000 {
			t.Fatalf("%d in flight during recovery", c.inFlight())
		}
	}
	// Over the round trip as much is sent as the new window allows, β of the old.
	if sent < 18_000 || sent > 24_000 {
		t.Fatalf("%d bytes sent in the recovery round trip, want about 21000", sent)
	}
}

func TestRTOEstimate(t *testing.T) {
	var r rttEstimator
	r.resetRTO()
	if r.rto != time.Second {
		t.Fatalf("initial RTO %v", r.rto)
	}
	r.sample(0, 500*time.Millisecond)
	if r.srtt != 500*time.Millisecond || r.rttvar != 250*time.Millisecond || r.rto != 1500*time.Millisecond {
		t.Fatalf("after the first sample: %+v", r)
	}
	r.sample(0, 100*time.Millisecond)
	if r.srtt != 450*time.Millisecond || r.rttvar != 287500*time.Microsecond {
		t.Fatalf("after the second: srtt %v, rttvar %v", r.srtt, r.rttvar)
	}
	for range 100 {
		r.sample(0, 50*time.Microsecond)
	}
	if r.rto != minRTO {
		t.Fatalf("RTO %v, want the minimum", r.rto)
	}
	for range 20 {
		r.backOff()
	}
	if r.rto != maxRTO {
		t.Fatalf("RTO %v, want the maximum", r.rto)
	}
}

func TestMinimumRTTForgets(t *testing.T) {
	var w windowedMin
	w.update(0, 10)
	w.update(1, 30)
	if w.get() != 10 {
		t.Fatalf("minimum %v", w.get())
	}
	now := timer.Instant(0)
	for range 3 {
		now = now.Add(minRTTWindow + time.Second)
		w.update(now, 30)
	}
	if w.get() != 30 {
		t.Fatalf("minimum %v long after", w.get())
	}
}

// hystartRound has one round trip of slow start pass, with the given measure.
func hystartRound(s *script, rtt time.Duration) {
	c := s.conn()
	c.sndUna = c.sndNxt
	c.sndNxt = c.sndNxt.Add(uint32(c.cwnd))
	ackWindow(s, rtt)
}

// conservative is a script in conservative slow start (RFC 9406 §4.2).
func conservative(t *testing.T) *script {
	cfg := testConfig()
	cfg.SendBuffer = 64 << 20
	s := established(t, cfg, mss(1000))
	for range 4 {
		hystartRound(s, 20*time.Millisecond)
	}
	for range 2 {
		hystartRound(s, 30*time.Millisecond)
	}
	if !s.conn().hystart.inCSS {
		t.Fatal("not in conservative slow start")
	}
	return s
}

func TestSlowStartGoesOnIfTheRoundTripShrinksAgain(t *testing.T) {
	s := conservative(t)
	hystartRound(s, 20*time.Millisecond)
	before := s.conn().cwnd
	hystartRound(s, 20*time.Millisecond)
	if c := s.conn(); c.hystart.inCSS || c.cwnd < 2*before {
		t.Fatalf("CSS %v, window %d from %d", c.hystart.inCSS, c.cwnd, before)
	}
}

// After a loss the threshold is known, and slow start up to it is not slowed
// down by what the first one had measured.
func TestSlowStartAfterALossIsNotConservative(t *testing.T) {
	s := conservative(t)
	c := s.conn()
	c.ssthresh, c.cwnd = 1<<20, 10_000
	hystartRound(s, 30*time.Millisecond)
	if c.cwnd != 20_000 {
		t.Fatalf("window %d after a round trip from 10000", c.cwnd)
	}
}

// What goes out while duplicate acknowledgements come in is beyond the window,
// and the reduction does not start from it (RFC 5681 §3.2 step 2).
func TestReductionDoesNotCountWhatDuplicateAcksLetOut(t *testing.T) {
	for name, want := range map[string]int{"cubic": 7_000, "newreno": 5_000} {
		cfg := testConfig()
		cfg.Congestion = name
		c := established(t, cfg, mss(1000)).conn()
		c.cwnd = 10_000
		c.sndNxt = c.sndNxt.Add(16_000)
		if got := c.cc.reduce(c); got != want {
			t.Errorf("%s: ssthresh %d from a window of 10000, want %d", name, got, want)
		}
	}
}

// In recovery, cwnd is what PRR lets out at the moment. A timeout there is a
// second sign of congestion (RFC 5681 §4.3), from the first one's ssthresh.
func TestTimeoutInRecoveryReducesFromTheThreshold(t *testing.T) {
	for name, want := range map[string]int{"cubic": 14_000, "newreno": 10_000} {
		cfg := testConfig()
		cfg.Congestion = name
		c := established(t, cfg, mss(1000)).conn()
		c.recovery, c.recoverPoint = stateRecovery, c.sndNxt.Add(40_000)
		c.ssthresh, c.cwnd = 20_000, 1000
		c.sndNxt = c.sndNxt.Add(40_000)
		c.retransmitTimeout()
		if c.ssthresh != want || c.cwnd != c.mss {
			t.Errorf("%s: ssthresh %d, window %d; want %d and one segment", name, c.ssthresh, c.cwnd, want)
		}
	}
}

// After a timeout the curve starts where slow start ends (RFC 9438 §4.8).
func TestCubicAfterATimeoutStartsAtKZero(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.cwnd = 200_000
	c.sndNxt = c.sndNxt.Add(200_000)
	c.retransmitTimeout()
	c.recovery, c.cwnd = stateOpen, c.ssthresh
	c.cubic.beginEpoch(s.now, float64(c.cwnd)/1000)
	if c.cubic.k != 0 || c.cubic.wMax != 140 {
		t.Fatalf("K %.2f, Wmax %.0f segments; want 0 and 140", c.cubic.k, c.cubic.wMax)
	}
}

// At windows of a few segments a round trip acknowledges the whole ones only, each
// by itself, and still is to bring alpha: less than NewReno's segment until the
// window of before the loss is back, and that from then on (RFC 9438 §4.3).
func TestCubicGrowsByAlphaInARoundTripOfFewSegments(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	c := s.conn()
	c.cwnd, c.rtt.srtt = 3900, 100*time.Millisecond
	c.sndNxt = c.sndNxt.Add(3900) // three segments and what is none
	c.ssthresh = c.cc.reduce(c)
	c.sndNxt = c.sndNxt.Sub(3900)
	c.cwnd = c.ssthresh
	for round, want := range []float64{cubicAlpha, 1, 1, 1} { // from 2.73 to 3.26, 4.26, …
		before := float64(c.ssthresh) / 1000
		if c.cubic.inEpoch {
			before = c.cubic.wEst
		}
		for range c.cwnd / 1000 {
			c.cc.avoid(c, 1000)
		}
		// The last of a round's segments may find a larger window already.
		if grown := c.cubic.wEst - before; grown < 0.94*want || grown > 1.001*want {
			t.Errorf("round %d: grown by %.3f segments, want %.3f", round, grown, want)
		}
	}
}

// meanWindow is the mean congestion window over many losses, one after every 300
// segments, in segments.
func meanWindow(t *testing.T, congestion string) float64 {
	cfg := testConfig()
	cfg.Congestion = congestion
	s := established(t, cfg, mss(1000))
	c := s.conn()
	c.cwnd, c.ssthresh, c.rtt.srtt = 20_000, 10_000, time.Millisecond
	sum, rounds, acked := 0, 0, 0
	for range 2000 {
		acked += c.cwnd
		ackWindow(s, time.Millisecond)
		sum += c.cwnd
		rounds++
		if acked >= 300_000 {
			acked = 0
			una := c.sndNxt
			c.sndNxt = una.Add(uint32(c.cwnd))
			c.ssthresh = c.cc.reduce(c)
			c.cwnd, c.sndNxt = c.ssthresh, una
		}
	}
	return float64(sum) / float64(rounds) / 1000
}

// Over a short round trip CUBIC is in the Reno-friendly region (RFC 9438 §4.3).
func TestCubicIsLevelWithRenoWhereRoundTripsAreShort(t *testing.T) {
	cubic, reno := meanWindow(t, "cubic"), meanWindow(t, "newreno")
	if cubic < 0.95*reno || cubic > 1.3*reno {
		t.Fatalf("mean window %.1f segments, NewReno's is %.1f", cubic, reno)
	}
	t.Logf("mean window %.1f segments, NewReno's is %.1f", cubic, reno)
}
