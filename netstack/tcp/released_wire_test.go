package tcp

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// wireLog is what segments say of a connection to one who only reads the wire.
type wireLog struct {
	ours, peers wireEnd
}

// wireEnd is what one end has said, in its last segment or in all.
type wireEnd struct {
	seq, ack, window uint32 // window in bytes
	options          header.TCPOptions
	syn              header.TCPOptions // of its SYN
	segments         int
	next             uint32 // behind all it has sent
	widest           uint32 // window, bytes
	edge             uint32 // the highest
	creep            uint32 // the most that one segment has moved the edge
}

// watch has the segments of a world noted, ours being host h's.
func (w *world) watch(h *host) *wireLog {
	l := &wireLog{}
	w.path.lose = func(from *host, t header.TCP, payload []byte) bool {
		if from == h {
			l.ours.note(t, len(payload))
		} else {
			l.peers.note(t, len(payload))
		}
		return false
	}
	return l
}

func (e *wireEnd) note(t header.TCP, n int) {
	e.segments++
	e.options = t.Options()
	e.seq, e.ack, e.window = uint32(t.Seq()), uint32(t.Ack()), uint32(t.Window())
	next := e.seq + uint32(n)
	if t.Flags().Has(fSYN) {
		next++
		e.next, e.syn = next, e.options
	} else {
		e.window <<= e.syn.WindowScale
	}
	if int32(next-e.next) > 0 {
		e.next = next
	}
	e.widest = max(e.widest, e.window)
	if !t.Flags().Has(fACK) {
		return
	}
	edge := e.ack + e.window
	switch {
	case e.edge == 0:
		e.edge = edge
	case int32(edge-e.edge) > 0:
		e.creep = max(e.creep, edge-e.edge)
		e.edge = edge
	}
}

// stream is a connection on which b sends to a for as long as it may.
type stream struct {
	*world
	a, b *peerLog
	log  *wireLog // a's being ours
}

// startStream has one of the hosts dial, and stops when a has something.
func startStream(t *testing.T, ca, cb Config, dialer func(w *world) *host) *stream {
	t.Helper()
	w := newWorld(t, 1, ca, cb)
	s := &stream{world: w, a: &peerLog{}, b: &peerLog{}, log: w.watch(w.a)}
	src := &source{randomBytes(w.rand, 4<<20), w.rand}
	s.b.onWritable = src.pump
	from := dialer(w)
	logs := map[*host]*peerLog{w.a: s.a, w.b: s.b}
	from.peer.e.SetOpenHandler(func(c *Conn) { logs[from.peer].c = c; c.Accept(logs[from.peer]) })
	c, err := from.e.Dial(w.addrPort(from, 0), w.addrPort(from.peer, 80), logs[from])
	if err != nil {
		t.Fatal(err)
	}
	logs[from].c = c
	if !w.run(time.Second, func() bool { return s.b.established == 1 && s.a.established == 1 }) {
		t.Fatal("not established")
	}
	src.pump(s.b.c)
	s.a.c.Write([]byte("request"))
	if !w.run(time.Second, func() bool { return len(s.a.got) > 100_000 && len(s.b.got) == 7 }) {
		t.Fatalf("%d and %d bytes have arrived", len(s.a.got), len(s.b.got))
	}
	return s
}

// stop holds a's window until b has used it up.
func (s *stream) stop() {
	s.t.Helper()
	s.a.c.HoldWindow(true)
	s.log.ours.creep = 0
	if !s.run(10*time.Second, func() bool { return s.a.c.Still() && s.a.c.WindowUsedUp() }) {
		s.t.Fatalf("still %v, %d bytes of window left", s.a.c.Still(), s.a.c.rcvAdv.Diff(s.a.c.rcvNxt))
	}
}

