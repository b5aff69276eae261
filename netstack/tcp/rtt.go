package tcp

import (
	"time"

	"sbxnet/netstack/timer"
)

// rttEstimator is the round-trip estimate and the retransmission timeout made
// from it (RFC 6298). Samples are in nanoseconds of the owner's clock, from
// records that were sent once (Karn) or from timestamps.
type rttEstimator struct {
	srtt, rttvar time.Duration
	rto          time.Duration // with back-off
	min          windowedMin
	sampled      bool
}

// sample takes one measurement (RFC 6298 §2.2, §2.3). It also ends back-off.
func (r *rttEstimator) sample(now timer.Instant, rtt time.Duration) {
	rtt = max(rtt, time.Microsecond)
	r.min.update(now, rtt)
	if !r.sampled {
		r.sampled = true
		r.srtt, r.rttvar = rtt, rtt/2
	} else {
		diff := r.srtt - rtt
		if diff < 0 {
			diff = -diff
		}
		r.rttvar += (diff - r.rttvar) / 4
		r.srtt += (rtt - r.srtt) / 8
	}
	r.resetRTO()
}

// resetRTO drops the back-off.
func (r *rttEstimator) resetRTO() {
	if !r.sampled {
		r.rto = initialRTO
		return
	}
	r.rto = min(max(r.srtt+max(time.Millisecond, 4*r.rttvar), minRTO), maxRTO)
}

// backOff doubles the timeout (RFC 6298 §5.5).
func (r *rttEstimator) backOff() { r.rto = min(2*r.rto, maxRTO) }

// windowedMin is the least value of the last five minutes or so: two halves,
// the older of which is dropped when the newer is full (RFC 8985 §6.2 step 1).
type windowedMin struct {
	since     timer.Instant
	cur, prev time.Duration // 0: none
}

const minRTTWindow = 150 * time.Second

func (w *windowedMin) update(now timer.Instant, v time.Duration) {
	if w.cur == 0 || now.Sub(w.since) > minRTTWindow {
		w.prev, w.cur, w.since = w.cur, v, now
		return
	}
	w.cur = min(w.cur, v)
}

func (w *windowedMin) get() time.Duration {
	if w.prev != 0 && w.prev < w.cur {
		return w.prev
	}
	return w.cur
}
