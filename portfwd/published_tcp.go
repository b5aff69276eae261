package portfwd

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
	"sbxnet/portfwd/spec"
)

// acceptsPerTurn bounds the connections taken from one port in one turn. To connect
// a client inside takes some 20 µs, which others wait.
const acceptsPerTurn = 32

// acceptRetry is how long a port rests when there is no descriptor to accept
// with.
const acceptRetry = 100 * time.Millisecond

// listenPort is a published TCP port: a listening socket, and the places in the
// sandbox where its server may be.
type listenPort struct {
	*shard
	bound    *spec.Bound
	token    reactor.Token
	readable bool
	queued   bool
	closed   bool
	retry    timer.Timer
	// Where servers were found, over the link and by sockets inside.
	last, spliced lastTargets
}

// lastTargets are of the four kinds of clients, whose targets are in other orders:
// IPv4 or IPv6, from elsewhere or from the host's loopback.
type lastTargets [4]lastTarget

func (l *lastTargets) of(client netip.Addr) *lastTarget {
	kind := 0
	if client.Is6() {
		kind++
	}
	if client.IsLoopback() {
		kind += 2
	}
	return &l[kind]
}

// lastTarget remembers for a while which of the targets had a server. Not for
// ever: a server that was found at its second address because it was not yet
// bound to the first is to see its clients as they are.
type lastTarget struct {
	index int
	until timer.Instant // from when on the search begins with the first again
}

// rememberTarget is how long a target is tried first.
const rememberTarget = time.Second

// first is the index of the target to try first.
func (l *lastTarget) first(now timer.Instant) int {
	if now >= l.until {
		return 0
	}
	return l.index
}

// found takes note of where a search ended that began with the target first.
func (l *lastTarget) found(index, first int, now timer.Instant) {
	if index != first || now >= l.until {
		l.index, l.until = index, now.Add(rememberTarget)
	}
}

// publishTCP starts to accept on a bound socket.
func (s *shard) publishTCP(b *spec.Bound) (*listenPort, error) {
	p := &listenPort{shard: s, bound: b}
	p.retry.Expire = func(timer.Instant) { p.wake() }
	var err error
	p.token, err = s.loop.Add(b.FD, reactor.Edge, p)
	return p, err
}

// unpublish implements portServer. Clients that wait in the socket's queue are
// established to their own minds, and get in as far as one turn goes.
func (p *listenPort) unpublish() {
	p.work()
	p.closed = true
	p.timers.Disarm(&p.retry)
	p.loop.Remove(p.bound.FD, p.token)
	hostsock.StopListening(p.bound.FD)
}

// Ready implements reactor.Handler.
func (p *listenPort) Ready(reactor.Events) {
	p.readable = true
	p.wake()
}

func (p *listenPort) wake() {
	if !p.queued {
		p.queued = true
		p.schedule(p)
	}
}

// work implements worker.
func (p *listenPort) work() (again bool) {
	for range acceptsPerTurn {
		if p.closed || !p.acceptOne() {
			p.queued = false
			return false
		}
	}
	return true
}

// acceptOne takes one client and reports whether there may be another.
func (p *listenPort) acceptOne() (more bool) {
	fd, client, errno := hostsock.Accept(p.bound.FD)
	switch errno {
	case 0:
	case unix.EAGAIN:
		return false
	case unix.EMFILE, unix.ENFILE:
		p.counters.tcpOverLimit++
		if p.reserve.refuse(p.bound.FD) {
			return true
		}
		fallthrough
	default: // ENOBUFS, ENOMEM: later
		p.timers.Arm(&p.retry, p.loop.Now().Add(acceptRetry))
		return false
	}
	p.welcome(fd, client)
	return true
}

// welcome starts to connect a client to the sandbox.
func (p *listenPort) welcome(fd int, client netip.AddrPort) {
	if p.connections() >= p.cfg.Limits.TCP {
		p.counters.tcpOverLimit++
		hostsock.Reset(fd)
		return
	}
	hostsock.TuneStream(fd)
	if !p.splice(fd, client) {
		p.dialLink(fd, client)
	}
}

