package tcp

import "testing"

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
