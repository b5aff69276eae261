package socket

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/tcp"
)

// Bounds of the queues of a PacketConn, in each direction.
const (
	maxQueuedBytes     = 1 << 20
	maxQueuedDatagrams = 4096
	maxPayload         = 65535 - 8 // less the IPv4 header; the stack drops what is too long for that
)

// PacketConn is a UDP socket: a net.PacketConn, and a net.Conn if it comes from
// Dial. Datagrams that nobody reads in time are dropped.
type PacketConn struct {
	net           *Net
	network       string
	local, remote netip.AddrPort // remote is valid if the socket is connected

	mu        sync.Mutex
	rd, wr    side
	in, out   queue
	closed    bool
	err       error // that every call fails with
	told      error // of an ICMP error, for one call
	scheduled bool

	endpoints []*netstack.UDPEndpoint // the owner's; one for each family
}

// datagram is one in a queue. peer is the other end; own is the address that a
// datagram to send comes from.
type datagram struct {
	own, peer netip.AddrPort
	payload   []byte
}

// queue is a bounded queue of datagrams.
type queue struct {
	datagrams []datagram
	bytes     int
}

func (q *queue) fits(n int) bool {
	return len(q.datagrams) == 0 || len(q.datagrams) < maxQueuedDatagrams && q.bytes+n <= maxQueuedBytes
}

func (q *queue) push(d datagram) {
	q.datagrams = append(q.datagrams, d)
	q.bytes += len(d.payload)
}

func (q *queue) pop() datagram {
	d := q.datagrams[0]
	q.datagrams[0] = datagram{}
	q.datagrams = q.datagrams[1:]
	q.bytes -= len(d.payload)
	return d
}

// ListenPacket binds a UDP socket on network udp, udp4 or udp6. Without a host,
// or with an unspecified one, it takes datagrams to any of the stack's
// addresses; port 0 takes a free one. The net.PacketConn is a *PacketConn.
func (n *Net) ListenPacket(network, address string) (net.PacketConn, error) {
	at, err := resolve("udp", network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	c, err := n.bind(network, at.locals(network), netip.AddrPort{})
	if err != nil {
		return nil, opError("listen", network, netip.AddrPort{}, at.locals(network)[0], systemError("bind", err))
	}
	return c, nil
}

func (n *Net) dialUDP(network string, local, remote netip.AddrPort) (*PacketConn, error) {
	c, err := n.bind(network, []netip.AddrPort{local}, remote)
	if err != nil {
		return nil, opError("dial", network, netip.AddrPort{}, remote, systemError("connect", err))
	}
	return c, nil
}

func (n *Net) bind(network string, locals []netip.AddrPort, remote netip.AddrPort) (*PacketConn, error) {
	c := &PacketConn{net: n, network: network, remote: remote}
	c.rd.init(&c.mu)
	c.wr.init(&c.mu)
	if err := n.register(c); err != nil {
		return nil, err
	}
	var bindErr error
	if err := n.do(func() { bindErr = c.open(locals) }); err != nil {
		c.Close()
		return nil, err
	}
	if bindErr != nil {
		n.forget(c)
	}
	return c, bindErr
}

// open binds to all of locals under one port, or to none. The owner calls it.
func (c *PacketConn) open(locals []netip.AddrPort) error {
	for range portAttempts {
		err := c.openPort(locals)
		if locals[0].Port() != 0 || !errors.Is(err, tcp.ErrInUse) {
			return err
		}
	}
	return tcp.ErrNoPorts
}

func (c *PacketConn) openPort(locals []netip.AddrPort) error {
	port := locals[0].Port()
	for _, local := range locals {
		var e *netstack.UDPEndpoint
		e, err := c.net.stack.BindUDP(netip.AddrPortFrom(local.Addr(), port), func(d *netstack.Datagram) { c.receive(e, d) })
		if err != nil {
			c.closeAll()
			return err
		}
		e.SetUnreachable(c.unreachable)
		c.endpoints = append(c.endpoints, e)
		port = e.Addr().Port()
	}
	c.local = c.endpoints[0].Addr()
	return nil
}

// closeAll is the owner's side of Close.
func (c *PacketConn) closeAll() {
	for _, e := range c.endpoints {
		e.Close()
	}
	c.endpoints = nil
}

// receive queues a datagram, or a train of them, that came to endpoint e. The
// owner calls it.
func (c *PacketConn) receive(e *netstack.UDPEndpoint, d *netstack.Datagram) {
	if c.remote.IsValid() && d.Src != c.remote {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := d.SegmentSize
	if size <= 0 {
		size = len(d.Payload)
	}
	for rest := d.Payload; ; {
		n := min(size, len(rest))
		if c.closed {
			break
		}
		if !c.in.fits(n) {
			e.Overflowed(max(1, (len(rest)+size-1)/max(1, size))) // it may be an empty one
			break
		}
		c.in.push(datagram{own: d.Dst, peer: d.Src, payload: append([]byte(nil), rest[:n]...)})
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
	}
	c.rd.Broadcast()
}

// unreachable has the next call on a connected socket fail, as Linux does. The
// owner calls it.
func (c *PacketConn) unreachable(u *netstack.Unreachable) {
	if u.Dst != c.remote || u.MTU != 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = unreachable(u.Reason)
	c.rd.Broadcast()
}

// send hands what is queued to the stack. The owner calls it.
func (c *PacketConn) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduled = false
	for len(c.out.datagrams) > 0 {
		d := c.out.pop()
		c.net.stack.SendUDP(d.own, d.peer, d.payload, 0)
	}
	c.wr.Broadcast()
}

// ReadFromAddrPort reads one datagram, as much of it as p holds, and returns
// where it comes from.
func (c *PacketConn) ReadFromAddrPort(p []byte) (int, netip.AddrPort, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.fails(&c.rd); err != nil {
			return 0, netip.AddrPort{}, c.opError("read", c.remote, err)
		}
		if len(c.in.datagrams) > 0 {
			d := c.in.pop()
			return copy(p, d.payload), d.peer, nil
		}
		c.rd.Wait()
	}
}