// dialLink connects a client to the sandbox over the link.
func (p *listenPort) dialLink(fd int, client netip.AddrPort) {
	r, err := p.newRelay(fd)
	if err != nil {
		p.log.Debug("published connection refused", slog.String("client", client.String()), slog.Any("error", err))
		return
	}
	r.writable, r.published = true, true
	r.dial = &dial{client: client}
	r.dial.begin(p.last.of(client.Addr()), p.loop.Now())
	r.dial.targets = p.policy.targets(r.dial.memory[:0], p.bound.Child, client.Addr(), p.bound.Port)
	if !r.dial.next(r) {
		r.abort()
	}
}

// search goes through the places where the server of a published port may be: it
// tries where the last one was, then the other targets in order, each after the one
// before has refused.
type search struct {
	targets []netip.AddrPort
	memory  [4]netip.AddrPort
	last    *lastTarget
	first   int // index that is tried first
	tried   int
	index   int // of the one being tried
}

func (s *search) begin(last *lastTarget, now timer.Instant) {
	s.last, s.first = last, last.first(now)
}

// next is the next target, if there is one.
func (s *search) next() (target netip.AddrPort, ok bool) {
	if s.tried >= len(s.targets) {
		return netip.AddrPort{}, false
	}
	s.index = targetOrder(s.first, s.tried)
	s.tried++
	return s.targets[s.index], true
}

// found takes note that the server was at the target that was tried last.
func (s *search) found(now timer.Instant) { s.last.found(s.index, s.first, now) }

// targetOrder is the index of the n-th target to try: the first, then the others
// as they come.
func targetOrder(first, n int) int {
	switch {
	case n == 0:
		return first
	case n <= first:
		return n - 1
	}
	return n
}

// dial looks for the server over the link.
type dial struct {
	client netip.AddrPort
	search
}

// next sends a SYN to the next target and reports whether there was one.
func (d *dial) next(r *relay) bool {
	for {
		target, ok := d.search.next()
		if !ok {
			r.conn = nil
			return false
		}
		local := netip.AddrPortFrom(r.policy.source(d.client.Addr(), target.Addr()), d.client.Port())
		conn, err := r.dialUnmet(local, target)
		for n := range portAttempts {
			if !errors.Is(err, tcp.ErrInUse) {
				break
			}
			// Clients that both appear as the gateway may have equal ports.
			local, dial := netip.AddrPortFrom(local.Addr(), otherPort()), r.dialUnmet
			if n >= portAttempts/2 {
				// Where servers close first, and many, no port is without. What is
				// left belongs to one client's address and one server at most.
				dial = r.dialFrom
			}
			conn, err = dial(local, target)
		}
		if err == nil {
			r.conn = conn
			return true
		}
		if r.debugs() {
			r.log.Debug("dial sandbox", slog.String("target", target.String()), slog.Any("error", err))
		}
	}
}

// portAttempts is how many ports are tried where a client's own is taken.
const portAttempts = 16

// otherPort is one of those that are for clients (RFC 6335 §6).
func otherPort() uint16 { return uint16(49152 + rand.IntN(16384)) }

// dialUnmet is dialFrom for a port at which the SYN meets nothing of a splice's.
func (r *relay) dialUnmet(local, target netip.AddrPort) (*tcp.Conn, error) {
	if r.ports.sockets.met(local.Port()) {
		return nil, tcp.ErrInUse
	}
	return r.dialFrom(local, target)
}

// dialFrom sends a SYN to the sandbox from an address of a client's.
func (r *relay) dialFrom(local, target netip.AddrPort) (*tcp.Conn, error) {
	k := tcpKey(local, target)
	if !r.claim(k) {
		return nil, tcp.ErrInUse
	}
	conn, err := r.stack.TCP().Dial(local, target, r)
	if err != nil && !errors.Is(err, tcp.ErrInUse) { // in use: claimed before, and rightly
		r.disclaim(k)
	}
	return conn, err
}

// reached is called when a target has answered.
func (d *dial) reached(r *relay) {
	d.found(r.loop.Now())
	r.counters.tcpPublished++
	if r.debugs() {
		r.log.Debug("connection in", slog.String("client", d.client.String()), slog.Any("flow", r))
	}
}

// failed is called when a target has not, and reports whether another is being
// tried.
func (d *dial) failed(r *relay, err error) bool {
	if !errors.Is(err, tcp.ErrRefused) && !errors.Is(err, tcp.ErrUnreachable) {
		return false
	}
	if d.next(r) {
		return true
	}
	r.counters.tcpNoServer++
	return false
}
