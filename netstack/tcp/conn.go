package tcp

import (
	"net/netip"
	"time"
)

// Handler is told what happens to a connection. Its methods are called from
// Engine.Input, Engine.Flush and expiring timers, never from within a call on
// the Conn. They may call anything on the connection they are told about.
type Handler interface {
	// Established is called once when the handshake is done, in either role.
	Established(c *Conn)
	// Data offers in-order payload, lying in the received frame, and returns how
	// many bytes were taken. The rest is buffered and fetched with Peek and
	// Consume; Data is not called again until that buffer is empty.
	Data(c *Conn, p []byte) int
	// EOF is called once, when the peer has closed its side and all its data has
	// been taken.
	EOF(c *Conn)
	// Writable is called when there is room again after Reserve fell short.
	Writable(c *Conn)
	// Closed is the last call: nil after an orderly close, else why.
	Closed(c *Conn, err error)
}

// Conn is one connection.
type Conn struct{}

// Accept answers a held connection's SYN and makes h its handler.
func (c *Conn) Accept(h Handler) {}

// Refuse turns a held connection down and forgets it; Closed is not called.
func (c *Conn) Refuse(r Refusal) {}

// SetHandler changes the handler. What has arrived already is delivered to it by
// the next Flush.
func (c *Conn) SetHandler(h Handler) {}

// Reserve appends to bufs at most two pieces of send-buffer memory of at most n
// bytes in all, none when the buffer is full, for the caller to fill and Commit
// before any other call on the engine. If it falls short, Writable is called later.
func (c *Conn) Reserve(n int, bufs [][]byte) [][]byte { return bufs }

// Commit queues the first n bytes that were reserved; Flush sends them.
func (c *Conn) Commit(n int) {}

// Write copies as much of p as fits into the send buffer and returns how much.
func (c *Conn) Write(p []byte) int { return 0 }

// Peek appends the buffered received data to bufs, in order. It stays valid
// until the next call of Consume or on the engine.
func (c *Conn) Peek(bufs [][]byte) [][]byte { return bufs }

// Consume drops n bytes of buffered data, which opens the window.
func (c *Conn) Consume(n int) {}

// Buffered is the number of received bytes not taken yet.
func (c *Conn) Buffered() int { return 0 }

// CloseWrite sends FIN after what is queued. Data can still be received.
func (c *Conn) CloseWrite() {}

// Close closes both directions: FIN after what is queued, or RST if there is
// data the peer sent and nobody took (RFC 9293 §3.10.4, RFC 2525 §2.17).
func (c *Conn) Close() {}

// Abort resets the connection. Closed is called by the next Flush with ErrAborted.
func (c *Conn) Abort() {}

// State is the connection's state.
func (c *Conn) State() State { return Closed }

// LocalAddr is the stack's end.
func (c *Conn) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// RemoteAddr is the sandbox's end.
func (c *Conn) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }

// Unacked is the number of queued bytes the peer has not acknowledged.
func (c *Conn) Unacked() int { return 0 }

// SendSpace is the number of bytes Reserve could give.
func (c *Conn) SendSpace() int { return 0 }

// SetKeepAlive probes a peer that has been silent for idle, every interval, and
// gives up after count probes; idle 0 turns it off.
func (c *Conn) SetKeepAlive(idle, interval time.Duration, count int) {}
