package dns

import (
	"bytes"
	"errors"
	"net"
	"os"
	"time"
)

// A socket that fails this often in a row is not going to recover.
const maxFailures = 16

// ServePacket answers queries that arrive on pc until the server or pc is
// closed, and then returns net.ErrClosed. It closes pc.
func (s *Server) ServePacket(pc net.PacketConn) error {
	if !s.adopt(pc) {
		pc.Close()
		return net.ErrClosed
	}
	defer s.disown(pc)
	buf := make([]byte, maxMessage)
	for failures := 0; ; {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if failures++; s.isFinal(err, failures) {
				return s.closedOr(err)
			}
			s.pause(failures)
			continue
		}
		failures = 0
		if n < headerLen {
			s.malformed.Add(1)
			continue
		}
		select {
		case s.inFlight <- struct{}{}:
		default:
			s.dropped.Add(1) // the client asks again
			continue
		}
		query := message(bytes.Clone(buf[:n]))
		s.running.Add(1)
		go func() {
			defer func() { <-s.inFlight; s.running.Done() }()
			if answer := s.answer("udp", query); answer != nil {
				pc.WriteTo(answer, from)
			}
		}()
	}
}

// isFinal tells an error that ends a listener from one that passes, such as
// running out of descriptors.
func (s *Server) isFinal(err error, failures int) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || s.ctx.Err() != nil || failures > maxFailures
}

func (s *Server) closedOr(err error) error {
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	return err
}

// pause waits a little longer after each failure in a row.
func (s *Server) pause(failures int) {
	select {
	case <-time.After(time.Duration(failures) * 5 * time.Millisecond):
	case <-s.ctx.Done():
	}
}
