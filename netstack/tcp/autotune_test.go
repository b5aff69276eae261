package tcp

import (
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// growing is a configuration whose buffers begin at 64 KiB.
func growing() Config {
	cfg := testConfig()
	cfg.SendBuffer, cfg.SendBufferMax = 64<<10, 16<<20
	cfg.ReceiveBuffer, cfg.ReceiveBufferMax = 64<<10, 16<<20
	return cfg
}

const distance = 100 * time.Millisecond

// distant is a connection with a peer that answers after distance.
func distant(t *testing.T, cfg Config, opt header.TCPOptions) *script {
	s := newScript(t, cfg)
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.ts, s.tsVal = opt.Timestamp, 5000
	opt.TSVal = s.tsVal
	s.exchange(seg{flags: fSYN, opt: opt})
	s.after(distance)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	if s.conn().State() != Established {
		t.Fatal("not established")
	}
	return s
}

// window is what the peer may still send.
func (s *script) window() int { return int(s.conn().rcvAdv.Diff(s.conn().rcvNxt)) }

// fill sends all that the window takes.
func (s *script) fill() {
	s.t.Helper()
	c := s.conn()
	for left := s.window(); left > 0; {
		n := min(left, 60_000)
		s.in(seg{flags: fACK, seq: int(c.rcvNxt.Diff(peerISN)), ack: 1, data: string(make([]byte, n))})
		left -= n
	}
	s.flush()
}

// TestWindowGrowsWithWhatARoundTripBrings has a peer fill the window once in a
// round trip, with timestamps and without.
func TestWindowGrowsWithWhatARoundTripBrings(t *testing.T) {
	with, without := fullOptions(), fullOptions()
	without.Timestamp = false
	for _, opt := range []header.TCPOptions{with, without} {
		s := distant(t, growing(), opt)
		for range 12 {
			s.fill()
			s.after(distance)
		}
		if w := s.window(); w < 16<<20-1<<9 || w > 16<<20+1<<9 {
			t.Errorf("timestamps %v: window of %d, want 16 MiB", opt.Timestamp, w)
		}
	}
}

// TestWindowStaysWhereTheHandlerIsSlow: a reader that takes 10 KiB in a round trip
// needs no more than it has, whatever the path would bring.
func TestWindowStaysWhereTheHandlerIsSlow(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	s.log.limit = -1
	for range 50 {
		s.fill()
		s.after(distance)
		s.log.drain(s.conn(), 10<<10)
		s.flush()
	}
	if c := s.conn(); c.rcvTune.size != 64<<10 {
		t.Fatalf("receive buffer of %d", c.rcvTune.size)
	}
}

// TestRoundTripIsKnownByEchoedTimestamps: after a handshake whose SYN-ACK had to
// be repeated, or whose state was in a cookie, nothing else tells it to one who
// only receives.
func TestRoundTripIsKnownByEchoedTimestamps(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	c := s.conn()
	*c.trip.least = 0
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "one"})
	s.after(30 * time.Millisecond)
	s.exchange(seg{flags: fACK, seq: 4, ack: 1, data: "two"})
	if d := *c.trip.least; d < 20*time.Millisecond || d > 30*time.Millisecond {
		t.Fatalf("round trip of %v, want the acknowledgement's delay less than 30 ms", d)
	}
	// One that was never sent is no echo.
	s.after(time.Second)
	s.exchange(seg{flags: fACK, seq: 7, ack: 1, data: "x"})
	s.tsEcr += 1000
	s.exchange(seg{flags: fACK, seq: 8, ack: 1, data: "y"})
	if d := *c.trip.least; d < 20*time.Millisecond {
		t.Fatalf("round trip of %v", d)
	}
	s.tsEcr -= 1000
	// One that is longer changes nothing.
	s.after(time.Second)
	s.exchange(seg{flags: fACK, seq: 9, ack: 1, data: "three"})
	if d := *c.trip.least; d > 30*time.Millisecond {
		t.Fatalf("round trip of %v", d)
	}
}

// TestSendBufferGrowsWithWhatIsAcknowledged has a peer acknowledge all it gets,
// a round trip later.
func TestSendBufferGrowsWithWhatIsAcknowledged(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	c := s.conn()
	data := make([]byte, 1<<20)
	for range 40 {
		for c.Write(data) > 0 {
		}
		s.flush()
		s.after(distance)
		s.exchange(seg{flags: fACK, seq: 1, ack: int(c.sndNxt.Diff(c.iss)), wnd: 65535})
	}
	// The window of 65535 << 7 is the peer's; what arrives of that in a round trip
	// is asked for twice.
	if n := c.sndTune.size; n < 15<<20 || n > 16<<20 {
		t.Fatalf("send buffer of %d", n)
	}
	if d := *c.trip.least; d != distance {
		t.Fatalf("round trip of %v", d)
	}
}

