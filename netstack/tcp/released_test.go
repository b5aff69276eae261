package tcp

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// wellRead is an established connection that has sent and received ten bytes, all
// of them acknowledged and taken.
func wellRead(t *testing.T, opt header.TCPOptions) *script {
	t.Helper()
	s := established(t, testConfig(), opt)
	s.conn().Write([]byte("0123456789"))
	s.one(s.flush(), fACK|fPSH, 1, 1, 10)
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 11, data: "abcdefghij"}))
	s.one(s.after(delayedACK), fACK, 11, 11, 0)
	return s
}

func TestConnectionIsStillWhenNothingIsUnderWay(t *testing.T) {
	for name, disturb := range map[string]func(s *script){
		"unsent data": func(s *script) {
			s.exchange(seg{flags: fACK, seq: 11, ack: 11, wnd: -1})
			s.conn().Write([]byte("x"))
			s.none(s.flush())
		},
		"data not acknowledged": func(s *script) { s.conn().Write([]byte("x")); s.flush() },
		"data lost": func(s *script) {
			s.conn().Write([]byte("x"))
			s.flush()
			s.after(3 * time.Second)
		},
		"data nobody took": func(s *script) {
			s.log.limit = -1
			s.exchange(seg{flags: fACK, seq: 11, ack: 11, data: "unread"})
		},
		"data out of order": func(s *script) {
			s.exchange(seg{flags: fACK, seq: 12, ack: 11, data: "beyond a gap"})
		},
		"the peer's FIN": func(s *script) { s.exchange(seg{flags: fACK | fFIN, seq: 11, ack: 11}) },
		"the peer's FIN beyond a gap": func(s *script) {
			s.exchange(seg{flags: fACK | fFIN, seq: 12, ack: 11})
		},
		"FIN queued":         func(s *script) { s.conn().CloseWrite() },
		"FIN sent":           func(s *script) { s.conn().CloseWrite(); s.flush() },
		"FIN acknowledged":   func(s *script) { s.conn().CloseWrite(); s.flush(); s.in(seg{flags: fACK, seq: 11, ack: 12}) },
		"closed by its user": func(s *script) { s.conn().Close(); s.flush() },
		"closed on both sides": func(s *script) {
			s.conn().CloseWrite()
			s.flush()
			s.exchange(seg{flags: fACK | fFIN, seq: 11, ack: 12})
		},
		"reset": func(s *script) { s.exchange(seg{flags: fRST, seq: 11}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := wellRead(t, sackMSS(1460))
			c := s.conn()
			if !c.Still() {
				t.Fatal("not still though nothing is under way")
			}
			disturb(s)
			before := *c
			if c.Still() {
				t.Error("still")
			}
			if r, err := c.Release(); err != ErrNotStill || r != (Released{}) {
				t.Errorf("released: %+v, %v", r, err)
			}
			if c.state != before.state || c.attached != before.attached || c.deadline != before.deadline ||
				c.closedTold != before.closedTold || len(s.e.released) != 0 {
				t.Error("the refused release has changed something")
			}
		})
	}
}

// A release asked for while Data is called with what has just arrived would say
// that this is still to come.
func TestConnectionIsNotStillWithinData(t *testing.T) {
	s := wellRead(t, mss(1460))
	var err error
	s.log.onData = func(c *Conn, p []byte) { _, err = c.Release() }
	s.in(seg{flags: fACK, seq: 11, ack: 11, data: "new"})
	if err != ErrNotStill {
		t.Fatalf("released: %v", err)
	}
	if _, err = s.conn().Release(); err != nil {
		t.Fatal(err)
	}
	s.none(s.flush())
}

