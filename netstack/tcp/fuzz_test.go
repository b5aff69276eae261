package tcp

import (
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// FuzzInput drives an engine with segments made from bytes: eight for each, so
// that mutations stay near a connection's numbers. Invariants are checked after
// each, and a raw segment is tried too.
func FuzzInput(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00\x10\x01\x00\x01\x00\x04\x00\x00\x11\x05\x00\x01\x00\x00\x00\x00"))
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 16, 1, 0, 1, 0, 255, 0, 0, 16, 50, 0, 1, 0, 20, 3, 1, 17, 80, 0, 1, 0, 1, 9, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newScript(t, fuzzConfig())
		s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
		s.e.Listen(s.local, 1)
		if len(b) > 0 && b[0]&1 != 0 {
			s.e.listeners[s.local].Close()
		}
		s.e.Input(&Packet{Now: s.now, Src: s.remote.Addr(), Dst: s.local.Addr(), TCP: b})
		for i := 0; len(b) >= 8 && i < 200; i++ {
			s.fuzzStep(b[:8])
			b = b[8:]
		}
		s.after(time.Hour)
	})
}

func fuzzConfig() Config {
	c := testConfig()
	c.SendBuffer, c.ReceiveBuffer = 16<<10, 16<<10
	return c
}

// fuzzStep is one segment, or one call on the connection, from eight bytes.
func (s *script) fuzzStep(b []byte) {
	s.log.limit = int(b[7]&3) - 1
	if c := s.conn(); c != nil && b[6] >= 200 {
		switch b[6] % 8 {
		case 0:
			c.Write(make([]byte, 1+int(b[5])*64))
		case 1:
			c.CloseWrite()
		case 2:
			if b[5] > 200 {
				c.Close()
			}
		case 3:
			c.Consume(int(b[5]) * 16)
		case 4:
			if b[5] > 250 {
				c.Abort()
			}
		case 5:
			s.after(time.Duration(b[5]) * 20 * time.Millisecond)
		case 6:
			c.SetKeepAlive(time.Second, time.Second, 2)
		case 7:
			c.HoldWindow(b[5]&1 != 0)
			if b[5] > 200 {
				s.fuzzRelease(c)
			}
		}
	}
	g := seg{flags: header.TCPFlags(b[0]), seq: int(int8(b[1])), ack: int(int8(b[3])), size: int(b[7])}
	if b[2]&1 != 0 {
		g.seq += s.peerNext()
	}
	if c := s.conn(); c != nil && b[2]&2 != 0 {
		g.ack += int(c.sndNxt.Diff(s.iss))
	}
	g.data = string(make([]byte, int(b[5])*(1+int(b[2]>>4))))
	g.wnd = int(b[4]) << (b[7] & 7)
	g.ecn = b[6] & 3
	g.opt = header.TCPOptions{HasMSS: b[6]&4 != 0, MSS: uint16(b[4]) * 16, SACKPermitted: b[6]&8 != 0,
		HasWindowScale: b[6]&16 != 0, WindowScale: b[7] & 15}
	if b[6]&32 != 0 {
		g.opt.NumSACK = int(b[6] & 3)
		for i := range g.opt.NumSACK {
			g.opt.SACK[i] = s.block(g.ack+int(b[7])*(i+1), g.ack+int(b[7])*(i+1)+int(b[1]))
		}
	}
	if b[6]&64 != 0 {
		g.opt.Timestamp, g.opt.TSVal, g.opt.TSEcr = true, uint32(b[4]), s.tsEcr
	}
	s.exchange(g)
}

// fuzzRelease releases the connection, lets time pass, and takes it back or
// forgets it.
func (s *script) fuzzRelease(c *Conn) {
	still := c.Still()
	r, err := c.Release()
	if still != (err == nil) {
		s.t.Fatalf("still: %v, and released with %v", still, err)
	}
	if err != nil {
		return
	}
	s.none(s.exchange(seg{flags: fACK, seq: s.peerNext(), ack: 1, data: "late"}))
	s.none(s.after(time.Hour))
	if len(s.log.got)&1 != 0 {
		s.e.TakeBack(c)
		return
	}
	s.e.Grant(r, 1<<20)
	if out := s.flush(); len(out) != 1 {
		s.t.Fatalf("%d segments", len(out))
	}
	s.e.Forget(r.Local, r.Remote)
}

// peerNext is the sequence number the engine expects of its peer.
func (s *script) peerNext() int {
	if c := s.conn(); c != nil {
		return int(c.rcvNxt.Diff(peerISN))
	}
	return 0
}
