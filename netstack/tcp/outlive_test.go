package tcp

import (
	"testing"
	"time"
)

// A handler that reads slowly gets all of a stream whose peer has closed, though
// the connection is over on the wire: the peer was told that it has arrived.
func TestUnreadDataOutlivesTheConnection(t *testing.T) {
	for name, last := range map[string]func(s *script){
		"LAST-ACK": func(s *script) {
			s.exchange(seg{flags: fACK | fFIN, seq: 1, ack: 1, data: "unread"})
			s.conn().CloseWrite()
			s.one(s.flush(), fFIN|fACK, 1, 8, 0)
			s.none(s.exchange(seg{flags: fACK, seq: 8, ack: 2}))
		},
		"reset in CLOSING": func(s *script) {
			s.conn().CloseWrite()
			s.one(s.flush(), fFIN|fACK, 1, 1, 0)
			s.one(s.exchange(seg{flags: fACK | fFIN, seq: 1, ack: 1, data: "unread"}), fACK, 2, 8, 0)
			s.none(s.exchange(seg{flags: fRST, seq: 8}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := established(t, testConfig(), mss(1460))
			s.log.limit = -1 // takes nothing
			last(s)
			if s.e.Stats().Connections != 0 || s.log.eof != 0 || s.log.closed != 0 {
				t.Fatalf("%d connections, eof %d, closed %d", s.e.Stats().Connections, s.log.eof, s.log.closed)
			}
			s.none(s.after(3 * timeWaitTimeout)) // nothing hurries the handler
			s.log.drain(s.conn(), 100)
			s.none(s.flush())
			if string(s.log.got) != "unread" || s.log.eof != 1 || s.log.closed != 1 || s.log.err != nil {
				t.Fatalf("read %q, eof %d, closed %d, %v", s.log.got, s.log.eof, s.log.closed, s.log.err)
			}
		})
	}
}

// Nobody waits for an orphan, but the data it has queued was taken from its
// writer: a reader who opens the window now and then gets all of it.
func TestOrphanOutlastsASlowReader(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.conn().Write(make([]byte, 20_000))
	s.conn().Close()
	read := 0
	for read < 20_000 {
		if s.conn().State() == Closed {
			t.Fatalf("reset after %d bytes", read)
		}
		for _, o := range s.exchange(seg{flags: fACK, seq: 1, ack: 1 + read, wnd: 1000}) {
			read += len(o.data)
		}
		s.exchange(seg{flags: fACK, seq: 1, ack: 1 + read, wnd: -1})
		for _, o := range s.after(time.Second) { // some probes, each answered
			if len(o.data) == 0 {
				s.exchange(seg{flags: fACK, seq: 1, ack: 1 + read, wnd: -1})
			}
		}
	}
}

func TestHandlerThatAbortsWhileOfferedTheBufferHearsOfNoEOF(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.limit = -1
	s.exchange(seg{flags: fACK | fFIN, seq: 1, ack: 1, data: "abc"})
	next := &peerLog{onData: func(c *Conn, p []byte) { c.Abort() }}
	s.conn().SetHandler(next)
	s.flush()
	if next.eof != 0 || next.closed != 1 || next.err != ErrAborted {
		t.Fatalf("eof %d, closed %d, %v", next.eof, next.closed, next.err)
	}
}
