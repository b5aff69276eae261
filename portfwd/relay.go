package portfwd

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
)

// relay carries one TCP connection between the sandbox (conn) and the host
// (fd). It is the handler of both.
//
// Until it is open, one end waits for the other: an outbound relay for the
// host's connect, a published one for the sandbox's SYN-ACK. From then on each
// direction runs until its end of stream, and the host socket is closed when
// both have ended.
type relay struct {
	*shard
	conn  *tcp.Conn
	fd    int // -1 once closed
	token reactor.Token

	open       bool // both handshakes are done
	connecting bool // outbound, until connect is done
	fewHops    bool // the SYN's TTL was low: see synTTL
	dial       *dial
	published  bool

	readable, writable bool // until EAGAIN
	hung               bool // an end of stream or error waits behind the data, or it has an urgent byte
	resetOnOpen        bool // the host's peer has reset before both handshakes were done
	queued             bool // on the ready list
	noRoom             bool // the send buffer is full: Writable will tell
	hostEOF, guestEOF  bool // the ends of stream that were passed on

	used timer.Instant // when payload moved last
	idle timer.Timer   // see idle_tcp.go

	bulk      int           // bytes moved since bulkSince
	bulkSince timer.Instant // see divert.go
	diversion *diversion    // on its way off the link
	tries     int           // how often it was tried to have it leave
	stays     bool          // it cannot leave
}

// Keepalive towards the sandbox, as tcp(7) has it: a peer on the link cannot
// vanish unnoticed but by being suspended or firewalled.
const (
	keepAliveIdle     = 2 * time.Hour
	keepAliveInterval = 75 * time.Second
	keepAliveCount    = 9
)

// newRelay registers fd with the loop. On an error fd is closed.
func (s *shard) newRelay(fd int) (*relay, error) {
	r := &relay{shard: s, fd: fd}
	var err error
	if r.token, err = s.loop.Add(fd, reactor.Edge, r); err != nil {
		hostsock.Close(fd)
		return nil, err
	}
	s.relays[r] = struct{}{}
	r.watch()
	return r, nil
}

// Ready implements reactor.Handler.
func (r *relay) Ready(e reactor.Events) {
	r.readable = r.readable || e.Readable()
	r.writable = r.writable || e.Writable()
	r.hung = r.hung || e.ShortReads()
	if r.dial != nil && e.HungUp() {
		// The client reset its connection before there was a server.
		r.abort()
		return
	}
	r.wake()
}

// wake puts the relay on the ready list.
func (r *relay) wake() {
	if !r.queued && r.fd >= 0 && (r.open || r.connecting) {
		r.queued = true
		r.schedule(r)
	}
}

// work implements worker.
func (r *relay) work() (again bool) {
	r.queued = false
	if r.connecting {
		r.connected()
		return false
	}
	if !r.open || r.suspended() {
		return false
	}
	again = r.drain()
	if r.pump() {
		again = true
	}
	r.queued = again && r.fd >= 0
	return r.queued
}

// start begins to relay: both handshakes are done.
func (r *relay) start() {
	r.open = true
	if r.resetOnOpen {
		r.hostFailed(unix.ECONNRESET)
		return
	}
	r.watch()
	r.bulkSince = r.used
	r.conn.SetKeepAlive(keepAliveIdle, keepAliveInterval, keepAliveCount)
	r.wake()
}

// Established implements tcp.Handler.
func (r *relay) Established(*tcp.Conn) {
	if r.dial != nil {
		r.dial.reached(r)
		r.dial = nil
	}
	r.start()
}

// Data implements tcp.Handler: the sandbox's bytes, straight from the frame.
func (r *relay) Data(_ *tcp.Conn, p []byte) int {
	if r.fd < 0 {
		return len(p) // the connection is being aborted
	}
	if !r.writable || !r.open {
		return 0
	}
	n, errno := hostsock.Send(r.fd, p)
	if errno != 0 && errno != unix.EAGAIN {
		r.hostFailed(errno)
		return len(p)
	}
	r.counters.toHost += uint64(n)
	r.passed(n)
	if n < len(p) {
		r.writable = false
	}
	return n
}

// drain sends what the socket did not take when it came. It reports whether
// there is more to do now.
func (r *relay) drain() (again bool) {
	for moved := 0; r.writable && r.fd >= 0 && r.conn.Buffered() > 0; {
		if moved >= bytesPerFlow {
			return true
		}
		n, errno := r.vector.Write(r.fd, r.conn.Peek(r.pieces[:0]))
		switch {
		case errno == unix.EAGAIN:
			r.writable = false
		case errno != 0:
			r.hostFailed(errno)
		default:
			r.counters.toHost += uint64(n)
			r.passed(n)
			moved += n
			r.moved += n
			r.conn.Consume(n)
		}
	}
	return false
}

