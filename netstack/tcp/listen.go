package tcp

import (
	"net/netip"
	"slices"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Listener takes connections to one address and port. As on Linux, backlog
// bounds two queues: the half-open connections, beyond which cookies serve, and
// the established ones nobody has accepted, which may be one more than backlog.
type Listener struct {
	engine   *Engine
	local    netip.AddrPort
	backlog  int
	halfOpen int
	queue    []*Conn
	notify   func()
	pending  map[*Conn]struct{} // half-open, for Close

	lastCookie timer.Instant // when a cookie was last given out
	cookies    bool          // one ever was
}

// Listen takes connections to local, whose address may be unspecified: all
// addresses of its family. A backlog below 0 counts as 0. It fails with
// ErrAddress or ErrInUse.
func (e *Engine) Listen(local netip.AddrPort, backlog int) (*Listener, error) {
	local = unmap(local)
	if !local.IsValid() || local.Port() == 0 {
		return nil, ErrAddress
	}
	if e.listeners[local] != nil {
		return nil, ErrInUse
	}
	l := &Listener{engine: e, local: local, backlog: max(backlog, 0), pending: map[*Conn]struct{}{}}
	e.listeners[local] = l
	return l, nil
}

// findListener returns the listener for a local end: of the address, else of
// all addresses.
func (e *Engine) findListener(local netip.AddrPort) *Listener {
	if len(e.listeners) == 0 {
		return nil
	}
	if l := e.listeners[local]; l != nil {
		return l
	}
	any := netip.IPv6Unspecified()
	if local.Addr().Is4() {
		any = netip.IPv4Unspecified()
	}
	return e.listeners[netip.AddrPortFrom(any, local.Port())]
}

// Addr is what the listener listens on.
func (l *Listener) Addr() netip.AddrPort { return l.local }

// Accept takes the oldest established connection off the accept queue, and
// reports whether there was one. Its handler is set with [Conn.SetHandler]; what
// arrives until then is buffered.
func (l *Listener) Accept() (*Conn, bool) {
	if len(l.queue) == 0 {
		return nil, false
	}
	c := l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	c.listener = nil
	return c, true
}

// SetNotify has f called, from Engine.Input, whenever a connection joins the
// accept queue.
func (l *Listener) SetNotify(f func()) { l.notify = f }

// Close stops listening and resets the connections nobody accepted.
func (l *Listener) Close() {
	e := l.engine
	if e.listeners[l.local] != l {
		return
	}
	delete(e.listeners, l.local)
	for c := range l.pending {
		c.reset(ErrAborted)
	}
	for _, c := range slices.Clone(l.queue) {
		c.reset(ErrAborted)
	}
}

// hasRoom reports whether the accept queue takes another connection.
func (l *Listener) hasRoom() bool { return len(l.queue) <= l.backlog }

// inputSYN is RFC 9293 §3.10.7.2, third.
func (l *Listener) inputSYN(k flowKey, s *segment) {
	e := l.engine
	switch {
	case !l.hasRoom():
		e.stats.Drops.ListenFull++
	case e.full():
		e.stats.Drops.TooMany++
	case l.halfOpen > l.backlog:
		l.sendCookie(k, s)
	default:
		o := openOf(s)
		c := e.newPassive(k, &o)
		l.adopt(c)
		c.becomeSynReceived()
	}
}

func (l *Listener) adopt(c *Conn) {
	c.listener = l
	c.attach()
	l.halfOpen++
	l.pending[c] = struct{}{}
}

// established moves a connection to the accept queue.
func (l *Listener) established(c *Conn) {
	l.halfOpen--
	delete(l.pending, c)
	l.queue = append(l.queue, c)
	if l.notify != nil {
		l.notify()
	}
}

// forget removes a connection that has ended before it was accepted.
func (l *Listener) forget(c *Conn) {
	if _, half := l.pending[c]; half {
		delete(l.pending, c)
		l.halfOpen--
	} else if i := slices.Index(l.queue, c); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	c.listener = nil
}

// inputACK handles an ACK that no connection claims: the reply to a cookie, or
// a stray. It reports false for a stray.
func (l *Listener) inputACK(k flowKey, s *segment) bool {
	o, ok := l.checkCookie(k, s)
	if !ok {
		return false
	}
	e := l.engine
	if !l.hasRoom() || e.full() {
		e.stats.Drops.ListenFull++
		return true // silently: the client's data will bring it again
	}
	c := e.newPassive(k, &o)
	c.startSendingAt(s.ack.Sub(1))
	c.retries = 1 // the round trip is not known
	l.adopt(c)
	c.state = SynReceived
	c.rcvAdv = c.rcvNxt.Add(uint32(min(e.cfg.ReceiveBuffer, 0xffff)))
	s.flags &^= header.SYN
	c.input(s)
	return true
}
