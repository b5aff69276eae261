package socket

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"sbxnet/netstack/tcp"
)

// Conn is a TCP connection, a net.Conn with CloseWrite. This file is the user's
// side of it; the owner's is in conn_owner.go.
type Conn struct {
	net     *Net
	network string
	local   netip.AddrPort // set before anybody but Dial has the Conn
	remote  netip.AddrPort

	writing sync.Mutex // held by one Write, so that Writes do not mingle

	mu        sync.Mutex
	rd, wr    side
	in, out   ring
	held      bool  // the stack has data that in did not take
	eof       bool  // in holds all that will come
	ended     bool  // the stack is done with the connection
	err       error // why, if it was not orderly
	shut      bool  // CloseWrite or Close was called
	closed    bool  // Close was called
	reset     bool  // and there was data unread, or Abort was called
	scheduled bool  // work is posted

	// The owner's.
	tcp      *tcp.Conn
	finished bool          // tcp has been told that no more will be written
	ready    chan struct{} // closed when the handshake is over, either way
	opened   bool          // ready is closed
}

func newConn(n *Net, network string, local, remote netip.AddrPort) *Conn {
	c := &Conn{net: n, network: network, local: local, remote: remote, ready: make(chan struct{})}
	c.rd.init(&c.mu)
	c.wr.init(&c.mu)
	return c
}

// Read implements net.Conn. What the peer sent before it reset the connection
// is returned before the error.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.closedOr(c.rd.check()); err != nil {
			return 0, c.opError("read", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := c.in.read(p); n > 0 {
			c.refill()
			return n, nil
		}
		switch {
		case c.ended && c.err != nil:
			return 0, c.opError("read", systemError("read", c.err))
		case c.eof || c.ended:
			return 0, io.EOF
		}
		c.rd.Wait()
	}
}

// refill fetches what the stack holds once there is room for a good deal of it.
func (c *Conn) refill() {
	if c.held && c.in.space() >= ringLimit/2 {
		c.schedule()
	}
}

// Write implements net.Conn. It returns when the last of p is in the socket's
// buffer. Writes at the same time go out one after the other, not mingled.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; ; {
		if err := c.closedOr(c.wr.check()); err != nil {
			return n, c.opError("write", err)
		}
		if err := c.writable(); err != nil {
			return n, c.opError("write", systemError("write", err))
		}
		if m := c.out.write(p[n:]); m > 0 {
			n += m
			c.schedule()
		}
		if n == len(p) {
			return n, nil
		}
		c.wr.Wait()
	}
}

// writable reports why nothing can be written any more, if so.
func (c *Conn) writable() error {
	switch {
	case c.err != nil:
		return c.err
	case c.shut || c.ended:
		return syscall.EPIPE
	}
	return nil
}

// closedOr gives being closed precedence over err.
func (c *Conn) closedOr(err error) error {
	if c.closed {
		return net.ErrClosed
	}
	return err
}

// CloseWrite sends FIN after what has been written. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.closedOr(nil); err != nil {
		return c.opError("close", err)
	}
	if c.ended {
		return c.opError("close", syscall.ENOTCONN)
	}
	c.shut = true
	c.wr.Broadcast()
	c.schedule()
	return nil
}

// Close implements net.Conn. It does not wait: what has been written still goes
// out. If there is data that nobody has read, the connection is reset instead.
func (c *Conn) Close() error { return c.close(false) }

// Abort closes the connection with a reset. What has been written and not been
// acknowledged may be lost.
func (c *Conn) Abort() error { return c.close(true) }

func (c *Conn) close(reset bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed, c.shut = true, true
	c.reset = reset || c.in.len > 0 || c.held
	c.in.reset()
	c.rd.stop()
	c.wr.stop()
	c.schedule()
	c.net.forget(c)
	return nil
}

// abandon implements abandoner.
func (c *Conn) abandon(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended, c.err = true, err
		c.rd.Broadcast()
		c.wr.Broadcast()
	}
}

// schedule has the owner look at the connection. It is called with the lock
// held.
func (c *Conn) schedule() {
	if c.scheduled || c.ended {
		return
	}
	c.scheduled = true
	if !c.net.runner.Post(c.work) {
		c.ended, c.err = true, net.ErrClosed
	}
}

// LocalAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return netAddr(c.network, c.local) }

// RemoteAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return netAddr(c.network, c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.rd, &c.wr) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.rd) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.wr) }

func (c *Conn) setDeadline(t time.Time, sides ...*side) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.closedOr(nil); err != nil {
		return c.opError("set", err)
	}
	for _, s := range sides {
		s.setDeadline(t)
	}
	return nil
}

// SetKeepAlive probes a peer that has been silent for idle, every interval, and
// resets the connection after count probes without an answer; idle 0 turns it
// off.
func (c *Conn) SetKeepAlive(idle, interval time.Duration, count int) error {
	if !c.net.runner.Post(func() {
		if c.tcp != nil {
			c.tcp.SetKeepAlive(idle, interval, count)
		}
	}) {
		return c.opError("set", net.ErrClosed)
	}
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return opError(op, c.network, c.local, c.remote, err)
}