func (s *stream) release() Released {
	s.t.Helper()
	r, err := s.a.c.Release()
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// scaled is a configuration whose windows have units of so many bytes.
func scaled(unit int) Config {
	c := testConfig()
	c.ReceiveBuffer, c.ReceiveBufferMax = min(256<<10, unit*0xffff), unit*0xffff
	return c
}

func dialsA(w *world) *host { return w.a }
func dialsB(w *world) *host { return w.b }

// TestHeldWindowStopsThePeerAtItsEdge: where the window has no scale the edge does
// not move at all; else as far as rounding takes it.
func TestHeldWindowStopsThePeerAtItsEdge(t *testing.T) {
	for _, unit := range []int{1, 2, 128, 512} {
		t.Run(fmt.Sprint("unit of ", unit), func(t *testing.T) {
			s := startStream(t, scaled(unit), testConfig(), dialsB)
			edge, wide := s.log.ours.edge, s.log.ours.window
			s.stop()
			if n := s.log.ours.edge - edge; unit == 1 && n != 0 || n > wide/2 {
				t.Errorf("the edge of a window of %d bytes has moved by %d", wide, n)
			}
			if n := s.log.ours.creep; n >= uint32(unit) {
				t.Errorf("one segment has moved the edge by %d", n)
			}
			if n := s.log.peers.next; int32(n-s.log.ours.edge) > 0 {
				t.Errorf("the peer has sent %d bytes beyond the edge", n-s.log.ours.edge)
			}
			got := len(s.a.got)
			s.run(10*time.Second, nil) // with the peer's probes
			if n := len(s.a.got) - got; n > s.a.c.rcvMSS {
				t.Errorf("%d bytes more have come", n)
			}
			s.a.c.HoldWindow(false)
			s.run(10*time.Second, nil)
			if len(s.a.got) != 4<<20 {
				t.Errorf("%d bytes have come in all", len(s.a.got))
			}
		})
	}
}

func TestHeldWindowNeverMovesByASegment(t *testing.T) {
	s := established(t, scaled(1), mss(1460))
	c := s.conn()
	c.HoldWindow(true)
	at, edge := 1, 1+0xffff
	for _, n := range append(slices.Repeat([]int{1000}, 64), 535, 1) {
		if c.WindowUsedUp() {
			t.Fatalf("used up with %d bytes left", edge-at)
		}
		for _, o := range s.exchange(seg{flags: fACK, seq: at, ack: 1, data: string(make([]byte, n))}) {
			if o.ack+o.wnd != edge {
				t.Fatalf("edge %d, was %d", o.ack+o.wnd, edge)
			}
		}
		at += n
	}
	if !c.WindowUsedUp() || c.rcvMSS != 1000 {
		t.Fatalf("not used up with %d bytes left for segments of %d", edge-at, c.rcvMSS)
	}
	for _, o := range s.after(time.Second) {
		if o.ack+o.wnd != edge {
			t.Fatalf("edge %d, was %d", o.ack+o.wnd, edge)
		}
	}
	rest := edge - at
	o := s.one(s.exchange(seg{flags: fACK, seq: at, ack: 1, data: string(make([]byte, rest+1))}), fACK, 1, edge, 0)
	if o.wnd != 0 || c.Buffered() != 0 || len(s.log.got) != edge-1 {
		t.Fatalf("window %d after it was overrun, %d bytes taken", o.wnd, len(s.log.got))
	}
	if o := s.one(s.exchange(seg{flags: fACK, seq: edge, ack: 1, data: "?"}), fACK, 1, edge, 0); o.wnd != 0 {
		t.Fatalf("window %d in answer to a probe", o.wnd)
	}
	c.HoldWindow(false)
	if o := s.one(s.flush(), fACK, 1, edge, 0); o.wnd != 0xffff {
		t.Fatalf("window %d when let go", o.wnd)
	}
	s.none(s.flush())
}

// A hold that ends before anything has come says nothing.
func TestHoldThatNarrowedNothingNeedsNoUpdate(t *testing.T) {
	s := wellRead(t, fullOptions())
	s.conn().HoldWindow(true)
	s.none(s.flush())
	s.conn().HoldWindow(false)
	s.none(s.flush())
}

func TestReleasedStateIsThatOfTheWire(t *testing.T) {
	for name, dialer := range map[string]func(w *world) *host{"dialled": dialsA, "accepted": dialsB} {
		t.Run(name, func(t *testing.T) {
			s := startStream(t, scaled(512), scaled(128), dialer)
			s.stop()
			s.now = s.now.Add(1234 * time.Millisecond) // the clock goes on meanwhile
			s.world.a.e.SetNow(s.now)
			c, ours, peers := s.a.c, &s.log.ours, &s.log.peers
			r := s.release()
			want := Released{
				Local: c.LocalAddr(), Remote: c.RemoteAddr(),
				SendNext: ours.next, ReceiveNext: peers.next,
				SendWindow: peers.window, MaxSendWindow: peers.widest, SendWindowSeq: r.SendWindowSeq,
				ReceiveWindow: ours.edge - peers.next,
				SendScale:     peers.syn.WindowScale, ReceiveScale: ours.syn.WindowScale, WindowScaling: true,
				MSS: int(peers.syn.MSS), SACKPermitted: true,
				Timestamps: true, Timestamp: r.Timestamp, TimestampRecent: peers.options.TSVal,
			}
			if r != want {
				t.Errorf("released\n%+v, on the wire is\n%+v", r, want)
			}
			if r.SendScale != 7 || r.ReceiveScale != 9 {
				t.Errorf("scales %d and %d", r.SendScale, r.ReceiveScale)
			}
			if n := int32(r.Timestamp - ours.options.TSVal); n < 1234 || n > 1250 {
				t.Errorf("timestamp %d ms after that of the last segment", n)
			}
			if n := int32(peers.next - r.SendWindowSeq); n < 0 || n > 0xffff {
				t.Errorf("the window is from %d bytes ago", n)
			}
		})
	}
}

// A peer without options, IPv4's default segments and a smaller window by the end.
func TestReleasedStateWithoutOptions(t *testing.T) {
	s := wellRead(t, header.TCPOptions{})
	s.none(s.exchange(seg{flags: fACK, seq: 11, ack: 11, wnd: 5000}))
	r, err := s.conn().Release()
	want := Released{
		Local: s.local, Remote: s.remote, SendNext: uint32(s.iss) + 11, ReceiveNext: peerISN + 11,
		SendWindow: 5000, MaxSendWindow: 60000, SendWindowSeq: peerISN + 11, ReceiveWindow: 0xffff - 10, MSS: 536,
		Timestamp: r.Timestamp, TimestampRecent: r.TimestampRecent,
	}
	if err != nil || r != want {
		t.Fatalf("released\n%+v, %v, want\n%+v", r, err, want)
	}
}

// A path that carries less than the peer takes bounds the segments.
func TestReleasedMSSIsThatOfThePath(t *testing.T) {
	s := wellRead(t, mss(1460))
	s.conn().Write([]byte("x"))
	s.flush()
	s.e.Unreachable(s.local, s.remote, s.iss.Add(11), 0, 1000)
	s.flush()
	s.exchange(seg{flags: fACK, seq: 11, ack: 12})
	if r, err := s.conn().Release(); err != nil || r.MSS != 960 {
		t.Fatalf("MSS %d, %v", r.MSS, err)
	}
}

// TestGrantOpensThePeersWindow: the peer, which has used its window up, sends what
// is granted, and goes on with one who takes the connection over after that.
func TestGrantOpensThePeersWindow(t *testing.T) {
	for name, dialer := range map[string]func(w *world) *host{"dialled": dialsA, "accepted": dialsB} {
		t.Run(name, func(t *testing.T) {
			s := startStream(t, scaled(512), testConfig(), dialer)
			s.stop()
			r := s.release()
			before, ours, peers := s.log.peers, &s.log.ours, &s.log.peers
			s.run(50*time.Millisecond, nil)
			count := ours.segments
			s.world.a.e.Grant(r, 100_000)
			s.run(time.Second, nil)
			if ours.segments != count+1 || ours.seq != r.SendNext || ours.next != r.SendNext ||
				ours.ack != r.ReceiveNext {
				t.Fatalf("%d segments; at %d, acknowledges %d", ours.segments-count, ours.seq, ours.ack)
			}
			if ours.window != 100_000/512*512 || s.b.c.sndWnd != ours.window {
				t.Errorf("granted %d, and the peer has got %d", ours.window, s.b.c.sndWnd)
			}
			if ours.options.TSVal != r.Timestamp || ours.options.TSEcr != before.options.TSVal {
				t.Errorf("TSval %d, TSecr %d", ours.options.TSVal, ours.options.TSEcr)
			}
			if sent := peers.next - before.next; sent > ours.window || sent+uint32(s.b.c.mss) < ours.window {
				t.Errorf("the peer has sent %d bytes", sent)
			}
			st := s.world.a.e.Stats()
			if st.Drops.Released == 0 || st.ResetsOut != 0 || st.Drops.Stray != 0 {
				t.Errorf("%+v", st.Drops)
			}
			s.takeOver(r)
		})
	}
}

// takeOver has one whose clock begins with that of the release, and now, take all
// that the peer has sent.
func (s *stream) takeOver(r Released) {
	s.t.Helper()
	una := s.b.c.sndUna
	o := header.TCPOptions{Timestamp: true, TSVal: r.Timestamp + 1, TSEcr: s.log.peers.options.TSVal}
	b := make([]byte, 60)
	n := header.PutTCPOptions(b[20:], &o)
	header.PutTCP(b, header.TCPFields{
		SourcePort: r.Local.Port(), DestinationPort: r.Remote.Port(), Flags: fACK,
		Seq: s.b.c.rcvNxt, Ack: s.b.c.sndNxt, Window: 1000, OptionsLen: n,
	})
	s.world.b.e.Input(&Packet{Now: s.now, Src: r.Local.Addr(), Dst: r.Remote.Addr(), TCP: b[:20+n]})
	if st := s.world.b.e.Stats(); st.Drops != (Drops{}) || s.b.c.sndUna == una || s.b.c.outstanding() != 0 {
		s.t.Errorf("the peer does not believe the one who goes on: %+v", st.Drops)
	}
}

// What a peer has been told holds whatever is granted, and the field what it can.
func TestGrantIsNeverLessThanThePeerWasTold(t *testing.T) {
	for _, c := range []struct {
		left  uint32
		scale uint8
		grant uint32
		field uint16
	}{
		{left: 1000, grant: 0, field: 1000},
		{left: 1000, grant: 2000, field: 2000},
		{left: 1000, scale: 9, grant: 0, field: 2},
		{left: 1024, scale: 9, grant: 1023, field: 2},
		{left: 1024, scale: 9, grant: 1536, field: 3},
		{left: 0, scale: 9, grant: 511, field: 0},
		{left: 0xffff << 9, scale: 9, grant: 1, field: 0xffff},
		{left: 0, scale: 14, grant: 1<<32 - 1, field: 0xffff},
		{left: 0, grant: 1 << 20, field: 0xffff},
		{left: 1<<32 - 1, scale: 14, grant: 0, field: 0xffff},
	} {
		r := Released{ReceiveWindow: c.left, ReceiveScale: c.scale}
		if got := r.windowField(c.grant); got != c.field {
			t.Errorf("%d bytes left, unit %d, granted %d: field %d, want %d", c.left, 1<<c.scale, c.grant, got, c.field)
		}
	}
}

func TestGrantIsForReleasedConnectionsOnly(t *testing.T) {
	s := wellRead(t, fullOptions())
	r := s.conn().released()
	s.e.Grant(r, 1<<20)
	s.none(s.flush())
	s.conn().Release()
	s.e.Grant(r, 1<<20)
	s.one(s.flush(), fACK, 11, 11, 0)
	s.e.Forget(r.Local, r.Remote)
	s.e.Grant(r, 1<<20)
	s.none(s.flush())
}

// Over IPv6 as over IPv4.
func TestReleaseOverIPv6(t *testing.T) {
	s := startStream(t, scaled(512), testConfig(), func(w *world) *host {
		w.a.addr, w.b.addr = addrA6, addrB6
		return w.b
	})
	s.stop()
	r := s.release()
	count := s.log.peers.segments
	s.world.a.e.Grant(r, 1<<20)
	s.run(100*time.Millisecond, nil)
	if st := s.world.a.e.Stats(); s.log.peers.segments == count || st.Drops.Released == 0 || st.ResetsOut != 0 {
		t.Errorf("%d segments after the grant, %+v", s.log.peers.segments-count, st.Drops)
	}
}