// fails is the error of a call in one direction. One that ICMP told is reported
// once.
func (c *PacketConn) fails(s *side) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.err != nil:
		return c.err
	case s.check() != nil:
		return s.check()
	case c.told != nil:
		err := c.told
		c.told = nil
		return err
	}
	return nil
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(p)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// Read implements net.Conn. On a socket that is not connected it takes datagrams
// from anybody.
func (c *PacketConn) Read(p []byte) (int, error) {
	n, _, err := c.ReadFromAddrPort(p)
	return n, err
}

// WriteTo implements net.PacketConn; the address is a *net.UDPAddr.
func (c *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) {
	remote, err := toAddrPort(to)
	if err != nil {
		return 0, c.opError("write", netip.AddrPort{}, err)
	}
	return c.WriteToAddrPort(p, remote)
}

// WriteToAddrPort sends one datagram. A socket bound to an unspecified address
// sends from the stack's address that fits the destination.
func (c *PacketConn) WriteToAddrPort(p []byte, to netip.AddrPort) (int, error) {
	if c.remote.IsValid() {
		return 0, c.opError("write", to, net.ErrWriteToConnected)
	}
	return c.write(p, to)
}

// Write implements net.Conn.
func (c *PacketConn) Write(p []byte) (int, error) {
	if !c.remote.IsValid() {
		return 0, c.opError("write", netip.AddrPort{}, syscall.EDESTADDRREQ)
	}
	return c.write(p, c.remote)
}

func (c *PacketConn) write(p []byte, to netip.AddrPort) (int, error) {
	own, err := c.ownFor(to)
	if err == nil && len(p) > maxPayload {
		err = syscall.EMSGSIZE
	}
	if err != nil {
		return 0, c.opError("write", to, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.fails(&c.wr); err != nil {
			return 0, c.opError("write", to, err)
		}
		if c.out.fits(len(p)) {
			c.out.push(datagram{own: own, peer: to, payload: append([]byte(nil), p...)})
			c.schedule()
			return len(p), nil
		}
		c.wr.Wait()
	}
}

// ownFor is the address that a datagram to the given one comes from.
func (c *PacketConn) ownFor(to netip.AddrPort) (netip.AddrPort, error) {
	if to.Port() == 0 || !to.Addr().IsValid() || to.Addr().IsUnspecified() {
		return netip.AddrPort{}, syscall.EINVAL
	}
	if !c.local.Addr().IsUnspecified() {
		if c.local.Addr().Is4() != to.Addr().Is4() {
			return netip.AddrPort{}, syscall.EAFNOSUPPORT
		}
		return c.local, nil
	}
	own, ok := c.net.source(to.Addr())
	if !ok {
		return netip.AddrPort{}, syscall.ENETUNREACH
	}
	return netip.AddrPortFrom(own, c.local.Port()), nil
}

func (c *PacketConn) schedule() {
	if c.scheduled {
		return
	}
	c.scheduled = true
	if !c.net.runner.Post(c.send) {
		c.err = net.ErrClosed
	}
}

// Close implements net.PacketConn. Datagrams written before still go out.
func (c *PacketConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", c.remote, net.ErrClosed)
	}
	c.closed = true
	c.rd.stop()
	c.wr.stop()
	c.in = queue{}
	c.net.runner.Post(c.closeAll)
	c.net.forget(c)
	return nil
}

// abandon implements abandoner.
func (c *PacketConn) abandon(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.rd.Broadcast()
	c.wr.Broadcast()
}

// LocalAddr implements net.PacketConn; it is a *net.UDPAddr.
func (c *PacketConn) LocalAddr() net.Addr { return netAddr(c.network, c.local) }

// RemoteAddr implements net.Conn; it is a *net.UDPAddr, or nil if the socket is
// not connected.
func (c *PacketConn) RemoteAddr() net.Addr { return netAddr(c.network, c.remote) }

// SetDeadline implements net.PacketConn.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.rd, &c.wr) }

// SetReadDeadline implements net.PacketConn.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.rd) }

// SetWriteDeadline implements net.PacketConn.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.wr) }

func (c *PacketConn) setDeadline(t time.Time, sides ...*side) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", c.remote, net.ErrClosed)
	}
	for _, s := range sides {
		s.setDeadline(t)
	}
	return nil
}

func (c *PacketConn) opError(op string, remote netip.AddrPort, err error) error {
	return opError(op, c.network, c.local, remote, err)
}
