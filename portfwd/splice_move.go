package portfwd

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
)

// copyMost is the most that is copied at a time, or copyBulk of bulk where there is no
// pipe. A message is cheaper to copy than to splice; from this size on there is a pipe
// in between.
const (
	copyMost = 16 << 10
	copyBulk = 64 << 10
)

// move passes on what one end has said, as far as the other takes it and the
// connection's share of a turn goes. It reports whether there is more to do now.
//
// While there is something in the pipe, nothing is added: so it is empty whenever
// it is filled, and when nothing comes then, the socket has nothing.
func (c *splice) move(w *spliceWay) (again bool) {
	for moved := 0; c.client.fd >= 0 && !w.ended; {
		if w.held > 0 {
			if !w.to.writable {
				return false
			}
			c.drain(w)
			continue
		}
		if !w.from.readable || !w.to.writable && !w.from.hung {
			break
		}
		if moved >= bytesPerFlow {
			again = true
			break
		}
		n, blocked := c.take(w, bytesPerFlow-moved)
		moved += n
		if blocked {
			break
		}
	}
	if w.held == 0 {
		c.letGo(w)
	}
	return again
}

// take moves up to most bytes out of the socket that w comes from: through the pipe
// if there are many, else straight to the other end. It reports how many, and
// whether that end takes no more.
func (c *splice) take(w *spliceWay, most int) (n int, blocked bool) {
	if !w.pipe.Open() {
		w.pipe = c.splices.takePipe(c.loop.Now())
	}
	if !w.bulk || !w.pipe.Open() {
		return c.copy(w)
	}
	n, errno := w.pipe.Fill(w.from.fd, most)
	if n == 0 && (errno == 0 || errno == unix.EAGAIN && w.from.hung) {
		// That may be an urgent byte, beyond which nothing is spliced, and no end.
		return c.copy(w)
	}
	if c.stopped(w, n, errno) {
		return 0, false
	}
	w.held, w.bulk = n, n >= copyMost
	return n, false
}

// copy takes what a message has. Of what the other end does not take, the rest goes
// to the pipe; without one it stays in the socket, which costs a call more.
func (c *splice) copy(w *spliceWay) (n int, blocked bool) {
	size, read := copyMost, hostsock.Receive
	if !w.pipe.Open() {
		read = hostsock.Peek
		if w.bulk {
			size = copyBulk
		}
	}
	p := c.splices.room(size)
	n, errno := read(w.from.fd, p)
	if c.stopped(w, n, errno) {
		return 0, false
	}
	w.bulk = n >= copyMost // what comes next is spliced
	// Less than there was room for has emptied the socket, and more of it is a new
	// edge; but what has hung up has no more edges to come.
	w.from.readable = n == len(p) || w.from.hung
	sent, errno := hostsock.Send(w.to.fd, p[:n])
	if errno != 0 && errno != unix.EAGAIN {
		c.writeFailed(w, errno)
		return 0, false
	}
	w.to.writable = sent == n
	if sent > 0 {
		c.passed(w, sent)
	}
	if w.pipe.Open() {
		if w.held = w.pipe.Keep(p[sent:n]); w.held < n-sent { // it is in the socket no more
			c.failed(unix.ENOBUFS)
			c.reset()
		}
		return n, sent < n
	}
	hostsock.Discard(w.from.fd, sent)
	w.from.readable = w.from.readable || sent < n
	return sent, sent < n
}

// drain gives what is in the pipe to the socket that w goes to.
func (c *splice) drain(w *spliceWay) {
	n, errno := w.pipe.Drain(w.to.fd, w.held)
	switch {
	case errno == unix.EAGAIN:
		w.to.writable = false
	case errno != 0:
		c.writeFailed(w, errno)
	default:
		w.held -= n
		c.passed(w, n)
	}
}

// passed counts bytes that have gone all the way.
func (c *splice) passed(w *spliceWay, n int) {
	*w.moved += uint64(n)
	c.moved += n
	c.touch()
}

// stopped looks at the result of reading, and reports that nothing was read.
func (c *splice) stopped(w *spliceWay, n int, errno unix.Errno) bool {
	switch {
	case errno == unix.EAGAIN:
		w.from.readable = false
	case errno != 0:
		// All that this end has said before is passed on.
		c.failed(errno)
		c.reset()
	case n == 0:
		c.passEnd(w)
	default:
		return false
	}
	return true
}

// passEnd ends the stream to who gets w.
func (c *splice) passEnd(w *spliceWay) {
	w.ended = true
	switch {
	case !c.open: // it was a relay
	case w == &c.out && !c.in.ended:
		c.ports.sockets.leave(c.port)
	case w == &c.in && !c.out.ended:
		c.ports.sockets.keep()
	}
	switch {
	case c.broken:
		c.reset()
	case c.in.ended && c.out.ended:
		c.finish()
	default:
		hostsock.ShutdownWrite(w.to.fd)
		c.watch()
	}
}

// writeFailed is called when an end takes no more because it was reset. What it
// said before may still lie in its socket, and is to arrive.
func (c *splice) writeFailed(w *spliceWay, errno unix.Errno) {
	c.failed(errno)
	back := &c.in
	if w == back {
		back = &c.out
	}
	if back.ended {
		c.reset()
		return
	}
	c.letGo(w)
	w.ended, c.broken = true, true
	w.to.readable, w.to.hung = true, true
	c.watch()
	c.wake()
}

func (c *splice) failed(err error) {
	if c.debugs() {
		c.log.Debug("spliced connection failed", slog.Any("flow", c), slog.Any("error", err))
	}
}

// letGo returns the pipe. What is in it is lost.
func (c *splice) letGo(w *spliceWay) {
	if w.pipe.Open() {
		c.splices.givePipe(w.pipe, w.held == 0)
		w.pipe, w.held = hostsock.Pipe{}, 0
	}
}
