package tcp

import (
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// script is one engine whose peer is the test: it injects segments and looks at
// what comes out. The peer's sequence numbers count from its ISN, 1000, and the
// acknowledgements it sends and sees from ours, so that tests read like traces.
type script struct {
	t             testing.TB
	e             *Engine
	timers        timer.Queue
	batch         frame.Batch
	now           timer.Instant
	local, remote netip.AddrPort
	iss           seq.Value // ours, learned from the SYN or SYN-ACK
	ts            bool      // the peer's segments carry timestamps
	tsVal         uint32
	tsEcr         uint32
	unreachable   []Refusal
	out           []outSegment
	ecns          []uint8
	log           *peerLog
}

const peerISN = 1000

// seg is a segment to inject. seq and ack count from the two ISNs.
type seg struct {
	flags header.TCPFlags
	seq   int
	ack   int
	wnd   int // 0: 60000; -1: 0
	data  string
	opt   header.TCPOptions
	size  int
	ecn   uint8
}

// outSegment is a segment that came out. seq and ack count from the ISNs.
type outSegment struct {
	flags   header.TCPFlags
	seq     int
	ack     int
	wnd     int
	data    string
	opt     header.TCPOptions
	gsoSize int
	ecn     uint8
	raw     header.TCP
}

const (
	fSYN = header.SYN
	fACK = header.ACK
	fFIN = header.FIN
	fRST = header.RST
	fPSH = header.PSH
)

func newScript(t testing.TB, cfg Config) *script {
	s := &script{t: t, now: timer.Instant(time.Hour), log: &peerLog{},
		local:  netip.MustParseAddrPort("10.0.2.2:80"),
		remote: netip.MustParseAddrPort("10.0.2.100:5000")}
	s.e = NewEngine(cfg, s, &s.timers)
	s.e.SetNow(s.now)
	return s
}

func (s *script) AppendTCP(r *Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	f := s.batch.Append(tcpLen)
	f.GSOSize = 0
	s.ecns = append(s.ecns, r.ECN)
	return f, f.Header
}

func (s *script) SendUnreachable(r *Route, reason Refusal, irs uint32) {
	if irs != peerISN {
		s.t.Errorf("ICMP error quotes sequence number %d", irs)
	}
	s.unreachable = append(s.unreachable, reason)
}

// in injects a segment without flushing.
func (s *script) in(g seg) {
	wnd := 60000
	if g.wnd > 0 {
		wnd = g.wnd
	} else if g.wnd < 0 {
		wnd = 0
	}
	o := g.opt
	if s.ts && !o.Timestamp {
		o.Timestamp, o.TSVal, o.TSEcr = true, s.tsVal, s.tsEcr
	}
	b := make([]byte, 60, 60+len(g.data))
	f := header.TCPFields{
		SourcePort: s.remote.Port(), DestinationPort: s.local.Port(),
		Seq: seq.Value(peerISN + g.seq), Flags: g.flags, Window: uint16(wnd),
	}
	if g.flags.Has(fACK) {
		f.Ack = s.iss.Add(uint32(g.ack))
	}
	if g.flags.Has(fSYN) {
		f.OptionsLen = header.PutTCPSYNOptions(b[20:], &o)
	} else {
		f.OptionsLen = header.PutTCPOptions(b[20:], &o)
	}
	header.PutTCP(b, f)
	b = append(b[:20+f.OptionsLen], g.data...)
	s.e.Input(&Packet{Now: s.now, Src: s.remote.Addr(), Dst: s.local.Addr(), TCP: b,
		SegmentSize: g.size, ECN: g.ecn})
}

// flush collects what the engine has to say.
func (s *script) flush() []outSegment {
	s.t.Helper()
	s.e.Flush()
	s.out = s.out[:0]
	for i := range s.batch.Frames() {
		f := &s.batch.Frames()[i]
		raw := f.AppendTo(nil)
		h, payload, ok := header.ParseTCP(raw)
		if !ok {
			s.t.Fatal("malformed segment")
		}
		o := outSegment{flags: h.Flags(), data: string(payload), opt: h.Options(),
			gsoSize: int(f.GSOSize), raw: h, wnd: int(h.Window()), ecn: s.ecns[i]}
		if h.Flags().Has(fSYN) {
			s.iss = h.Seq()
		}
		o.seq = int(h.Seq().Diff(s.iss))
		if h.Flags().Has(fACK) {
			o.ack = int(h.Ack().Diff(peerISN))
		}
		if o.opt.Timestamp {
			s.tsEcr = o.opt.TSVal
		}
		s.out = append(s.out, o)
	}
	s.batch.Reset()
	s.ecns = s.ecns[:0]
	s.e.Reclaim()
	for _, c := range s.e.conns {
		if err := c.invariants(); err != nil {
			s.t.Fatalf("%v: %v", c.state, err)
		}
	}
	return s.out
}

// exchange injects a segment and returns the answers.
func (s *script) exchange(g seg) []outSegment {
	s.t.Helper()
	s.in(g)
	return s.flush()
}

// after lets time pass, with all its timers, and returns what came out.
func (s *script) after(d time.Duration) []outSegment {
	s.t.Helper()
	end := s.now.Add(d)
	var all []outSegment
	for n := 0; s.timers.Next() <= end; n++ {
		if n > 100_000 {
			s.t.Fatalf("timers run wild: deadlines %v", s.conn().deadline)
		}
		s.now = max(s.now, s.timers.Next())
		s.e.SetNow(s.now)
		s.timers.Run(s.now)
		all = append(all, s.flush()...)
	}
	s.now = end
	s.e.SetNow(end)
	return append(all, s.flush()...)
}

// one wants exactly one segment with the given flags, seq, ack and payload length.
func (s *script) one(out []outSegment, flags header.TCPFlags, seq, ack, n int) outSegment {
	s.t.Helper()
	if len(out) != 1 {
		s.t.Fatalf("%d segments, want one: %v", len(out), out)
	}
	o := out[0]
	if o.flags != flags || o.seq != seq || o.ack != ack || len(o.data) != n {
		s.t.Fatalf("got %v seq %d ack %d len %d, want %v seq %d ack %d len %d",
			o.flags, o.seq, o.ack, len(o.data), flags, seq, ack, n)
	}
	return o
}

func (s *script) none(out []outSegment) {
	s.t.Helper()
	if len(out) != 0 {
		s.t.Fatalf("want silence, got %v", out)
	}
}

// conn is the script's only connection.
func (s *script) conn() *Conn { return s.log.c }

// established is a script with a connection the peer has opened. opt is the
// SYN's options.
func established(t testing.TB, cfg Config, opt header.TCPOptions) *script {
	t.Helper()
	s := newScript(t, cfg)
	s.e.SetOpenHandler(func(c *Conn) { s.log.c = c; c.Accept(s.log) })
	s.ts, s.tsVal = opt.Timestamp, 5000
	if opt.Timestamp {
		opt.TSVal = s.tsVal
	}
	s.one(s.exchange(seg{flags: fSYN, opt: opt}), fSYN|fACK, 0, 1, 0)
	s.none(s.exchange(seg{flags: fACK, seq: 1, ack: 1}))
	if s.conn().State() != Established || s.log.established != 1 {
		t.Fatalf("not established: %v", s.conn().State())
	}
	s.conn().quickACKs = 0
	return s
}

func mss(n uint16) header.TCPOptions { return header.TCPOptions{HasMSS: true, MSS: n} }

func sackMSS(n uint16) header.TCPOptions {
	return header.TCPOptions{HasMSS: true, MSS: n, SACKPermitted: true}
}

func fullOptions() header.TCPOptions {
	return header.TCPOptions{HasMSS: true, MSS: 1460, SACKPermitted: true, Timestamp: true,
		HasWindowScale: true, WindowScale: 7}
}
