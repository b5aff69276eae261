package netstack

import (
	"time"

	"sbxnet/netstack/timer"
)

// bucket is a token bucket: one token per interval, at most burst of them.
type bucket struct {
	interval time.Duration
	burst    int
	tokens   int
	last     timer.Instant // up to when tokens have been credited
	started  bool
}

func newBucket(perSecond, burst int) bucket {
	return bucket{interval: max(time.Second/time.Duration(perSecond), 1), burst: burst, tokens: burst}
}

// take takes a token if there is one.
func (b *bucket) take(now timer.Instant) bool {
	if !b.started {
		b.started, b.last = true, now
	}
	if n := int64(now.Sub(b.last) / b.interval); n > 0 {
		b.tokens = int(min(int64(b.tokens)+n, int64(b.burst)))
		b.last = b.last.Add(time.Duration(n) * b.interval)
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}
