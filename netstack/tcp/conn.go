package tcp

import (
	"net/netip"
	"time"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// Handler is told what happens to a connection. Established and Data are called
// from Engine.Input, the others from Engine.Flush; none is called from within a
// call on the Conn. They may call anything on the connection they are told about.
type Handler interface {
	// Established is called once when the handshake is done, in either role.
	Established(c *Conn)
	// Data offers in-order payload and returns how many bytes, from the front,
	// were taken. p lies in the received frame or in the buffer, and is good for
	// the call only. The rest is buffered and fetched with Peek and Consume; Data
	// is not called again until that buffer is empty.
	Data(c *Conn, p []byte) int
	// EOF is called once, when the peer has closed its side and all its data has
	// been taken.
	EOF(c *Conn)
	// Writable is called when there is room again after Reserve fell short: 64 KiB,
	// or half of a smaller buffer.
	Writable(c *Conn)
	// Closed is the last call: nil after an orderly close, else ErrReset,
	// ErrRefused, ErrTimeout, ErrUnreachable or ErrAborted. The connection and its
	// buffers are gone by then. It is not called for a held connection that
	// Refuse turned down.
	Closed(c *Conn, err error)
}

// Conn is one connection. Its methods are for the engine's owner, and good in
// every state: what makes no sense any more does nothing.
type Conn struct {
	engine    *Engine
	handler   Handler
	listener  *Listener // until it is accepted
	nextDirty *Conn
	route     Route
	err       error // what Closed will be told

	state       State
	dirty       bool // in the engine's dirty list
	attached    bool // in the engine's table
	writeClosed bool // CloseWrite: FIN follows what is queued
	readClosed  bool // Close: nobody will take what arrives
	wantWrite   bool // Reserve fell short
	finSent     bool
	finReceived bool
	eofTold     bool
	closedTold  bool

	// Negotiated, or heard in the peer's SYN.
	passive   bool // SYN-RECEIVED comes from LISTEN or Held
	sackOK    bool
	tsOK      bool
	scaleOK   bool
	ecnOK     bool
	sndShift  uint8
	rcvShift  uint8
	synDue    bool // a SYN or SYN-ACK is to be sent by Flush
	peerMSS   int  // from the peer's option or the default
	mss       int  // payload of a full segment without SACK blocks, bytes
	pathMTU   int  // learned from ICMP; 0: the link's
	pathMTUAt timer.Instant

	sender
	receiver
	timers
	keepAlive
	challenge ackLimiter

	sndTune, rcvTune tuner
	trip             shortestTrip
}

func (e *Engine) newConn(k flowKey) *Conn {
	c := &Conn{engine: e, route: Route{Local: k.local, Remote: k.remote}}
	c.timers.init(c)
	c.startTuning()
	return c
}

// attach enters the connection into the table.
func (c *Conn) attach() {
	c.engine.conns[c.key()] = c
	c.attached = true
}

// detach takes the connection out of the table: segments no longer find it.
func (c *Conn) detach() {
	e := c.engine
	if !c.attached {
		return
	}
	c.attached = false
	delete(e.conns, c.key())
	if e.last == c {
		e.last = nil
	}
	c.stopTimers()
}

func (c *Conn) key() flowKey { return flowKey{c.route.Local, c.route.Remote} }

// Accept answers a held connection's SYN and makes h its handler. It does
// nothing if the connection is not held any more.
func (c *Conn) Accept(h Handler) {
	if c.state != Held {
		return
	}
	c.engine.stats.Held--
	c.handler = h
	c.becomeSynReceived()
}

// Refuse turns a held connection down and forgets it; no handler is called.
func (c *Conn) Refuse(r Refusal) {
	if c.state != Held {
		return
	}
	c.closedTold = true
	switch r {
	case Reset:
		c.engine.sendReset(&c.route, 0, c.irs.Add(1), true)
	case Silent:
	default:
		c.engine.out.SendUnreachable(&c.route, r, uint32(c.irs))
	}
	c.close(ErrRefused)
}

// SetHandler changes the handler. What has arrived already is delivered to it by
// the next Flush.
func (c *Conn) SetHandler(h Handler) {
	c.handler = h
	c.offerDue = true
	c.markDirty()
}

// Reserve appends to bufs at most two pieces of send-buffer memory of at most n
// bytes in all, none when the buffer is full, for the caller to fill and Commit
// before any other call on the engine. If it falls short, Writable is called later.
func (c *Conn) Reserve(n int, bufs [][]byte) [][]byte {
	if !c.state.canSend() || c.writeClosed {
		return bufs
	}
	space := c.SendSpace()
	if n > space {
		n, c.wantWrite, c.sndTune.full = space, true, true
	}
	before := len(bufs)
	bufs = c.buf.reserve(&c.engine.pool, n, bufs)
	for _, b := range bufs[before:] {
		n -= len(b)
	}
	if n > 0 {
		c.wantWrite = true
	}
	return bufs
}

// Commit queues the first n bytes that were reserved, n no more than that; Flush
// sends them. They stay in place until the peer has acknowledged them.
func (c *Conn) Commit(n int) {
	c.buf.commit(&c.engine.pool, n)
	c.markDirty()
}

// Write copies as much of p as fits into the send buffer and returns how much.
func (c *Conn) Write(p []byte) int {
	var pieces [2][]byte
	n := 0
	for n < len(p) {
		bufs := c.Reserve(len(p)-n, pieces[:0])
		if len(bufs) == 0 {
			break
		}
		m := 0
		for _, b := range bufs {
			m += copy(b, p[n+m:])
		}
		c.Commit(m)
		n += m
	}
	return n
}

// Peek appends the buffered received data to bufs, in order. It stays valid
// until the next call of Consume or on the engine.
func (c *Conn) Peek(bufs [][]byte) [][]byte { return c.in.peek(c.dataEnd(), bufs) }

// Consume drops n bytes of buffered data, or all if there are fewer, which opens
// the window.
func (c *Conn) Consume(n int) {
	n = min(n, c.Buffered())
	if n <= 0 {
		return
	}
	c.in.consume(&c.engine.pool, n, c.dataEnd())
	c.tuneReceive(n)
	c.markDirty()
}

// Buffered is the number of received bytes not taken yet.
func (c *Conn) Buffered() int { return int(c.in.base.Size(c.dataEnd())) }

// CloseWrite sends FIN after what is queued. Data can still be received.
func (c *Conn) CloseWrite() {
	if c.state == Held || !c.state.canSend() || c.writeClosed {
		return
	}
	c.writeClosed = true
	if c.state == SynSent {
		// Nobody has heard of the connection yet (RFC 9293 §3.10.4) unless there
		// is data, which was promised delivery.
		if c.buf.len == 0 {
			c.close(nil)
			return
		}
	}
	c.markDirty()
}

// Close closes both directions: FIN after what is queued, or RST if there is
// data the peer sent and nobody took (RFC 9293 §3.10.4, RFC 2525 §2.17).
func (c *Conn) Close() {
	if c.state == Held {
		c.Refuse(Reset)
		return
	}
	if c.readClosed || c.state == Closed {
		return
	}
	c.readClosed = true
	if c.Buffered() > 0 && c.attached {
		c.reset(ErrAborted)
		return
	}
	c.in.free(&c.engine.pool)
	c.in.base = c.dataEnd()
	c.CloseWrite()
	c.startLinger()
	c.markDirty()
}

// Abort resets the connection. Closed is called by the next Flush with ErrAborted.
func (c *Conn) Abort() {
	if c.state == Held {
		c.Refuse(Reset)
		return
	}
	if c.state != Closed {
		c.reset(ErrAborted)
	}
}

// reset tells the peer, if it knows of us, and closes.
func (c *Conn) reset(err error) {
	if c.attached && c.state >= SynReceived {
		c.engine.sendReset(&c.route, c.sndNxt, c.rcvNxt, true)
	}
	c.close(err)
}

// close ends the connection at once and frees what it holds. The handler is
// told by the next Flush.
func (c *Conn) close(err error) {
	if c.state == Closed {
		return
	}
	if c.state == Held {
		c.engine.stats.Held--
	}
	if c.listener != nil {
		c.listener.forget(c)
	}
	c.detach()
	if err == nil && c.finReceived && !c.drained() {
		c.outlive()
		return
	}
	c.state = Closed
	c.err = err
	c.freeBuffers()
	c.markDirty()
}

// outlive keeps what the peer sent before its FIN for a handler that has not
// taken it yet, though nothing more goes over the wire: as after becomeTimeWait,
// but without a record, for the peer is the one that waits.
func (c *Conn) outlive() {
	c.state = TimeWait
	c.buf.release(&c.engine.pool, c.buf.len)
	c.sent = sentQueue{}
	c.markDirty()
}

func (c *Conn) freeBuffers() {
	c.buf.release(&c.engine.pool, c.buf.len)
	c.buf.commit(&c.engine.pool, 0)
	c.buf.chunks, c.sent = nil, sentQueue{}
	c.in.base = c.dataEnd()
	c.in.free(&c.engine.pool)
	c.in.chunks, c.in.ranges = nil, nil
}

// State is the connection's state.
func (c *Conn) State() State { return c.state }

// LocalAddr is the stack's end.
func (c *Conn) LocalAddr() netip.AddrPort { return c.route.Local }

// RemoteAddr is the sandbox's end.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.route.Remote }

// Unacked is the number of bytes committed that the peer has not acknowledged,
// sent or not.
func (c *Conn) Unacked() int { return c.buf.len }

// SendSpace is the number of bytes Reserve could give.
func (c *Conn) SendSpace() int {
	if !c.state.canSend() || c.writeClosed {
		return 0
	}
	return max(0, c.sendLimit()-c.buf.len)
}

// SetKeepAlive probes a peer that has been silent for idle, every interval, and
// gives up with ErrTimeout after count probes without an answer; idle 0 turns it
// off. The interval is a second at least, count 1.
func (c *Conn) SetKeepAlive(idle, interval time.Duration, count int) {
	c.keepAlive = keepAlive{idle: idle, interval: max(interval, time.Second), max: max(count, 1)}
	c.armKeepAlive()
}

// dataEnd is where received data in order ends: RCV.NXT less the peer's FIN.
func (c *Conn) dataEnd() seq.Value {
	if c.finReceived {
		return c.rcvNxt.Sub(1)
	}
	return c.rcvNxt
}

// deliver makes the handler calls that are due.
func (c *Conn) deliver() {
	if c.handler == nil {
		return
	}
	if c.state != Closed {
		c.deliverData()
		c.deliverWritable()
	}
	if c.state == Closed || c.state == TimeWait && c.drained() {
		if !c.closedTold {
			c.closedTold = true
			c.handler.Closed(c, c.err)
		}
	}
}

// deliverData offers what waits in the buffer to a new handler, then EOF.
func (c *Conn) deliverData() {
	if c.offerDue && c.state != Held && c.state != SynSent && c.state != SynReceived {
		c.offerDue = false
		c.offerBuffered()
	}
	if c.finReceived && !c.eofTold && !c.readClosed && c.state != Closed && c.Buffered() == 0 {
		c.eofTold = true
		c.handler.EOF(c)
	}
}

func (c *Conn) deliverWritable() {
	room := min(chunkSize, c.sendLimit()/2)
	if c.wantWrite && c.SendSpace() >= room {
		c.wantWrite = false
		c.handler.Writable(c)
	}
}

// drained reports whether the handler knows all the peer has said.
func (c *Conn) drained() bool { return c.readClosed || c.eofTold }