func TestConnectionThatNobodyHasAcceptedIsNotReleased(t *testing.T) {
	s := newScript(t, testConfig())
	l, err := s.e.Listen(s.local, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.exchange(seg{flags: fSYN, opt: mss(1460)})
	c := s.e.conns[flowKey{s.local, s.remote}]
	if c.Still() {
		t.Error("still in SYN-RECEIVED")
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	if c.Still() {
		t.Error("still in the accept queue")
	}
	l.Accept()
	if _, err := c.Release(); err != nil {
		t.Error(err)
	}
	l.Close()
	s.none(s.flush())
}

// late is segments that the peer may have on the way, or send if it goes on.
var late = []seg{
	{flags: fACK, seq: 11, ack: 11},
	{flags: fACK | fPSH, seq: 1, ack: 11, data: "abcdefghij"},
	{flags: fACK, seq: 11, ack: 11, data: "more"},
	{flags: fACK | fFIN, seq: 11, ack: 11},
	{flags: fRST, seq: 11},
	{flags: fSYN, opt: mss(1460)},
	{flags: fSYN | fACK, ack: 1, opt: mss(1460)},
	{flags: fACK, seq: 100_000, ack: 100_000},
}

func TestReleasedConnectionIsSilentUntilForgotten(t *testing.T) {
	s := wellRead(t, fullOptions())
	c := s.conn()
	c.SetKeepAlive(time.Second, time.Second, 3)
	s.in(seg{flags: fACK, seq: 11, ack: 11, data: "klm"}) // its ACK is owed
	r, err := c.Release()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.timers.Len(); n != 0 {
		t.Errorf("%d timers", n)
	}
	for _, g := range late {
		s.none(s.exchange(g))
	}
	s.e.Unreachable(s.local, s.remote, s.iss.Add(10), PortUnreachable, 0)
	s.none(s.after(time.Hour))
	st := s.e.Stats()
	if st.Connections != 0 || st.Released != 1 || st.Drops.Released != uint64(len(late)) || st.ResetsOut != 0 {
		t.Errorf("%+v", st)
	}
	if s.log.closed != 0 || s.log.eof != 0 || string(s.log.got) != "abcdefghijklm" {
		t.Errorf("the handler has heard: closed %d, eof %d, %q", s.log.closed, s.log.eof, s.log.got)
	}
	if _, err := s.e.Dial(s.local, s.remote, s.log); err != ErrInUse {
		t.Errorf("dialled between its ends: %v", err)
	}

	s.e.Forget(r.Local, r.Remote)
	s.e.Forget(r.Local, r.Remote)
	s.one(s.exchange(late[0]), fRST, 11, 0, 0)
	s.log.established = 0
	s.one(s.exchange(seg{flags: fSYN, opt: mss(1460)}), fSYN|fACK, 0, 1, 0)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	if st := s.e.Stats(); s.log.established != 1 || st.Connections != 1 || st.Released != 0 {
		t.Errorf("established %d, %+v", s.log.established, st)
	}
}

func TestAbortAsksThePeerWhereItIs(t *testing.T) {
	s := wellRead(t, fullOptions())
	s.e.Abort(s.local, s.remote, 11, 11)
	s.none(s.flush()) // it is the stack's
	r, err := s.conn().Release()
	if err != nil {
		t.Fatal(err)
	}
	s.none(s.exchange(late[0]))
	una, next := r.SendNext+5_000, r.ReceiveNext+300 // who went on with it has moved more
	s.e.Abort(r.Local, r.Remote, una, next)
	if g := s.one(s.flush(), fACK, 5_009, 311, 1); g.data != "\x00" {
		t.Errorf("payload %q", g.data)
	}
	s.one(s.exchange(seg{flags: fACK, seq: 311, ack: 6_000}), fRST, 6_000, 0, 0)
	s.none(s.exchange(seg{flags: fRST, seq: 11})) // of a peer that has no connection any more
	if st := s.e.Stats(); st.Released != 0 {
		t.Errorf("%+v", st)
	}
	s.e.Abort(r.Local, r.Remote, una, next)
	s.none(s.flush())
}

// The methods of a released connection do nothing, as those of a closed one.
func TestReleasedConnectionCanBeCalled(t *testing.T) {
	s := wellRead(t, fullOptions())
	c := s.conn()
	s.log.onWritable = func(c *Conn) {
		if _, err := c.Release(); err != nil {
			t.Fatal(err)
		}
	}
	c.wantWrite = true
	s.conn().markDirty()
	s.none(s.flush())
	if s.log.writable != 1 || c.State() != Closed || c.Still() {
		t.Fatalf("state %v", c.State())
	}
	c.HoldWindow(true)
	c.HoldWindow(false)
	c.SetHandler(s.log)
	c.SetKeepAlive(time.Second, time.Second, 1)
	c.Consume(1)
	c.CloseWrite()
	c.Close()
	c.Abort()
	if n := c.Write([]byte("x")); n != 0 {
		t.Errorf("wrote %d bytes", n)
	}
	if _, err := c.Release(); err != ErrNotStill {
		t.Error("released twice")
	}
	s.none(s.after(time.Hour))
	if s.log.closed != 0 {
		t.Error("Closed was called")
	}
}

// What a frame of the batch points into stays as it is until Reclaim, and then
// all memory is free.
func TestReleasedConnectionGivesItsMemoryBack(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.limit = -1
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "read late"})
	s.log.drain(s.conn(), 100)
	want := bytes.Repeat([]byte("payload "), 100)
	s.conn().Write(want)
	s.e.Flush()
	s.in(seg{flags: fACK, seq: 10, ack: 1 + len(want)}) // before the link has taken it
	if _, err := s.conn().Release(); err != nil {
		t.Fatal(err)
	}
	other, err := s.e.Dial(netip.AddrPortFrom(s.local.Addr(), 0), s.remote, &peerLog{})
	if err != nil {
		t.Fatal(err)
	}
	other.Write(bytes.Repeat([]byte("X"), chunkSize))
	got := s.batch.Frames()[0].AppendTo(nil)
	if !bytes.HasSuffix(got, want) {
		t.Error("the frame's payload has changed")
	}
	other.Abort()
	s.e.Flush()
	s.batch.Reset()
	s.e.Reclaim()
	if st := s.e.Stats(); st.BufferBytes != s.e.IdleBytes() || s.timers.Len() != 0 {
		t.Errorf("%d bytes of buffers, %d of them free; %d timers", st.BufferBytes, s.e.IdleBytes(), s.timers.Len())
	}
	s.e.Trim()
	if n := s.e.Stats().BufferBytes; n != 0 {
		t.Errorf("%d bytes of buffers", n)
	}
}

func TestReleasedConnectionsCountTowardsTheLimit(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Connections = 1
	s := established(t, cfg, mss(1460))
	r, err := s.conn().Release()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.e.Dial(netip.AddrPortFrom(s.local.Addr(), 0), s.remote, s.log); !errors.Is(err, ErrTooMany) {
		t.Errorf("dialled past the limit: %v", err)
	}
	s.e.Forget(r.Local, r.Remote)
	if _, err := s.e.Dial(netip.AddrPortFrom(s.local.Addr(), 0), s.remote, s.log); err != nil {
		t.Error(err)
	}
}

func TestPortOfAReleasedConnectionIsTaken(t *testing.T) {
	s := wellRead(t, mss(1460))
	any := netip.AddrPortFrom(s.local.Addr(), 0)
	next := s.e.nextPort
	port := s.e.pickPort(any.Addr(), s.remote)
	s.e.released[flowKey{netip.AddrPortFrom(any.Addr(), port), s.remote}] = struct{}{}
	s.e.nextPort = next
	if c, err := s.e.Dial(any, s.remote, s.log); err != nil || c.LocalAddr().Port() == port {
		t.Fatalf("dialled from port %d, %v", port, err)
	}
}
