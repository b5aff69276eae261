package tcp

import (
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// BenchmarkSACKInAFullBuffer is the acknowledgements that follow a loss at the
// head of 16 MiB in flight in single segments, each of which reports two more.
func BenchmarkSACKInAFullBuffer(b *testing.B) {
	cfg := testConfig()
	cfg.SendBuffer, cfg.Caps = 16<<20, frame.Capabilities{}
	opt := fullOptions()
	opt.WindowScale = 10
	s := established(b, cfg, opt)
	c := s.conn()
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535})
	c.cwnd = 1 << 30
	c.Write(make([]byte, 16<<20))
	s.flush()
	s.now = s.now.Add(100 * time.Millisecond) // and no timer runs: acknowledgements come
	full := c.sent.all()
	records := append([]sent(nil), full...)
	sender := c.sender
	n := 0
	for b.Loop() {
		if n++; 2*n+1 >= len(records) {
			b.StopTimer()
			n = 1
			recs := append(c.sent.recs[:0], records...)
			c.sender = sender
			c.sent.recs, c.sent.head = recs, 0
			c.cwnd = 0 // nothing is sent again
			b.StartTimer()
		}
		o := header.TCPOptions{Timestamp: true, TSVal: s.tsVal, TSEcr: s.tsEcr, NumSACK: 1}
		o.SACK[0] = header.SACKBlock{Left: records[1].start, Right: records[2*n].end}
		s.in(seg{flags: fACK, seq: 1, ack: 1, wnd: 65535, opt: o})
	}
}
