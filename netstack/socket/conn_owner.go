package socket

import (
	"sbxnet/netstack/tcp"
)

// The owner's side of a connection: the stack's callbacks, and work, which the
// user's side posts.

// attach makes c the handler of a connection that a listener accepted.
func (c *Conn) attach(t *tcp.Conn) {
	c.tcp = t
	c.open()
	t.SetHandler(c)
}

// open lets Dial go on.
func (c *Conn) open() {
	if !c.opened {
		c.opened = true
		close(c.ready)
	}
}

// Established implements tcp.Handler.
func (c *Conn) Established(t *tcp.Conn) { c.open() }

// Data implements tcp.Handler.
func (c *Conn) Data(t *tcp.Conn, p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		// Nobody is going to read it (RFC 2525 §2.17).
		t.Abort()
		return len(p)
	}
	n := c.in.write(p)
	if n < len(p) {
		c.held = true
	}
	c.rd.Broadcast()
	return n
}

// EOF implements tcp.Handler.
func (c *Conn) EOF(*tcp.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eof = true
	c.rd.Broadcast()
}

// Writable implements tcp.Handler.
func (c *Conn) Writable(*tcp.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pump()
	c.finish()
}

// Closed implements tcp.Handler.
func (c *Conn) Closed(_ *tcp.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp = nil
	if !c.ended {
		c.ended, c.err = true, err
	}
	c.out.reset()
	c.rd.Broadcast()
	c.wr.Broadcast()
	c.open()
}

// work does what the user's side has made necessary.
func (c *Conn) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduled = false
	if c.tcp == nil {
		return
	}
	if c.reset {
		c.tcp.Abort()
		return
	}
	if c.held && !c.closed {
		c.fetch()
	}
	c.pump()
	c.finish()
}

// fetch moves data from the connection's buffer to the reader's.
func (c *Conn) fetch() {
	var pieces [8][]byte
	taken := 0
	for _, b := range c.tcp.Peek(pieces[:0]) {
		n := c.in.write(b)
		taken += n
		if n < len(b) {
			break
		}
	}
	c.tcp.Consume(taken)
	c.held = c.tcp.Buffered() > 0
	if taken > 0 {
		c.rd.Broadcast()
	}
}

// pump moves data from the writer's buffer to the connection's, as much as that
// takes; Writable goes on from there.
func (c *Conn) pump() {
	var pieces [2][]byte
	moved := 0
	for c.out.len > 0 {
		bufs := c.tcp.Reserve(c.out.len, pieces[:0])
		if len(bufs) == 0 {
			break
		}
		n := 0
		for _, b := range bufs {
			n += c.out.read(b)
		}
		c.tcp.Commit(n)
		moved += n
	}
	if moved > 0 {
		c.wr.Broadcast()
	}
}

// finish passes on that no more will be written, after what was.
func (c *Conn) finish() {
	switch {
	case c.out.len > 0:
	case c.closed:
		c.tcp.Close()
	case c.shut && !c.finished:
		c.finished = true
		c.tcp.CloseWrite()
	}
}
