package tcp

import (
	"net/netip"
	"time"

	"sbxnet/netstack/timer"
)

// A buffer that is larger than the path needs makes memory cold and queues
// long; one that is smaller leaves the path idle. So each direction begins with
// a size that fills the link, and grows when more than that is seen to arrive in
// a round trip. It asks for twice what does: one half is on its way while the
// word of the other comes back, which is also what it takes to go on through
// the repair of a loss. While the sender's window still grows, as in slow start,
// it asks for up to twice that again, so as to be ahead of it.
//
// The round trip is the shortest that any connection with the same address has
// seen. With the latest one a buffer would grow for ever on a path without loss:
// more of it makes a longer queue, and that a longer round trip, in which more
// arrives; and a connection that begins while others fill the queue never sees it
// empty. Nor does the congestion window count, which on such a path grows without
// end as well.
//
// A peer can make its round trips look long. What that brings it is bounded by
// the configured sizes, and by the pressure on the memory of all connections:
// while half of that is in use, nobody has more than what all begin with.

// tuneInterval is how long bytes are counted at least. Within less, what the
// link held back and then delivered at once would look like speed.
const tuneInterval = 10 * time.Millisecond

// tuner sizes the buffer of one direction.
type tuner struct {
	size    int           // what the buffer has grown to, bytes
	since   timer.Instant // when counting began
	counted bool          // since is valid
	moved   int           // bytes since then
	last    int           // bytes per round trip, when they were counted last
	full    bool          // since then the writer has found less room than it wanted
}

// count notes n bytes that have arrived, and returns how large the buffer ought
// to be as far as they tell, 0 if they don't yet.
func (t *tuner) count(now timer.Instant, n int, rtt time.Duration) int {
	if !t.counted {
		t.counted, t.since, t.moved = true, now, 0 // when these began their way nobody knows
		return 0
	}
	t.moved += n
	elapsed := now.Sub(t.since)
	if rtt == 0 || elapsed < max(rtt, tuneInterval) {
		return 0
	}
	trip := float64(t.moved) * float64(rtt) / float64(elapsed)
	growth := 1.0
	if t.last > 0 {
		growth = min(max(trip/float64(t.last), 1), 2)
	}
	t.since, t.moved, t.last = now, 0, int(trip)
	return int(min(2*growth*trip, maxBuffer))
}

// grow makes the buffer as large as n, in whole chunks, but no larger than most.
func (t *tuner) grow(n, most int) {
	n = (n + chunkSize - 1) / chunkSize * chunkSize
	t.size = max(t.size, min(n, most))
}

// trips remembers the shortest round trips to the addresses that were met last.
// A path that becomes longer keeps its shortest one for as long.
type trips struct {
	addrs [8]netip.Addr
	least [8]*time.Duration
	next  int
}

// to returns where the shortest round trip to an address is kept; 0: none yet.
func (t *trips) to(a netip.Addr) *time.Duration {
	for i := range t.addrs {
		if t.addrs[i] == a {
			return t.least[i]
		}
	}
	i := t.next
	t.next = (i + 1) % len(t.addrs)
	t.addrs[i], t.least[i] = a, new(time.Duration)
	return t.least[i]
}

// shortestTrip is a connection's view of the shortest round trip on its path.
type shortestTrip struct {
	least *time.Duration

	// One who only receives finds it by the timestamps that the peer echoes (RFC
	// 7323 §4). Their clock is too coarse to be read, but the first segment with a
	// new value has a time of its own.
	tsval  uint32 // the newest that was sent
	echo   uint32 // the one that is waited for, first sent
	echoAt timer.Instant
	waits  bool
}

func (t *shortestTrip) sample(d time.Duration) {
	d = max(d, time.Microsecond)
	if *t.least == 0 || d < *t.least {
		*t.least = d
	}
}

// sent notes the timestamp of a segment that goes out.
func (t *shortestTrip) sent(tsval uint32, now timer.Instant) {
	if tsval == t.tsval {
		return
	}
	t.tsval = tsval
	if !t.waits {
		t.waits, t.echo, t.echoAt = true, tsval, now
	}
}

// echoed notes the timestamp that an acceptable segment echoes. One that was not
// sent yet is no echo.
func (t *shortestTrip) echoed(tsecr uint32, now timer.Instant) {
	if t.waits && int32(tsecr-t.echo) >= 0 && int32(t.tsval-tsecr) >= 0 {
		t.waits = false
		t.sample(now.Sub(t.echoAt))
	}
}

// startTuning gives both directions the size that they begin with.
func (c *Conn) startTuning() {
	e := c.engine
	c.sndTune.size, c.rcvTune.size = e.cfg.SendBuffer, e.cfg.ReceiveBuffer
	c.trip.least = e.trips.to(c.route.Remote.Addr())
}

// tuneSend notes that the peer has acknowledged n bytes. A buffer that the
// writer does not fill is large enough.
func (c *Conn) tuneSend(n int) {
	e := c.engine
	t := &c.sndTune
	want := t.count(e.now, n, *c.trip.least)
	if want == 0 {
		return
	}
	if want > t.size && t.full && !e.pool.pressed() {
		t.grow(want, e.cfg.SendBufferMax)
	}
	t.full = c.wantWrite
}

// tuneReceive notes that the handler has taken n bytes. What it leaves in the
// buffer says nothing about the path.
func (c *Conn) tuneReceive(n int) {
	e := c.engine
	want := c.rcvTune.count(e.now, n, *c.trip.least)
	if want > c.rcvTune.size && !e.pool.pressed() {
		c.rcvTune.grow(want, e.cfg.ReceiveBufferMax)
	}
}

// sendLimit is how much may be queued or unacknowledged now, in bytes. It may
// be less than what is.
func (c *Conn) sendLimit() int {
	if e := c.engine; e.pool.pressed() {
		return min(c.sndTune.size, e.cfg.SendBuffer)
	}
	return c.sndTune.size
}

// receiveLimit is how far beyond the first byte not taken the window may open
// now, in bytes. It may have opened farther.
func (c *Conn) receiveLimit() int {
	if e := c.engine; e.pool.pressed() {
		return min(c.rcvTune.size, e.cfg.ReceiveBuffer)
	}
	return c.rcvTune.size
}

// recordLimit is how many records of transmissions there may be: enough for a
// full buffer in full segments.
func (c *Conn) recordLimit() int { return max(maxSent, c.sndTune.size/recordBytes) }