// pump reads from the host into the connection's send buffer. It reports
// whether there is more to do now.
func (r *relay) pump() (again bool) {
	for moved := 0; r.readable && r.fd >= 0 && !r.hostEOF && !r.held(); {
		if moved >= bytesPerFlow {
			return true
		}
		bufs := r.conn.Reserve(bytesPerFlow-moved, r.pieces[:0])
		if len(bufs) == 0 {
			r.noRoom = true
			return false
		}
		room := 0
		for _, b := range bufs {
			room += len(b)
		}
		n, errno := r.vector.Read(r.fd, bufs)
		switch {
		case errno == unix.EAGAIN:
			r.readable = false
		case errno != 0:
			r.hostFailed(errno)
		case n == 0:
			r.passHostEOF()
		default:
			r.counters.toGuest += uint64(n)
			r.passed(n)
			moved += n
			r.moved += n
			r.conn.Commit(n)
			// A short read has emptied the socket, and more of it is a new
			// edge; but what has hung up has no more edges to come.
			r.readable = n == room || r.hung
		}
	}
	return false
}

// Writable implements tcp.Handler: there is room in the send buffer again.
func (r *relay) Writable(*tcp.Conn) {
	if r.noRoom {
		r.noRoom = false
		r.wake()
	}
}

// EOF implements tcp.Handler: the sandbox has nothing more to say, and the host
// socket has taken all it said.
func (r *relay) EOF(*tcp.Conn) {
	if r.fd < 0 {
		return
	}
	r.guestEOF = true
	r.watch()
	hostsock.ShutdownWrite(r.fd)
	if r.hostEOF {
		r.conn.CloseWrite() // for passHostEOF; else it does nothing
	}
	r.finish()
}

// passHostEOF ends the stream towards the sandbox. If the sandbox has ended its
// own and part of that still waits for the host, ours ends behind it: the
// stack forgets a connection, with all it holds, once its FIN is acknowledged
// in LAST-ACK.
func (r *relay) passHostEOF() {
	r.hostEOF = true
	r.watch()
	if r.conn.State() == tcp.CloseWait && r.conn.Buffered() > 0 {
		return // EOF comes when the rest is taken
	}
	r.conn.CloseWrite()
	r.finish()
}

// finish closes the host socket when both directions have ended. The stack's
// end lives on until the sandbox has acknowledged everything.
func (r *relay) finish() {
	if r.hostEOF && r.guestEOF {
		r.closeHost(hostsock.Close)
	}
}

// hostFailed passes an error of the host socket on as a reset: that is what an
// error on an open connection is, in every case that a socket reports.
func (r *relay) hostFailed(errno unix.Errno) {
	if r.debugs() {
		r.log.Debug("host side failed", slog.Any("flow", r), slog.String("error", errno.Error()))
	}
	r.closeHost(hostsock.Close)
	r.conn.Abort()
}

// Closed implements tcp.Handler.
func (r *relay) Closed(c *tcp.Conn, err error) {
	r.connecting = false
	if r.diversion != nil {
		r.diversion.drop()
	}
	r.disclaim(tcpKey(c.LocalAddr(), c.RemoteAddr()))
	if r.dial != nil && r.fd >= 0 && r.dial.failed(r, err) {
		return // on its way to the next target
	}
	if r.debugs() {
		r.log.Debug("connection closed", slog.Any("flow", r), slog.Any("error", err))
	}
	if err == nil {
		r.closeHost(hostsock.Close)
	} else {
		r.closeHost(hostsock.Reset)
	}
	r.forget()
}

// abandon ends the relay because the forwarder ends. A stream that the sandbox
// has finished is the host kernel's to deliver; a reset would discard it.
func (r *relay) abandon() {
	if r.guestEOF {
		r.closeHost(hostsock.Close)
	}
	r.abort()
}

// abort resets both ends.
func (r *relay) abort() {
	r.closeHost(hostsock.Reset)
	switch {
	case r.connecting: // held: nobody calls Closed
		r.conn.Refuse(tcp.Reset)
		r.forget()
	case r.conn != nil:
		r.conn.Abort()
	default:
		r.forget()
	}
}

func (r *relay) closeHost(how func(int)) {
	if r.fd < 0 {
		return
	}
	r.loop.Forget(r.token)
	how(r.fd)
	r.fd = -1
}

// LogValue implements slog.LogValuer.
func (r *relay) LogValue() slog.Value {
	if r.conn == nil {
		return slog.StringValue("tcp")
	}
	return slog.GroupValue(slog.String("sandbox", r.conn.RemoteAddr().String()), slog.String("peer", r.conn.LocalAddr().String()))
}