// TestSendBufferStaysWhereTheWriterIsSlow: what is written in small pieces always
// finds room.
func TestSendBufferStaysWhereTheWriterIsSlow(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	c := s.conn()
	c.cwnd = 1 << 20
	for range 40 {
		c.Write(make([]byte, 40<<10))
		s.flush()
		s.after(distance)
		s.exchange(seg{flags: fACK, seq: 1, ack: int(c.sndNxt.Diff(c.iss)), wnd: 65535})
	}
	if n := c.sndTune.size; n != 64<<10 {
		t.Fatalf("send buffer of %d", n)
	}
}

func TestScaleAllowsTheWindowThatMayCome(t *testing.T) {
	cfg := growing()
	s := newScript(t, cfg)
	wide := func(what string, out []outSegment) {
		t.Helper()
		if len(out) != 1 || !out[0].flags.Has(fSYN) || 0xffff<<out[0].opt.WindowScale < 16<<20-1<<9 || out[0].wnd != 0xffff {
			t.Errorf("%s: %v", what, out)
		}
	}
	if _, err := s.e.Dial(s.local, s.remote, s.log); err != nil {
		t.Fatal(err)
	}
	wide("SYN", s.flush())

	s = newScript(t, cfg)
	s.e.SetOpenHandler(func(c *Conn) { c.Accept(s.log) })
	wide("SYN-ACK", s.exchange(seg{flags: fSYN, opt: fullOptions()}))

	s = newScript(t, cfg)
	if _, err := s.e.Listen(s.local, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		out := s.exchange(seg{flags: fSYN, opt: fullOptions()})
		wide("SYN-ACK", out)
		s.remote = netip.AddrPortFrom(s.remote.Addr(), s.remote.Port()+1)
	}
	if s.e.Stats().Cookies == 0 {
		t.Error("no cookie among them")
	}
}

// TestPressureOnMemoryStopsGrowthAndTakesNothingBack: with half of all memory in
// use a connection has what it began with again, but what its window has promised
// is kept.
func TestPressureOnMemoryStopsGrowthAndTakesNothingBack(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	c, p := s.conn(), &s.e.pool
	for range 4 {
		s.fill()
		s.after(distance)
	}
	size, edge := s.window(), c.rcvAdv
	if size < 256<<10 {
		t.Fatalf("window of %d before", size)
	}
	var held []*chunk
	for !p.pressed() {
		held = append(held, p.get(false))
	}
	// The last byte promised, out of order.
	s.exchange(seg{flags: fACK, seq: int(edge.Diff(peerISN)) - 1000, ack: 1, data: string(make([]byte, 1000))})
	if d := s.e.Stats().Drops; d.Memory+d.OutOfWindow != 0 || len(c.in.ranges) != 1 || c.in.ranges[0].end != edge {
		t.Fatalf("not kept: %+v, %v", d, c.in.ranges)
	}
	s.fill()
	for range 20 {
		s.after(distance)
		if w := s.window(); w > 64<<10+1<<9 {
			t.Fatalf("window of %d under pressure", w)
		}
		s.fill()
	}
	c.Write(make([]byte, 1<<20))
	if c.Unacked() != 64<<10 {
		t.Fatalf("%d bytes to send under pressure", c.Unacked())
	}
	for _, h := range held {
		p.put(h)
	}
	s.fill()
	if w := s.window(); w < 256<<10 {
		t.Fatalf("window of %d when it is over", w)
	}
}

// TestLongRoundTripsDoNotBuyMemory: peers that answer late get wide windows, and
// then fill them while nobody reads.
func TestLongRoundTripsDoNotBuyMemory(t *testing.T) {
	cfg := growing()
	cfg.Limits.BufferBytes = 64 * chunkSize
	s := distant(t, cfg, fullOptions())
	for range 10 {
		s.fill()
		s.after(distance)
	}
	if w := s.window(); w < 8<<20 {
		t.Fatalf("window of %d", w)
	}
	s.log.limit = -1
	s.fill()
	if n := s.e.Stats().BufferBytes; n > cfg.Limits.BufferBytes {
		t.Fatalf("%d bytes of buffers, %d are allowed", n, cfg.Limits.BufferBytes)
	}
	if s.e.Stats().Drops.Memory == 0 {
		t.Fatal("the bound was not reached")
	}
}

// TestRecordsAreEnoughForAFullBuffer sends 16 MiB in single segments: each has a
// record of its own, by which its loss is found.
func TestRecordsAreEnoughForAFullBuffer(t *testing.T) {
	cfg := testConfig()
	cfg.SendBuffer, cfg.Caps = 16<<20, frame.Capabilities{}
	opt := fullOptions()
	opt.WindowScale = 10
	s := established(t, cfg, opt)
	c := s.conn()
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535})
	c.cwnd = 1 << 30
	if n := c.Write(make([]byte, 16<<20)); n != 16<<20 {
		t.Fatalf("%d written", n)
	}
	s.flush()
	if n := s.e.Stats().RecordsJoined; n != 0 || c.unsent() >= c.mss {
		t.Fatalf("%d transmissions share a record, %d bytes were not sent", n, c.unsent())
	}
}

