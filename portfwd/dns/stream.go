package dns

import (
	"net"
	"sync"
	"time"
)

// Serve answers queries that arrive on connections to l until the server or l
// is closed, and then returns net.ErrClosed. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if !s.adopt(l) {
		l.Close()
		return net.ErrClosed
	}
	defer s.disown(l)
	for failures := 0; ; {
		conn, err := l.Accept()
		if err != nil {
			if failures++; s.isFinal(err, failures) {
				return s.closedOr(err)
			}
			s.pause(failures)
			continue
		}
		failures = 0
		select {
		case s.connections <- struct{}{}:
		default:
			s.dropped.Add(1)
			conn.Close()
			continue
		}
		if !s.adopt(conn) {
			conn.Close()
			return net.ErrClosed
		}
		go func() {
			defer func() { s.disown(conn); <-s.connections }()
			s.serveConn(conn)
		}()
	}
}

// serveConn reads queries as long as they come in time. Answers are written in
// the order in which they become known (RFC 7766 §6.2.1.1).
func (s *Server) serveConn(conn net.Conn) {
	c := stream{Conn: conn, server: s, slots: make(chan struct{}, s.limits.PerConnection)}
	defer c.answering.Wait()
	for {
		conn.SetReadDeadline(time.Now().Add(s.limits.Idle))
		query, err := readFramed(conn)
		if err != nil {
			return
		}
		if !c.begin() {
			return
		}
		go c.reply(query)
	}
}

// stream is one TCP connection.
type stream struct {
	net.Conn
	server    *Server
	slots     chan struct{} // queries being answered
	answering sync.WaitGroup
	writing   sync.Mutex
}

// begin waits for a free slot on the connection and in the server: a client that
// asks faster than it is answered has its window closed.
func (c *stream) begin() bool {
	for _, slots := range []chan struct{}{c.slots, c.server.inFlight} {
		select {
		case slots <- struct{}{}:
		case <-c.server.ctx.Done():
			return false
		}
	}
	c.answering.Add(1)
	return true
}

func (c *stream) reply(query message) {
	defer func() {
		<-c.server.inFlight
		<-c.slots
		c.answering.Done()
	}()
	answer := c.server.answer("tcp", query)
	c.writing.Lock()
	defer c.writing.Unlock()
	if answer == nil {
		c.Close() // nothing that speaks DNS sends us responses
		return
	}
	c.SetWriteDeadline(time.Now().Add(c.server.limits.Idle))
	if err := writeFramed(c, answer); err != nil {
		c.Close()
	}
}
