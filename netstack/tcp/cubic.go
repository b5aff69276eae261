package tcp

import (
	"math"
	"time"

	"sbxnet/netstack/timer"
)

// cubic is the congestion control of RFC 9438.
type cubic struct{}

// cubicState is a connection's. Windows are in segments, times in seconds, as
// in the RFC's formulas.
type cubicState struct {
	wMax       float64
	k          float64
	epoch      timer.Instant
	inEpoch    bool
	epochCwnd  float64
	wEst       float64
	priorCwnd  float64
	credit     int     // NewReno's bytes towards the next segment
	fractional float64 // growth not yet a whole byte
}

const (
	cubicBeta  = 0.7
	cubicC     = 0.4
	cubicAlpha = 3 * (1 - cubicBeta) / (1 + cubicBeta)
)

func (cubic) avoid(c *Conn, n int) {
	s := &c.cubic
	mss := float64(c.mss)
	cwnd := float64(c.cwnd) / mss
	now := c.engine.now
	if !s.inEpoch {
		s.beginEpoch(now, cwnd)
	}
	t := now.Sub(s.epoch).Seconds()
	acked := float64(n) / mss

	// RFC 9438 §4.3: what Reno would have.
	alpha := cubicAlpha
	if s.wEst >= s.priorCwnd {
		alpha = 1
	}
	// A round trip acknowledges the whole segments of the window: with its
	// fraction counted too, alpha would take longer than one.
	s.wEst += alpha * acked / max(1, math.Floor(cwnd))
	if w := s.at(t); w < s.wEst {
		s.apply(c, max(s.wEst-cwnd, 0)*mss)
		return
	}
	// §4.4, §4.5: towards where the curve is one round trip from now.
	target := min(max(s.at(t+c.rtt.srtt.Seconds()), cwnd), 1.5*cwnd)
	s.apply(c, (target-cwnd)/cwnd*acked*mss)
}

func (s *cubicState) apply(c *Conn, bytes float64) {
	s.fractional += bytes
	whole := int(min(s.fractional, float64(c.cwnd)))
	s.fractional = max(0, s.fractional-float64(whole))
	if s.fractional > float64(c.mss) {
		s.fractional = 0
	}
	c.setCwnd(c.cwnd + whole)
}

func (s *cubicState) beginEpoch(now timer.Instant, cwnd float64) {
	s.inEpoch, s.epoch, s.epochCwnd, s.wEst = true, now, cwnd, cwnd
	s.k = 0
	if s.wMax > cwnd {
		s.k = math.Cbrt((s.wMax - cwnd) / cubicC)
	} else {
		s.wMax = cwnd
	}
}

// at is W_cubic(t) (RFC 9438 §4.2).
func (s *cubicState) at(t float64) float64 {
	d := t - s.k
	return cubicC*d*d*d + s.wMax
}

func (cubic) reduce(c *Conn) int {
	s := &c.cubic
	window := c.windowAtLoss()
	cwnd := float64(window) / float64(c.mss)
	s.inEpoch = false
	s.priorCwnd = math.Floor(cwnd) // the segments that were in use
	// Fast convergence (RFC 9438 §4.7): release bandwidth to newer flows.
	if cwnd < s.wMax {
		s.wMax = cwnd * (1 + cubicBeta) / 2
	} else {
		s.wMax = cwnd
	}
	return max(int(float64(window)*cubicBeta), 2*c.mss)
}

// timeout forgets where the window was: the first congestion avoidance after a
// timeout starts at K = 0 from where slow start ends (RFC 9438 §4.8).
func (cubic) timeout(c *Conn) { c.cubic.wMax = 0 }

// resume keeps idle time out of the epoch (RFC 9438 §5.8).
func (cubic) resume(c *Conn, idle time.Duration) {
	if c.cubic.inEpoch {
		c.cubic.epoch = c.cubic.epoch.Add(idle)
	}
}
