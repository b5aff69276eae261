package portfwd

import (
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/tcp"
	"sbxnet/portfwd/hostsock"
)

// Outbound is where a family's traffic leaves the host: from an address of the
// host's, by an interface, or both. The zero Outbound leaves it to the host's
// routes.
type Outbound struct {
	Addr      netip.Addr
	Interface string
}

func (o Outbound) check(ipv4 bool) error {
	switch {
	case len(o.Interface) >= unix.IFNAMSIZ:
		return fmt.Errorf("portfwd: %q is too long for the name of a network interface", o.Interface)
	case o.Addr.IsValid() && (o.Addr.Is4() != ipv4 || o.Addr.IsUnspecified() || o.Addr.IsMulticast() || o.Addr.Is4In6() || o.Addr.Zone() != ""):
		return fmt.Errorf("portfwd: %v is no address for traffic to leave from", o.Addr)
	}
	return nil
}

// Probe reports why traffic could not leave from there now: the host has no such
// address or interface. A Forwarder does not ask, since that may change.
func (o Outbound) Probe() error {
	to := loopback6
	if o.Addr.Is4() || !o.Addr.IsValid() {
		to = loopback4
	}
	errno := hostsock.Probe(to, (*hostsock.Source)(&o))
	switch {
	case errno == 0:
		return nil
	case errno == unix.ENODEV:
		return fmt.Errorf("this host has no network interface %q: name one that it has", o.Interface)
	case errno == unix.EADDRNOTAVAIL:
		return fmt.Errorf("this host has no address %v: name one that it has", o.Addr)
	}
	return fmt.Errorf("send from %v %s: %w", o.Addr, o.Interface, errno)
}

// OpenTCP implements netstack.Handler: the sandbox connects to somewhere. Its
// SYN is answered when the host's connect is.
func (s *shard) OpenTCP(c *tcp.Conn) {
	if s.cfg.NoTCP {
		s.counters.tcpDenied++
		s.refused(c, tcp.Silent, "not permitted")
		return
	}
	to, v := s.policy.destination(c.LocalAddr())
	if v != allow {
		s.counters.tcpDenied++
		s.refused(c, v.refusal(), "not permitted")
		return
	}
	if s.connections() >= s.cfg.Limits.TCP {
		s.counters.tcpOverLimit++
		s.refused(c, tcp.Reset, "too many connections")
		return
	}
	k := tcpKey(c.LocalAddr(), c.RemoteAddr())
	if !s.claim(k) {
		// Another shard is not done with a connection between the same ends. The
		// sandbox's next SYN is handed over to it.
		s.refused(c, tcp.Silent, "being closed on another shard")
		return
	}
	ttl := synTTL(s.stack.InputTTL())
	fd, errno := hostsock.Connect(to, s.policy.from(c.LocalAddr().Addr(), to.Addr()), ttl)
	if errno != 0 && errno != unix.EINPROGRESS {
		s.disclaim(k)
		s.connectFailed(c, errno)
		return
	}
	r, err := s.newRelay(fd)
	if err != nil {
		s.disclaim(k)
		s.refused(c, tcp.Reset, err.Error())
		return
	}
	r.conn, r.fewHops = c, ttl != 0
	if errno == 0 {
		r.accept()
		return
	}
	r.connecting = true
	c.SetHandler(r) // to be told if the sandbox gives up
}

// connected looks how a connect ended that was in progress. An event may come
// before it has.
func (r *relay) connected() {
	if !r.writable {
		return
	}
	errno, over := hostsock.Outcome(r.fd)
	if !over {
		r.writable = false
		return
	}
	if errno == unix.ECONNRESET {
		// Unlike a refusal this comes after the handshake: so it shall there.
		r.resetOnOpen, errno = true, 0
	}
	if errno != 0 {
		report, exceeded := r.ranOutOfHops()
		r.connecting = false
		r.closeHost(hostsock.Close)
		r.forget()
		if exceeded {
			r.counters.tcpFailed++
			r.stack.RefuseTimeExceeded(r.conn, offender(&report, r.conn.LocalAddr().Addr()))
			return
		}
		r.connectFailed(r.conn, errno)
		return
	}
	r.connecting = false
	r.accept()
}

// synTTL is the TTL to connect with, 0 for the host's own: the sandbox's, if it
// has chosen one so low that a router may have something to say about it. The
// socket keeps it, as the sandbox's does.
func synTTL(ttl uint8) uint8 {
	if ttl >= defaultTTL {
		return 0
	}
	return hopsLeft(ttl)
}

// ranOutOfHops looks for the router's word in the error queue, where the kernel
// puts what it hears of a SYN (tcp_v4_err in net/ipv4/tcp_ipv4.c, since 5.10).
func (r *relay) ranOutOfHops() (report hostsock.Report, ok bool) {
	if !r.fewHops {
		return report, false
	}
	report, ok = r.errors.Next(r.fd)
	return report, ok && isTimeExceeded(&report)
}

// accept answers the sandbox's SYN.
func (r *relay) accept() {
	r.counters.tcpOutbound++
	if r.debugs() {
		r.log.Debug("connection out", slog.Any("flow", r))
	}
	r.writable = true // until send says otherwise
	if r.fewHops {
		// On an open connection the queue would make every ICMP error final.
		hostsock.IgnoreErrors(r.fd, r.conn.LocalAddr().Addr())
	}
	r.conn.Accept(r)
}

// connectFailed turns a connection down for the reason that the host gave.
func (s *shard) connectFailed(c *tcp.Conn, errno unix.Errno) {
	s.counters.tcpFailed++
	s.refused(c, connectRefusal(errno), errno.Error())
}

func (s *shard) refused(c *tcp.Conn, how tcp.Refusal, why string) {
	if s.debugs() {
		s.log.Debug("connection refused", slog.String("sandbox", c.RemoteAddr().String()),
			slog.String("peer", c.LocalAddr().String()), slog.String("error", why))
	}
	c.Refuse(how)
}

// connectRefusal is what the sandbox is told of an error that connect(2), or
// socket(2) before it, returned.
func connectRefusal(errno unix.Errno) tcp.Refusal {
	switch errno {
	case unix.ENETUNREACH, unix.ENETDOWN, unix.EAFNOSUPPORT, unix.ENODEV:
		// ENODEV: the interface of Outbound has gone.
		return tcp.NetUnreachable
	case unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.EINVAL, unix.EADDRNOTAVAIL:
		// EINVAL: the kernel knows the address to be none that one connects to.
		// EADDRNOTAVAIL: no source address for it, or no port left.
		return tcp.HostUnreachable
	case unix.EACCES, unix.EPERM:
		return tcp.Prohibited
	case unix.ETIMEDOUT:
		return tcp.Silent
	}
	// ECONNREFUSED, ECONNRESET; EMFILE, ENFILE, ENOBUFS, ENOMEM: no room for
	// another connection.
	return tcp.Reset
}
