package socket

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"sbxnet/netstack/tcp"
)

// Dial connects to an address on a network: tcp, tcp4, tcp6, udp, udp4 or udp6.
// The address is a literal one and a port.
func (n *Net) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext is Dial that gives up when ctx is done. The context has no
// influence on the connection once there is one.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	protocol := "tcp"
	if strings.HasPrefix(network, "udp") {
		protocol = "udp"
	}
	to, err := resolve(protocol, network, address)
	if err == nil {
		var remote netip.AddrPort
		if remote, err = to.remote(); err == nil {
			return n.dial(ctx, protocol, network, remote)
		}
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: err}
}

func (n *Net) dial(ctx context.Context, protocol, network string, remote netip.AddrPort) (net.Conn, error) {
	source, ok := n.source(remote.Addr())
	if !ok {
		return nil, opError("dial", network, netip.AddrPort{}, remote, systemError("connect", tcp.ErrUnreachable))
	}
	local := netip.AddrPortFrom(source, 0)
	if protocol == "udp" {
		c, err := n.dialUDP(network, local, remote)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := n.dialTCP(ctx, network, local, remote)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialTCP connects from local, which may be any address, not only the stack's
// own. Its port may be 0.
func (n *Net) DialTCP(ctx context.Context, local, remote netip.AddrPort) (*Conn, error) {
	return n.dialTCP(ctx, "tcp", local, remote)
}

func (n *Net) dialTCP(ctx context.Context, network string, local, remote netip.AddrPort) (*Conn, error) {
	c := newConn(n, network, local, remote)
	fail := func(err error) (*Conn, error) {
		c.Abort()
		return nil, opError("dial", network, netip.AddrPort{}, remote, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if err := n.register(c); err != nil {
		return fail(err)
	}
	if !n.runner.Post(c.connect) {
		return fail(net.ErrClosed)
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		return fail(ctx.Err())
	case <-n.closed:
		return fail(net.ErrClosed)
	}
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return fail(systemError("connect", err))
	}
	return c, nil
}

// connect is the owner's side of Dial.
func (c *Conn) connect() {
	t, err := c.net.stack.TCP().Dial(c.local, c.remote, c)
	if err != nil {
		c.Closed(nil, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp = t
	c.local = t.LocalAddr()
}
