package socket

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"sbxnet/netstack/tcp"
)

// Backlog is the length of a listener's accept queue in the stack.
const Backlog = 512

// Listener accepts TCP connections, a net.Listener.
type Listener struct {
	net     *Net
	network string
	local   netip.AddrPort

	mu        sync.Mutex
	rd        side
	waiting   int     // calls of Accept
	ready     []*Conn // taken from the stack for them
	closed    bool
	err       error // why Accept fails, if it is not closed
	scheduled bool

	tcp []*tcp.Listener // the owner's; one for each family
}

// Listen listens on an address of network tcp, tcp4 or tcp6. Without a host, or
// with an unspecified one, it takes connections to any of the stack's addresses;
// port 0 takes a free one.
func (n *Net) Listen(network, address string) (net.Listener, error) {
	at, err := resolve("tcp", network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l := &Listener{net: n, network: network}
	l.rd.init(&l.mu)
	locals := at.locals(network)
	fail := func(err error) (net.Listener, error) {
		return nil, opError("listen", network, netip.AddrPort{}, locals[0], systemError("listen", err))
	}
	if err := n.register(l); err != nil {
		return fail(err)
	}
	var openErr error
	if err := n.do(func() { openErr = l.open(locals) }); err != nil {
		l.Close()
		return fail(err)
	}
	if openErr != nil {
		n.forget(l)
		return fail(openErr)
	}
	return l, nil
}

// A free port must be free in both families, so some are tried.
const portAttempts = 64

// open listens on all of locals, which have one port, or on none.
func (l *Listener) open(locals []netip.AddrPort) error {
	if locals[0].Port() != 0 {
		return l.openPort(locals, locals[0].Port())
	}
	for range portAttempts {
		err := l.openPort(locals, dynamicPort())
		if !errors.Is(err, tcp.ErrInUse) {
			return err
		}
	}
	return tcp.ErrNoPorts
}

// dynamicPort is one of the ports that nobody has a claim to (RFC 6335 §6).
func dynamicPort() uint16 {
	const first, count = 49152, 16384
	return uint16(first + rand.IntN(count))
}

func (l *Listener) openPort(locals []netip.AddrPort, port uint16) error {
	for _, local := range locals {
		local = netip.AddrPortFrom(local.Addr(), port)
		t, err := l.net.stack.TCP().Listen(local, Backlog)
		if err != nil {
			l.closeAll()
			return err
		}
		t.SetNotify(l.pull)
		l.tcp = append(l.tcp, t)
	}
	l.local = netip.AddrPortFrom(locals[0].Addr(), port)
	return nil
}

// closeAll is the owner's side of Close.
func (l *Listener) closeAll() {
	for _, t := range l.tcp {
		t.Close()
	}
	l.tcp = nil
}

// pull takes connections from the stack, for the calls of Accept that wait and
// no more: the rest stays where the backlog is counted. The owner calls it.
func (l *Listener) pull() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scheduled = false
	for _, t := range l.tcp {
		for !l.closed && l.waiting > len(l.ready) {
			accepted, ok := t.Accept()
			if !ok {
				break
			}
			l.adopt(accepted)
		}
	}
}

func (l *Listener) adopt(t *tcp.Conn) {
	c := newConn(l.net, l.network, t.LocalAddr(), t.RemoteAddr())
	if l.net.register(c) != nil {
		t.Abort()
		return
	}
	c.attach(t)
	l.ready = append(l.ready, c)
	l.rd.Broadcast()
}

// Accept implements net.Listener. The net.Conn is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
	defer func() { l.waiting-- }()
	for {
		if err := l.fails(); err != nil {
			return nil, opError("accept", l.network, netip.AddrPort{}, l.local, err)
		}
		if len(l.ready) > 0 {
			c := l.ready[0]
			l.ready = l.ready[1:]
			return c, nil
		}
		l.schedule()
		l.rd.Wait()
	}
}

func (l *Listener) fails() error {
	switch {
	case l.closed:
		return net.ErrClosed
	case l.err != nil:
		return l.err
	}
	return l.rd.check()
}

func (l *Listener) schedule() {
	if l.scheduled {
		return
	}
	l.scheduled = true
	if !l.net.runner.Post(l.pull) {
		l.err = net.ErrClosed
		l.rd.Broadcast()
	}
}

// Close implements net.Listener. Connections that nobody accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return opError("close", l.network, netip.AddrPort{}, l.local, net.ErrClosed)
	}
	l.closed = true
	l.rd.stop()
	l.net.runner.Post(l.closeAll)
	l.net.forget(l)
	for _, c := range l.ready {
		c.Abort()
	}
	l.ready = nil
	return nil
}

// abandon implements abandoner.
func (l *Listener) abandon(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.rd.Broadcast()
}

// Addr implements net.Listener; it is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return netAddr(l.network, l.local) }

// SetDeadline makes Accept fail from t on.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return opError("set", l.network, netip.AddrPort{}, l.local, net.ErrClosed)
	}
	l.rd.setDeadline(t)
	return nil
}
