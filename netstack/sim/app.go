package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// connection is one connection of the scenario and the two applications on it,
// by stack.
type connection struct {
	plan     ConnPlan
	flow     *flow
	apps     [2]*app
	progress timer.Instant // when anything last moved, less the clock's jumps
	longest  time.Duration // that it has stood still so far
}

// broken reports whether an application has given up data on purpose, or an end
// has timed out for good reason, after which only what was read must be right.
func (c *connection) broken() bool { return c.apps[0].broke || c.apps[1].broke }

// done reports whether both ends know that it is over.
func (c *connection) done() bool {
	for _, a := range c.apps {
		if !a.closed && (a.conn != nil || !c.broken()) {
			return false
		}
	}
	return true
}

// moved notes progress.
func (c *connection) moved(w *world) {
	now := w.now.Add(-w.jumped)
	c.longest = max(c.longest, now.Sub(c.progress))
	c.progress = now
	for i := range c.flow.half {
		if h := &c.flow.half[i]; h.settled && !c.apps[i].hasUnsent() {
			h.drops = 0 // it waits for nothing, so no timer has backed off
		}
	}
}

// app is the application at one end of a connection. It implements tcp.Handler.
type app struct {
	w       *world
	c       *connection
	which   int
	plan    AppPlan
	conn    *tcp.Conn
	written int
	got     int
	stop    int // where a rude one aborts, in bytes of both directions

	pausedRead, pausedWrite bool
	closedWrite, closedAll  bool
	established, eof        bool
	closed                  bool
	broke                   bool
	err                     error
}

// patternLen is no divisor of any buffer's size, so that misplaced bytes show.
const patternLen = 65521

