package portfwd

import (
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// spliceDial looks for the server of a published port by sockets inside, where
// [dial] does it over the link.
type spliceDial struct {
	port   *listenPort
	client netip.AddrPort
	target netip.AddrPort // that is being tried
	waits  bool           // or has waited: the time runs
	asked  timer.Instant  // when the SYN was sent
	search
}

// splice connects a client to the sandbox without the link, if it can, and else
// over the link. It reports whether it could try.
func (p *listenPort) splice(fd int, client netip.AddrPort) bool {
	if p.ports.sockets == nil || !p.policy.within(p.bound.Child) || p.ports.sockets.crowded() {
		return false
	}
	c := p.newSplice(fd)
	c.dial = &spliceDial{port: p, client: client}
	c.dial.begin(p.spliced.of(client.Addr()), p.loop.Now())
	c.dial.targets = p.policy.spliceTargets(c.dial.memory[:0], p.bound.Child, client.Addr(), p.bound.Port)
	c.next()
	return true
}

// within reports whether child leaves it to us where in the sandbox the server is, or
// is the sandbox's own address. What is behind that, such as a container, a socket
// inside would not find; on loopback it would find the proxies that container engines
// put there, where their rules for what comes by the link keep the client's address.
func (p *policy) within(child netip.Addr) bool {
	return !child.IsValid() || child == p.ipv4.Sandbox || child == p.ipv6.Sandbox
}

// spliceTargets are targets, and at last ::1, where no link leads.
func (p *policy) spliceTargets(to []netip.AddrPort, child, client netip.Addr, port uint16) []netip.AddrPort {
	to = p.targets(to, child, client, port)
	if !child.IsValid() && p.ipv6.enabled() {
		to = append(to, netip.AddrPortFrom(loopback6, port))
	}
	return to
}

// next connects to the next target, up to where something has to be waited for.
func (c *splice) next() {
	for {
		target, ok := c.dial.search.next()
		if !ok {
			c.overLink()
			return
		}
		// A link-local address without its link is no socket's: that of a gateway.
		if source := c.source(target); source.Is4() || !source.IsLinkLocalUnicast() {
			c.dial.target = target
			c.try()
			return
		}
	}
}

// try connects to a target, and the next ones if that refuses.
func (c *splice) try() {
	switch errno := c.connect(c.dial.target); errno {
	case unix.EAGAIN:
		if c.splices.waiting == nil {
			c.splices.waiting = make(map[*splice]struct{})
		}
		c.splices.waiting[c] = struct{}{}
		c.await()
	case unix.EINPROGRESS:
		c.dial.asked = c.loop.Now()
		c.await()
	case unix.ENOBUFS:
		if c.server.fd < 0 && !c.seenAsItself(c.dial.target) {
			c.next() // which may be of the family that there are sockets of
			return
		}
		fallthrough
	default:
		c.decide(errno)
	}
}

// source is the address from which a server at target sees the client.
func (c *splice) source(target netip.AddrPort) netip.Addr {
	return c.policy.source(c.dial.client.Addr(), target.Addr())
}

// seenAsItself reports whether a server at target sees the client's own address. One
// that is bound to both families would not, at the next target; so the link has it.
func (c *splice) seenAsItself(target netip.AddrPort) bool {
	return c.source(target) == c.dial.client.Addr()
}

// trySplices is called when there are sockets again.
func (s *shard) trySplices() {
	waiting := s.splices.waiting
	s.splices.waiting = nil
	for c := range waiting {
		c.try()
	}
}

// spliceAttempts is how many ports are tried where a client's own is taken: each may
// cost a socket, and the link has more to offer.
const spliceAttempts = 4

// connect starts to connect a socket inside to target, from where the client is
// seen. Between two ends of one machine that is done when it returns, as a rule.
func (c *splice) connect(target netip.AddrPort) (errno unix.Errno) {
	from := netip.AddrPortFrom(c.source(target), c.dial.client.Port())
	for range spliceAttempts {
		if c.server.fd < 0 {
			fd, errno := c.ports.sockets.take(c.shard, target.Addr().Is6())
			if errno != 0 {
				return errno
			}
			c.server = spliceEnd{of: c, fd: fd, writable: true}
		}
		c.port = from.Port()
		if errno = hostsock.BindTo(c.server.fd, from); errno == 0 {
			errno = hostsock.ConnectTo(c.server.fd, target)
			if errno == unix.EADDRNOTAVAIL { // the two ends have a connection
				c.server.close(hostsock.CloseForeign) // it cannot be bound again
				errno = unix.EADDRINUSE
			}
		}
		switch errno {
		case unix.EADDRINUSE:
		case unix.EINPROGRESS:
			if outcome, over := hostsock.Outcome(c.server.fd); over {
				errno = outcome
			}
			return errno
		default:
			return errno
		}
		// Clients that both appear as the gateway may have equal ports.
		from = netip.AddrPortFrom(from.Addr(), otherPort())
	}
	return errno
}

// await has the loop report the outcome, or the client's reset. The time that a client
// waits runs from the first time on.
func (c *splice) await() {
	err := c.client.register()
	if err == nil && c.server.fd >= 0 {
		c.server.writable = false
		err = c.server.register()
	}
	if err != nil {
		c.overLink()
		return
	}
	if !c.dial.waits {
		c.dial.waits = true
		c.watch()
	}
}

// connected looks how a connect ended that was in progress.
func (c *splice) connected() {
	if !c.server.writable {
		return
	}
	errno, over := hostsock.Outcome(c.server.fd)
	if !over {
		c.server.writable = false
		return
	}
	c.decide(errno)
}

// decide goes on after the outcome of a connect.
func (c *splice) decide(errno unix.Errno) {
	switch errno {
	case 0:
		c.start()
	case unix.ECONNRESET: // unlike a refusal this comes after the handshake
		c.reached()
		c.reset()
	case unix.ECONNREFUSED:
		c.server.close(hostsock.CloseForeign)
		c.next()
	default:
		if c.debugs() {
			c.log.Debug("connect inside", slog.String("client", c.dial.client.String()), slog.String("error", errno.Error()))
		}
		c.overLink()
	}
}

// reached is called when a target has answered.
func (c *splice) reached() {
	d := c.dial
	c.dial = nil
	d.found(c.loop.Now())
	c.ports.sockets.answered(true)
	c.ports.sockets.enter(c.port)
	c.open = true
	c.counters.tcpPublished++
	c.counters.tcpSpliced++
	if c.debugs() {
		c.log.Debug("connection in, spliced", slog.String("client", d.client.String()), slog.Any("flow", c))
	}
}

// start begins to pass on what the ends say.
func (c *splice) start() {
	c.reached()
	hostsock.TuneStream(c.server.fd)
	if c.client.register() != nil || c.server.register() != nil {
		c.reset()
		return
	}
	c.watch()
	c.wake()
}

// noAnswer is called when a SYN was not answered: the sandbox's rules are not what
// they were, or a server has more clients waiting than it lets. Or no socket came, or
// so late that silence says nothing.
func (c *splice) noAnswer() {
	if c.server.fd >= 0 && c.loop.Now().Sub(c.dial.asked) >= c.idleLimit()/2 {
		c.ports.sockets.answered(false)
	}
	c.overLink()
}

// overLink lets the client try the link's way.
func (c *splice) overLink() {
	d, fd := c.dial, c.client.fd
	c.server.close(hostsock.Reset)
	c.loop.Remove(fd, c.client.token)
	c.client.fd = -1
	c.forget()
	d.port.dialLink(fd, d.client)
}
