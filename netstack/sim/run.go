package sim

import (
	"fmt"
	"net/netip"
	"time"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// addConnection prepares connection number i and plans its beginning.
func (w *world) addConnection(i int) {
	p := w.s.Conns[i]
	dialer, acceptor := p.ends(i)
	c := &connection{plan: p}
	c.flow = &flow{conn: c}
	c.flow.key[p.Dialer], c.flow.key[1-p.Dialer] = dialer, acceptor
	w.flows[c.flow.key] = c.flow
	for j := range c.apps {
		c.apps[j] = &app{w: w, c: c, which: j, plan: p.Apps[j]}
	}
	w.conns = append(w.conns, c)
	c.progress = timer.Instant(p.At)
	w.after(p.At, func() {
		a := c.apps[p.Dialer]
		conn, err := w.ends[p.Dialer].TCP().Dial(dialer, acceptor, a)
		if err != nil {
			w.fail("dial: %v", err)
			return
		}
		a.attach(conn)
	})
}

// accepted finds the application that waits for a passively opened connection.
func (w *world) accepted(which int, c *tcp.Conn) *app {
	k := [2]netip.AddrPort{c.LocalAddr(), c.RemoteAddr()}
	if which == 1 {
		k = [2]netip.AddrPort{c.RemoteAddr(), c.LocalAddr()}
	}
	f := w.flows[k]
	if f == nil || f.conn == nil || f.conn.plan.Dialer == which {
		w.fail("stack %d: a connection came from nowhere: %v", which, k)
		return nil
	}
	a := f.conn.apps[which]
	if a.conn != nil && !f.conn.broken() && a.conn.State() != tcp.Closed {
		w.fail("conn %v stack %d: opened twice", k, which)
		return nil
	}
	if a.conn != nil {
		a.broke = true
		return nil // the dialer's late SYN; nobody wants this one
	}
	a.attach(c)
	return a
}

// opened holds a connection for as long as its plan says.
func (w *world) opened(e *end, c *tcp.Conn) {
	a := w.accepted(e.which, c)
	if a == nil {
		c.Refuse(tcp.Reset)
		return
	}
	c.SetHandler(a)
	w.after(a.c.plan.Hold, func() {
		a.c.moved(w)
		c.Accept(a)
	})
}

// accept takes a connection off the listener's queue, after a while.
func (w *world) accept(l *tcp.Listener) {
	c, ok := l.Accept()
	if !ok {
		return
	}
	a := w.accepted(1, c)
	if a == nil {
		c.Abort()
		return
	}
	w.after(a.c.plan.Hold, func() {
		a.c.moved(w)
		a.closed = false
		c.SetHandler(a)
		if s := c.State(); s != tcp.Closed {
			a.Established(c)
		}
	})
}

// check asserts what holds between events.
func (w *world) check() {
	if w.err != nil {
		return
	}
	for _, e := range w.ends {
		w.checkStack(e)
	}
	for _, c := range w.conns {
		if !c.done() {
			w.checkConnection(c)
		}
	}
}

// idleBytes is the memory that an engine may keep for later by default.
const idleBytes = 8 << 20

// checkStack bounds what a stack holds, and what it says without cause.
func (w *world) checkStack(e *end) {
	st := e.TCP().Stats()
	const chunk = 64 << 10
	w.result.Buffers[e.which] = max(w.result.Buffers[e.which], st.BufferBytes)
	send, receive := e.plan.largest()
	perConn := (send+receive)/chunk + 6
	if most := st.Connections*perConn*chunk + idleBytes; st.BufferBytes > most {
		w.fail("stack %d: %d bytes of buffers for %d connections", e.which, st.BufferBytes, st.Connections)
	}
	if st.Connections > 2*len(w.conns) { // an old SYN may open one again, for a while
		w.fail("stack %d: %d connections, planned are %d", e.which, st.Connections, len(w.conns))
	}
	// Every frame in may ask for an acknowledgement; timers and readers for a few.
	if e.acks > e.inbox+4*len(w.conns) {
		w.fail("stack %d: %d acknowledgements for %d frames", e.which, e.acks, e.inbox)
	}
}

// checkConnection asserts what a connection's end shows of itself, and that it
// gets on.
func (w *world) checkConnection(c *connection) {
	for i, a := range c.apps {
		if a.conn == nil || a.closed {
			continue
		}
		e := w.ends[i]
		send, receive := e.plan.largest()
		if n := a.conn.Buffered(); n > receive+1<<14 {
			w.fail("conn %v stack %d: %d bytes buffered of %d", c.flow.key, i, n, receive)
		}
		if n := a.conn.Unacked(); n > send {
			w.fail("conn %v stack %d: %d bytes unacknowledged of %d", c.flow.key, i, n, send)
		}
		if outstanding(a.conn) && e.NextDeadline() == timer.Never {
			w.fail("conn %v stack %d, %v: something is outstanding and no timer is armed", c.flow.key, i, a.conn.State())
		}
	}
	stall := w.now.Add(-w.jumped).Sub(c.progress)
	if most := w.patience(c); stall > most {
		w.fail("conn %v: no progress for %v with %d frames lost, states %v and %v", c.flow.key, stall, c.flow.drops(),
			c.apps[0].state(), c.apps[1].state())
	}
}

// outstanding reports whether the connection waits for its peer.
func outstanding(c *tcp.Conn) bool {
	switch c.State() {
	case tcp.SynSent, tcp.SynReceived, tcp.FinWait1, tcp.Closing, tcp.LastAck:
		return true
	case tcp.Held:
		return true
	case tcp.Closed, tcp.TimeWait:
		return false
	}
	return c.Unacked() > 0
}

func (a *app) state() string {
	if a.conn == nil {
		return "none"
	}
	return fmt.Sprintf("%v (%d written, %d unacknowledged, %d read, %d buffered)", a.conn.State(), a.written, a.conn.Unacked(),
		a.got, a.conn.Buffered())
}

// maxRTO is the longest retransmission timeout, also of the persist timer.
const maxRTO = 120 * time.Second

// patience is how long a connection may stand still: the plan's own pauses,
// and a retransmission timeout, doubled every time, for every frame lost.
func (w *world) patience(c *connection) time.Duration {
	if c.broken() {
		// The side that is left has to find out: by its retransmissions, by
		// keepalive, or by the end of FIN-WAIT-2.
		return 20*maxRTO + 2*keepIdle
	}
	pause := c.plan.Hold
	for _, a := range c.plan.Apps {
		pause = max(pause, a.PauseMax)
	}
	trip := w.s.Path[0].longest() + w.s.Path[1].longest()
	if w.s.AskNeighbors {
		trip += 4 * time.Second
	}
	rto := 2*time.Second + 8*trip + 4*pause
	// A wait R for a retransmission, and the trip before it, can look like a round
	// trip, where the echo of a timestamp was lost and came with the repetition (RFC
	// 7323 §4.1). RFC 6298 §2.2 makes 3 R of that, and §2.3 up to 3.52 R of it and
	// two short ones.
	rto = min(max(rto, 18*(c.longest+trip)/5), maxRTO)
	if w.jumped > 0 {
		rto = maxRTO // so can a jump
	}
	total := pause + trip + rto
	for range c.flow.drops() + w.loose {
		rto = min(2*rto, maxRTO)
		total += rto
	}
	return total
}

// wrapUp lets TIME-WAIT and all that is left run out, and asserts that nothing
// stays behind.
func (w *world) wrapUp() {
	w.s.Meddle = 0
	for steps := 0; w.err == nil; steps++ {
		if len(w.queue) == 0 && w.ends[0].deadline() == timer.Never && w.ends[1].deadline() == timer.Never {
			break
		}
		if steps > maxSteps {
			w.fail("the stacks do not come to rest")
		}
		w.step()
	}
	for _, e := range w.ends {
		st := e.TCP().Stats()
		if w.err == nil && (st.Connections != 0 || st.TimeWait != 0 || st.Held != 0 || st.BufferBytes > idleBytes) {
			w.fail("stack %d: left behind %d connections, %d in TIME-WAIT, %d held, %d bytes",
				e.which, st.Connections, st.TimeWait, st.Held, st.BufferBytes)
		}
	}
}

// sumUp completes the result.
func (w *world) sumUp() {
	w.result.Time = time.Duration(w.now)
	for _, c := range w.conns {
		for i := range c.apps {
			w.result.Bytes += c.apps[i].got
			if h := c.flow.half[i]; h.started && h.maxEnd < h.iss {
				w.result.Wrapped++
			}
		}
	}
}
