package tcp

import "sbxnet/netstack/timer"

// ackLimiter bounds the acknowledgements that one connection can be made to
// send by segments it does not accept (RFC 5961 §10).
type ackLimiter struct {
	since timer.Instant
	n     int
}

func (l *ackLimiter) allow(now timer.Instant) bool {
	if l.n == 0 || now.Sub(l.since) >= challengeSlot {
		l.since, l.n = now, 0
	}
	l.n++
	return l.n <= challengeMax
}