// pattern is what streams are made of: stream number k begins k·7919 bytes in.
var pattern = func() []byte {
	b := make([]byte, 2*patternLen)
	x := uint32(1)
	for i := range patternLen {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	copy(b[patternLen:], b[:patternLen])
	return b
}()

// at is the stream that the application writes, from off on, at most n bytes.
func (a *app) at(off, n int) []byte {
	start := (off + 7919*(a.which+1)) % patternLen
	return pattern[start : start+min(n, patternLen)]
}

// isAt reports an error unless b is the application's stream at off.
func (a *app) isAt(off int, b []byte) error {
	if off < 0 || off+len(b) > a.written {
		return fmt.Errorf("%d bytes at %d of %d written", len(b), off, a.written)
	}
	for len(b) > 0 {
		want := a.at(off, len(b))
		if !bytes.Equal(b[:len(want)], want) {
			return fmt.Errorf("bytes at %d are not those written", off)
		}
		b = b[len(want):]
		off += len(want)
	}
	return nil
}

// hasUnsent reports of an end that nothing sent waits for an acknowledgement from
// whether it has more to send: then the window is closed, and persist backs off
// (RFC 9293 §3.8.6.1) whatever the other application reads meanwhile.
func (a *app) hasUnsent() bool { return a.conn != nil && a.conn.Unacked() > 0 }

func (a *app) peer() *app { return a.c.apps[1-a.which] }

// Established implements tcp.Handler.
func (a *app) Established(c *tcp.Conn) {
	if a.established || a.closed {
		a.w.fail("Established is told twice or after Closed")
	}
	a.established = true
	a.c.moved(a.w)
	a.write()
}

// Data implements tcp.Handler.
func (a *app) Data(c *tcp.Conn, p []byte) int {
	if a.closed || a.eof || a.closedAll {
		a.w.fail("conn %v stack %d: data after the end", a.c.flow.key, a.which)
		return len(p)
	}
	if a.pausedRead {
		return 0
	}
	n := min(len(p), a.plan.ReadMax)
	a.take(p[:n])
	a.maybePauseReading(n < len(p))
	if a.mayAbort() {
		return n
	}
	return n
}

func (a *app) take(p []byte) {
	if err := a.peer().isAt(a.got, p); err != nil {
		a.w.fail("conn %v stack %d reads: %v", a.c.flow.key, a.which, err)
	}
	a.got += len(p)
	a.c.moved(a.w)
}

// maybePauseReading stops reading for a while by chance, and for an instant if
// something was left, which has to be fetched.
func (a *app) maybePauseReading(left bool) {
	switch {
	case a.w.rand.Float64() < a.plan.Pause:
		a.pausedRead = true
		a.w.after(within(a.w.rand, a.plan.PauseMax), a.resumeReading)
	case left:
		a.pausedRead = true
		a.w.after(0, a.resumeReading)
	}
}

// resumeReading fetches what the connection has buffered meanwhile.
func (a *app) resumeReading() {
	a.pausedRead = false
	if a.closed || a.closedAll {
		return
	}
	a.c.moved(a.w)
	n := 0
	for _, p := range a.conn.Peek(nil) {
		p = p[:min(len(p), a.plan.ReadMax-n)]
		a.take(p)
		n += len(p)
	}
	a.conn.Consume(n)
	if left := a.conn.Buffered(); left > 0 {
		a.maybePauseReading(true)
	}
	a.mayAbort()
}

// EOF implements tcp.Handler.
func (a *app) EOF(c *tcp.Conn) {
	p := a.peer()
	if a.eof || a.closed || !p.closedWrite || a.got != p.written {
		a.w.fail("conn %v stack %d: end of stream after %d of %d bytes", a.c.flow.key, a.which, a.got, p.written)
	}
	a.eof = true
	a.c.moved(a.w)
	a.maybeClose()
}

// Writable implements tcp.Handler.
func (a *app) Writable(c *tcp.Conn) { a.write() }

// write writes on until the buffer is full, the plan pauses or all is written.
func (a *app) write() {
	if a.pausedWrite || a.closedWrite || a.closed || !a.established {
		return
	}
	for a.written < a.plan.Send {
		n := min(a.plan.Send-a.written, 1+a.w.rand.IntN(a.plan.WriteMax))
		p := a.at(a.written, n)
		// The bytes may be on the wire before Write returns nowhere, but count
		// them first all the same: the observer compares against written.
		n = a.conn.Write(p)
		a.written += n
		if n > 0 {
			a.c.moved(a.w)
		}
		if n < len(p) {
			return // Writable will be called
		}
		if a.mayAbort() {
			return
		}
		if a.w.rand.Float64() < a.plan.Pause {
			a.pausedWrite = true
			a.w.after(within(a.w.rand, a.plan.PauseMax), func() {
				a.pausedWrite = false
				a.c.moved(a.w)
				a.write()
			})
			return
		}
	}
	a.closedWrite = true
	a.conn.CloseWrite()
	a.maybeClose()
}

// maybeClose closes both directions when the plan's time for that has come.
func (a *app) maybeClose() {
	if a.closedAll || !a.closedWrite || a.closed {
		return
	}
	if !a.eof {
		if a.plan.Close != Hasty {
			return
		}
		a.broke = true // what the other side still writes is lost
	}
	a.closedAll = true
	a.conn.Close()
}

// mayAbort aborts a rude application's connection when it has come to its stop.
func (a *app) mayAbort() bool {
	if a.plan.Close != Rude || a.closed || a.closedAll || a.written+a.got < a.stop {
		return false
	}
	a.broke, a.closedAll, a.closedWrite = true, true, true
	a.conn.Abort()
	return true
}

// timeoutDrops is the least number of frames that must be lost for a timeout to
// be in order. The SYN-ACK and its repetitions would be 6; keepalive counts on
// from before an old segment that passes for progress here.
const timeoutDrops = 5

// handshakeTries is how often a listener sends its SYN-ACK before it forgets the
// SYN without telling its application. As many frames must be lost: each, or the
// answer to it.
const handshakeTries = 6

// forgotten reports whether the other end's listener has given up the handshake,
// as it heard no answer; what comes afterwards is then reset (RFC 9293
// §3.10.7.1).
func (a *app) forgotten() bool {
	if h := &a.c.flow.half[1-a.which]; min(h.asked, h.ignored) < handshakeTries && a.w.loose < timeoutDrops {
		return false
	}
	return a.which == 0 && a.c.plan.Dialer == 0 && a.peer().conn == nil // stack 1 listens
}

// orphanPatience is how long the window must stay closed for an orphan to be
// given up though its peer answers: ten probes, from 200 ms on doubled every time.
const orphanPatience = 1023 * 200 * time.Millisecond

// starved reports whether the end's application has gone, and the peer has not
// opened the window to what it left for so long that the stack lets go of it,
// as RFC 6429 leaves it to do and Linux does (net/ipv4/tcp_timer.c, tcp_probe_timer).
func (a *app) starved() bool {
	h := &a.c.flow.half[a.which]
	return a.closedAll && h.settled && !h.fin && a.w.now.Add(-a.w.jumped).Sub(h.edgeAt) >= orphanPatience
}

// Closed implements tcp.Handler.
func (a *app) Closed(c *tcp.Conn, err error) {
	if a.closed {
		a.w.fail("Closed is told twice")
	}
	a.closed, a.err = true, err
	defer a.c.moved(a.w)
	switch {
	case a.c.broken():
		return
	case errors.Is(err, tcp.ErrReset) && a.forgotten():
		a.broke = true
		a.w.result.Timeouts++
	case errors.Is(err, tcp.ErrTimeout) || errors.Is(err, tcp.ErrUnreachable):
		if max(a.c.flow.drops(), a.c.flow.half[a.which].missed) < timeoutDrops && a.w.loose < timeoutDrops && !a.starved() {
			a.w.fail("conn %v stack %d: %v with %d frames lost since progress", a.c.flow.key, a.which, err, a.c.flow.drops())
		}
		a.broke = true
		a.w.result.Timeouts++
	case err != nil:
		a.w.fail("conn %v stack %d: %v, and nobody broke it off", a.c.flow.key, a.which, err)
	case !a.eof || !a.closedWrite || a.written != a.plan.Send:
		a.w.fail("conn %v stack %d: closed in good order after %d of %d bytes written, %d of %d read, end of stream %v",
			a.c.flow.key, a.which, a.written, a.plan.Send, a.got, a.peer().written, a.eof)
	}
}

// The keepalive of every connection: one whose peer has timed out must end too.
const (
	keepIdle     = 2 * time.Minute
	keepInterval = 15 * time.Second
	keepCount    = 8
)

// attach gives the application its connection.
func (a *app) attach(c *tcp.Conn) {
	a.conn = c
	if a.plan.Close == Rude {
		a.stop = a.w.rand.IntN(a.plan.Send + a.peer().plan.Send + 1)
	}
	c.SetKeepAlive(keepIdle, keepInterval, keepCount)
}
