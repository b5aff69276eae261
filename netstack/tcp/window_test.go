package tcp

import (
	"testing"
	"time"
)

// A segment from behind a gap has a higher sequence number than the
// acknowledgements that follow it. Their windows count all the same.
func TestWindowBehindOutOfOrderSegmentIsTaken(t *testing.T) {
	s := established(t, testConfig(), mss(1000))
	s.exchange(seg{flags: fACK, seq: 1001, ack: 1, wnd: 4000, data: "out of order"})
	s.conn().Write(make([]byte, 10_000))
	sent := 0
	for _, o := range s.flush() {
		sent = max(sent, o.seq+len(o.data))
	}
	if sent != 4001 {
		t.Fatalf("sent up to %d, want 4001", sent)
	}
	for _, o := range s.exchange(seg{flags: fACK, seq: 1, ack: 2001, wnd: 2000}) {
		if len(o.data) > 0 {
			t.Fatalf("sends %d bytes at %d, beyond the right edge 4001", len(o.data), o.seq)
		}
	}
	for _, o := range s.exchange(seg{flags: fACK, seq: 1, ack: 2001, wnd: 3000}) {
		sent = max(sent, o.seq+len(o.data))
	}
	if sent != 5001 {
		t.Fatalf("sent up to %d, want 5001", sent)
	}
	// An older one, which the network has held back, does not shrink it.
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 1})
	if c := s.conn(); c.sndWnd != 3000 {
		t.Fatalf("window %d", c.sndWnd)
	}
}

// TestReceiverAvoidsSillyWindows has a reader take a byte at a time: the right
// edge stays until it can move by a segment (RFC 9293 §3.8.6.2.2).
func TestReceiverAvoidsSillyWindows(t *testing.T) {
	cfg := testConfig()
	cfg.ReceiveBuffer = 16 << 10
	s := established(t, cfg, mss(1460))
	c := s.conn()
	s.log.limit = -1 // takes nothing
	at := 1
	for range 16 {
		s.exchange(seg{flags: fACK, seq: at, ack: 1, data: string(make([]byte, 1024))})
		at += 1024
	}
	if o := s.one(s.exchange(seg{flags: fACK, seq: at, ack: 1, data: "x"}), fACK, 1, at, 0); o.wnd != 0 {
		t.Fatalf("window %d, want it closed", o.wnd)
	}
	step := c.rcvMSS
	for i := 1; i < step; i++ {
		s.log.drain(c, 1)
		s.none(s.flush())
	}
	s.log.drain(c, 1)
	if o := s.one(s.flush(), fACK, 1, at, 0); o.wnd != step {
		t.Fatalf("window %d after %d bytes were taken", o.wnd, step)
	}
}

// TestWindowScaleCountsFromTheHandshakeOn: the window in a SYN is not scaled, all
// others are (RFC 7323 §2.2).
func TestWindowScaleCountsFromTheHandshakeOn(t *testing.T) {
	s := newScript(t, testConfig())
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.ts, s.tsVal = true, 5000
	s.exchange(seg{flags: fSYN, wnd: 1000, opt: fullOptions()})
	if c := s.conn(); c.sndWnd != 1000 {
		t.Fatalf("window %d from the SYN", c.sndWnd)
	}
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 1000})
	if c := s.conn(); c.sndWnd != 1000<<7 {
		t.Fatalf("window %d from the handshake's ACK", c.sndWnd)
	}
}

// What an advertised window holds is taken, down to the last byte, by a receiver
// that nobody reads from. With a scale for large windows each acknowledgement
// rounds a small one up, and promises more every time.
func TestPromisedWindowIsTakenWhenNobodyReads(t *testing.T) {
	for _, size := range []int{4 << 10, 16 << 10, 100_000, 512 << 10} {
		for _, mtu := range []int{576, 1500} {
			sender, receiver := Config{MTU: mtu}, Config{MTU: mtu, ReceiveBuffer: size, ReceiveBufferMax: 16 << 20}
			w := newWorld(t, 1, sender, receiver)
			w.path = impairment{delay: time.Millisecond}
			la, lb := &peerLog{}, &peerLog{limit: -1}
			src := &source{randomBytes(w.rand, 2<<20), w.rand}
			la.onWritable = src.pump
			c := w.connect(la, lb)
			src.pump(c)
			w.run(3*time.Second, nil)
			if left := int(lb.c.rcvAdv.Diff(lb.c.rcvNxt)); left >= mtu {
				t.Errorf("buffer of %d bytes, MTU %d: %d bytes were promised room and not taken", size, mtu, left)
			}
			if held := lb.c.Buffered(); held < size-mtu || held > size+size/2+scaleSlack<<9 {
				t.Errorf("buffer of %d bytes, MTU %d: holds %d", size, mtu, held)
			}
		}
	}
}
