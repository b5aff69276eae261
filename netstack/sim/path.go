package sim

import (
	"math/rand/v2"
	"time"

	"sbxnet/netstack/timer"
)

// Impairment is what one direction of the path does to frames. Probabilities
// are per frame, 0 to 1. The zero value is a perfect path without delay.
type Impairment struct {
	Loss float64
	// BurstEnter and BurstLeave are the transition probabilities of a
	// Gilbert-Elliott channel, per frame, and BurstLoss the loss in its bad
	// state.
	BurstEnter, BurstLeave, BurstLoss float64
	// Reorder frames are held back by up to ReorderBy beyond their turn.
	Reorder   float64
	ReorderBy time.Duration
	Duplicate float64
	Corrupt   float64 // one bit flipped
	Truncate  float64 // cut anywhere
	// Delay is the propagation delay; Jitter is added at random, in order.
	Delay, Jitter time.Duration
	Rate          int // bytes per second; 0: no limit
	Buffer        int // bytes waiting for their turn at Rate, beyond which frames are dropped
	// MTU is the largest IP packet that passes, 0 for any; a larger one is
	// answered with "fragmentation needed" or "packet too big".
	MTU int
}

// fate is what becomes of one frame.
type fate struct {
	lost     bool
	at       timer.Instant
	again    timer.Instant // of a second copy; 0: none
	flip     int           // bit to flip, -1: none
	truncate int           // length left, -1: all
}

// path is one direction between the stacks.
type path struct {
	Impairment
	rand *rand.Rand
	bad  bool          // Gilbert-Elliott state
	free timer.Instant // when the bottleneck has sent all that it holds
	last timer.Instant // arrival of the last frame that keeps its turn
}

// carry decides about a frame of n bytes that enters the path at now.
func (p *path) carry(now timer.Instant, n int) fate {
	f := fate{flip: -1, truncate: -1}
	if p.loses() {
		f.lost = true
		return f
	}
	out, ok := p.queue(now, n)
	if !ok {
		f.lost = true
		return f
	}
	f.at = p.arrival(out)
	if p.chance(p.Duplicate) {
		f.again = p.arrival(out)
	}
	if p.chance(p.Corrupt) {
		f.flip = p.rand.IntN(n * 8)
	}
	if p.chance(p.Truncate) {
		f.truncate = p.rand.IntN(n)
	}
	return f
}

func (p *path) chance(of float64) bool { return of > 0 && p.rand.Float64() < of }

func (p *path) loses() bool {
	if p.bad {
		p.bad = !p.chance(p.BurstLeave)
	} else {
		p.bad = p.chance(p.BurstEnter)
	}
	return p.bad && p.chance(p.BurstLoss) || p.chance(p.Loss)
}

// queue passes a frame through the bottleneck and returns when it has left it,
// or false if its buffer is full. An empty bottleneck takes any frame.
func (p *path) queue(now timer.Instant, n int) (timer.Instant, bool) {
	if p.Rate == 0 {
		return now, true
	}
	p.free = max(p.free, now)
	waiting := int(p.free.Sub(now).Seconds() * float64(p.Rate))
	if p.Buffer > 0 && waiting > 0 && waiting+n > p.Buffer {
		return 0, false
	}
	p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.Rate))
	return p.free, true
}

// arrival is when a frame that leaves the bottleneck at out reaches the far end.
func (p *path) arrival(out timer.Instant) timer.Instant {
	at := out.Add(p.Delay)
	if p.Jitter > 0 {
		at = at.Add(time.Duration(p.rand.Int64N(int64(p.Jitter))))
	}
	if p.chance(p.Reorder) && p.ReorderBy > 0 {
		return max(at, p.last).Add(time.Duration(p.rand.Int64N(int64(p.ReorderBy))))
	}
	p.last = max(p.last, at)
	return p.last
}

// longest is the longest that a frame can be on the way.
func (p *Impairment) longest() time.Duration {
	d := p.Delay + p.Jitter + p.ReorderBy
	if p.Rate > 0 {
		d += time.Duration(p.Buffer+70000) * time.Second / time.Duration(p.Rate)
	}
	return d
}
