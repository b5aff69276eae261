package portfwd

import (
	"log/slog"

	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
)

// A splice is a published connection that does without the link: the client's
// socket, accepted on the host, and one that was made inside the sandbox and is
// connected to the server there. Bytes go from one to the other by splice(2).
//
// The server sees what it would see of a [relay]: the socket inside is
// transparent, and bound to the address and port under which the client appears
// on the link; a rule inside has the answers come back to it
// (userns.Sandbox.Sockets).
//
//	accept ─▶ connect to a target ─┬─▶ open ─▶ both ends of stream passed ─▶ closed
//	                               ├─▶ refused, or no sockets of its family: next
//	                               │   target; none: over the link
//	                               └─▶ any other error, no answer: over the link
//
// That none has accepted need not be the last word: a server may be bound to the
// link's interface, and rules inside may send what comes by the link elsewhere.
type splice struct {
	*shard
	client, server spliceEnd
	in, out        spliceWay // to the server, and to the client

	dial     *spliceDial   // nil once connected
	diverted *divertedConn // of a relay that has left the link, else nil
	// broken: an end does not take any more, and what it said before is being
	// passed on.
	broken bool
	queued bool   // on the ready list
	open   bool   // a server has answered
	port   uint16 // that the client has inside

	used timer.Instant // when payload moved last
	idle timer.Timer
}

// spliceEnd is one of its sockets.
type spliceEnd struct {
	of                 *splice
	fd                 int // -1 once closed
	token              reactor.Token
	readable, writable bool // until EAGAIN
	hung               bool // as a relay's
}

// spliceWay is one of its directions.
type spliceWay struct {
	from, to *spliceEnd
	moved    *uint64       // the statistic
	pipe     hostsock.Pipe // while bulk is moved
	held     int           // bytes in pipe
	bulk     bool          // there is enough at a time for a pipe
	ended    bool          // the end of stream was passed on
}

// newSplice is for a client that was accepted.
func (s *shard) newSplice(client int) *splice {
	c := &splice{shard: s}
	c.client = spliceEnd{of: c, fd: client, readable: true, writable: true}
	c.server = spliceEnd{of: c, fd: -1}
	c.in = spliceWay{from: &c.client, to: &c.server, moved: &s.counters.toGuest}
	c.out = spliceWay{from: &c.server, to: &c.client, moved: &s.counters.toHost}
	if s.splices.all == nil {
		s.splices.all = make(map[*splice]struct{})
	}
	s.splices.all[c] = struct{}{}
	c.idle.Expire = c.lookIdle
	return c
}

// Ready implements reactor.Handler.
func (e *spliceEnd) Ready(ev reactor.Events) {
	e.readable = e.readable || ev.Readable()
	e.writable = e.writable || ev.Writable()
	e.hung = e.hung || ev.ShortReads()
	c := e.of
	if c.dial != nil && e == &c.client {
		if ev.HungUp() { // the client reset its connection before there was a server
			c.reset()
		}
		return
	}
	c.wake()
}

// wake puts the splice on the ready list.
func (c *splice) wake() {
	if !c.queued && c.client.fd >= 0 {
		c.queued = true
		c.schedule(c)
	}
}

// work implements worker.
func (c *splice) work() (again bool) {
	c.queued = false
	switch {
	case c.client.fd < 0:
		return false
	case c.dial != nil:
		c.connected()
		return false
	}
	again = c.move(&c.in)
	if c.move(&c.out) || again {
		c.wake()
	}
	return false
}

// register has the loop report what happens to a socket.
func (e *spliceEnd) register() error {
	if e.token != (reactor.Token{}) {
		return nil
	}
	var err error
	e.token, err = e.of.loop.Add(e.fd, reactor.Edge, e)
	return err
}

// close closes a socket in the way of how, if it is open.
func (e *spliceEnd) close(how func(int)) {
	if e.fd < 0 {
		return
	}
	e.of.loop.Forget(e.token)
	how(e.fd)
	e.fd, e.token = -1, reactor.Token{}
}

// finish ends the splice: the kernel has all that was said, and sees to the rest.
func (c *splice) finish() { c.end(hostsock.Close, c.leaveInside) }

// reset passes on that an end was reset, or resets both.
func (c *splice) reset() { c.end(hostsock.Reset, c.resetInside) }

func (c *splice) end(client func(int), inside func()) {
	c.client.close(client)
	inside()
	c.forget()
}

// leaveInside closes the socket inside.
func (c *splice) leaveInside() {
	if c.diverted != nil {
		c.diverted.leave(c.server.letGo())
		return
	}
	c.server.close(hostsock.CloseForeign)
}

// resetInside closes the socket inside, and resets its connection.
func (c *splice) resetInside() {
	if c.diverted != nil {
		c.diverted.reset(c.server.letGo())
		return
	}
	c.server.close(hostsock.Reset)
}

// letGo takes a socket out of the loop. It is the caller's, open.
func (e *spliceEnd) letGo() (fd int) {
	fd = e.fd
	e.of.loop.Remove(fd, e.token)
	e.fd, e.token = -1, reactor.Token{}
	return fd
}

// forget takes the splice out of the shard's books. A socket that is still open is
// the caller's.
func (c *splice) forget() {
	for _, w := range []*spliceWay{&c.in, &c.out} {
		c.letGo(w)
	}
	c.timers.Disarm(&c.idle)
	delete(c.splices.all, c)
	delete(c.splices.waiting, c)
	if c.open {
		c.ports.sockets.exit(c.port)
	}
}

// abandon ends the splice because the forwarder ends. A stream that the sandbox
// has finished is the host kernel's to deliver; a reset would discard it.
func (c *splice) abandon() {
	if c.out.ended {
		c.end(hostsock.Close, c.resetInside)
		return
	}
	c.reset()
}

// inFlight reports whether the sandbox has not ended its stream.
func (c *splice) inFlight() bool { return c.dial == nil && !c.out.ended }

// close ends all of a shard's splices.
func (t *spliceTable) close() {
	for c := range t.all {
		c.abandon()
	}
	for _, p := range t.pipes {
		p.Close()
	}
	t.pipes, t.buffer = nil, nil
}

// LogValue implements slog.LogValuer.
func (c *splice) LogValue() slog.Value {
	if c.server.fd < 0 {
		return slog.StringValue("tcp")
	}
	return slog.GroupValue(slog.String("sandbox", hostsock.RemoteAddr(c.server.fd).String()),
		slog.String("peer", hostsock.LocalAddr(c.server.fd).String()))
}

// connections counts those relayed and spliced, which have one limit.
func (s *shard) connections() int { return len(s.relays) + len(s.splices.all) }
