package timer

import (
	"math"
	"time"
)

// Instant is a point on a monotonic clock, in nanoseconds since an origin that
// only the owner of the stack knows. Zero is a valid instant.
type Instant int64

// Never is later than every instant.
const Never Instant = math.MaxInt64

// Add returns the instant d after t, saturating at Never.
func (t Instant) Add(d time.Duration) Instant {
	if s := t + Instant(d); d <= 0 || s >= t {
		return s
	}
	return Never
}

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Before reports whether t lies before u.
func (t Instant) Before(u Instant) bool { return t < u }