func TestTransferIsExactWhileBuffersGrow(t *testing.T) {
	for seed := range uint64(24) {
		cfg := testConfig()
		cfg.SendBuffer, cfg.SendBufferMax = 4096<<(seed%5), 1<<20
		cfg.ReceiveBuffer, cfg.ReceiveBufferMax = 4096<<(seed/5), 1<<20
		if seed%3 == 0 {
			cfg.Limits.BufferBytes = 8 * chunkSize // and shrink again
		}
		path := impairment{delay: 10 * time.Millisecond, loss: 0.002 * float64(seed%3), reorder: 0.01, jitter: 5 * time.Millisecond}
		transfer(t, seed, path, cfg, cfg, 3<<20, 300_000)
	}
}

// TestSACKedRecordsAreJoined: however much arrives behind a hole, it costs one
// record, in whichever order it is reported.
func TestSACKedRecordsAreJoined(t *testing.T) {
	cfg := testConfig()
	cfg.SendBuffer, cfg.Caps = 1<<20, frame.Capabilities{}
	opt := fullOptions()
	opt.WindowScale = 10
	for name, order := range map[string]func(i, n int) int{
		"ascending":  func(i, n int) int { return i },
		"descending": func(i, n int) int { return n - 1 - i },
		"scattered":  func(i, n int) int { return i * 17 % n }, // n is no multiple of 17
	} {
		s := established(t, cfg, opt)
		c := s.conn()
		s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535})
		c.cwnd = 1 << 30
		c.Write(make([]byte, 1<<20))
		s.flush()
		sent := append([]sent(nil), c.sent.all()...)
		const n = 600
		for i := range n {
			r := sent[50+order(i, n)]
			o := header.TCPOptions{Timestamp: true, TSVal: s.tsVal, TSEcr: s.tsEcr, NumSACK: 1}
			o.SACK[0] = header.SACKBlock{Left: r.start, Right: r.end}
			s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535, opt: o}) // and all invariants are looked at
		}
		if want := len(sent) - n + 1; c.sent.count() != want || c.sacked != n*c.mss {
			t.Errorf("%s: %d records, want %d; %d bytes SACKed, want %d", name, c.sent.count(), want, c.sacked, n*c.mss)
		}
	}
}

// TestShortestTripIsSharedByAnAddress: a connection that begins while the queue is
// full takes that for no long path, if another has seen it empty.
func TestShortestTripIsSharedByAnAddress(t *testing.T) {
	s := established(t, growing(), fullOptions()) // in no time
	first := s.conn()
	s.remote = netip.AddrPortFrom(s.remote.Addr(), 6000)
	s.exchange(seg{flags: fSYN, opt: fullOptions()})
	s.after(distance)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1})
	c := s.conn()
	if c == first || *c.trip.least != time.Microsecond {
		t.Fatalf("round trip of %v", *c.trip.least)
	}
	for range 20 {
		s.fill()
		s.after(distance)
	}
	if c.rcvTune.size != 64<<10 {
		t.Fatalf("receive buffer of %d", c.rcvTune.size)
	}
	// Of addresses that come and go only the last are remembered.
	var all trips
	for i := range 100 {
		*all.to(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})) = time.Duration(i)
	}
	if d := *all.to(netip.AddrFrom4([4]byte{10, 0, 0, 99})); d != 99 {
		t.Fatalf("%v", d)
	}
	if d := *all.to(netip.AddrFrom4([4]byte{10, 0, 0, 1})); d != 0 {
		t.Fatalf("%v", d)
	}
}

// TestSendBufferGrowsThoughTheWriterComesLater: a relay that was told that there is
// room fills it only after the next acknowledgements have been taken, and these may
// be the ones that end the count.
func TestSendBufferGrowsThoughTheWriterComesLater(t *testing.T) {
	s := distant(t, growing(), fullOptions())
	c := s.conn()
	c.cwnd = 1 << 30
	if n := c.Write(make([]byte, 1<<20)); n != 64<<10 {
		t.Fatalf("%d bytes written", n)
	}
	s.flush()
	s.after(time.Millisecond)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1 + 1448, wnd: 65535}) // counting begins
	s.after(5 * time.Millisecond)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1 + 40_000, wnd: 65535})
	if s.log.writable != 1 || c.wantWrite {
		t.Fatal("the writer was not told")
	}
	s.after(10 * time.Millisecond)
	*c.trip.least = 15 * time.Millisecond
	s.exchange(seg{flags: fACK, seq: 1, ack: 1 + 64<<10, wnd: 65535})
	if n := c.sndTune.size; n != 128<<10 {
		t.Fatalf("send buffer of %d", n)
	}
}
