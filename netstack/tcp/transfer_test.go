package tcp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// source writes data into a connection as room allows and then closes.
type source struct {
	data []byte
	rand *rand.Rand
}

func (s *source) pump(c *Conn) {
	for len(s.data) > 0 {
		n := min(len(s.data), 1+s.rand.IntN(100_000))
		m := c.Write(s.data[:n])
		s.data = s.data[m:]
		if m < n {
			return
		}
	}
	c.CloseWrite()
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// connect has a dial to b on port 80, where everything is accepted by log lb.
func (w *world) connect(la, lb *peerLog) *Conn {
	w.t.Helper()
	w.b.e.SetOpenHandler(func(c *Conn) { lb.c = c; c.Accept(lb) })
	c, err := w.a.e.Dial(w.addrPort(w.a, 0), w.addrPort(w.b, 80), la)
	if err != nil {
		w.t.Fatal(err)
	}
	la.c = c
	return c
}

// establish is connect on a path that must not lose the handshake.
func (w *world) establish(la, lb *peerLog) {
	w.t.Helper()
	w.connect(la, lb)
	if !w.run(time.Second, func() bool { return la.established == 1 && lb.established == 1 }) {
		w.t.Fatalf("not established: %v and %v", la.c.State(), lb.c.State())
	}
}

func TestHandshakeDataAndClose(t *testing.T) {
	w := newWorld(t, 1, testConfig(), testConfig())
	la, lb := &peerLog{}, &peerLog{}
	w.establish(la, lb)
	la.c.Write([]byte("request"))
	lb.c.Write([]byte("reply"))
	w.run(100*time.Millisecond, nil)
	if string(lb.got) != "request" || string(la.got) != "reply" {
		t.Fatalf("got %q and %q", lb.got, la.got)
	}
	la.c.CloseWrite()
	w.run(100*time.Millisecond, nil)
	if lb.eof != 1 || lb.c.State() != CloseWait || la.c.State() != FinWait2 {
		t.Fatalf("after half-close: eof %d, %v and %v", lb.eof, la.c.State(), lb.c.State())
	}
	lb.c.Write([]byte(" and more"))
	lb.c.CloseWrite()
	w.run(100*time.Millisecond, nil)
	if string(la.got) != "reply and more" || la.eof != 1 {
		t.Fatalf("half-closed side got %q, eof %d", la.got, la.eof)
	}
	if la.closed != 1 || lb.closed != 1 || la.err != nil || lb.err != nil {
		t.Fatalf("closed %d %v, %d %v", la.closed, la.err, lb.closed, lb.err)
	}
	if la.c.State() != TimeWait || w.a.e.Stats().TimeWait != 1 || w.b.e.Stats().Connections != 0 {
		t.Fatalf("left behind: %v %+v %+v", la.c.State(), w.a.e.Stats(), w.b.e.Stats())
	}
	w.run(2*time.Minute, nil)
	if w.a.e.Stats().TimeWait != 0 || w.a.timers.Len() != 0 || w.b.timers.Len() != 0 {
		t.Fatalf("TIME-WAIT does not end: %+v", w.a.e.Stats())
	}
}

// transfer moves n bytes each way over a path and checks them.
func transfer(t *testing.T, seed uint64, path impairment, ca, cb Config, na, nb int) (took time.Duration) {
	t.Helper()
	w := newWorld(t, seed, ca, cb)
	w.path = path
	if seed%4 == 3 {
		w.a.addr, w.b.addr = addrA6, addrB6
	}
	da, db := randomBytes(w.rand, na), randomBytes(w.rand, nb)
	la, lb := &peerLog{}, &peerLog{}
	sa, sb := &source{da, w.rand}, &source{db, w.rand}
	la.onWritable, lb.onWritable = sa.pump, sb.pump
	start := w.now
	ca1 := w.connect(la, lb)
	sa.pump(ca1)
	w.run(10*time.Minute, func() bool { return lb.established == 1 || la.closed == 1 })
	if lb.established == 1 {
		sb.pump(lb.c)
	}
	ok := w.run(2*time.Hour, func() bool { return la.closed == 1 && lb.closed == 1 })
	if !ok || la.err != nil || lb.err != nil {
		t.Fatalf("seed %d: not closed in order: %v %v, %v %v; %d of %d and %d of %d bytes, states %v %v", seed,
			la.closed, la.err, lb.closed, lb.err, len(lb.got), na, len(la.got), nb, la.c.State(), lb.c.State())
	}
	if !bytes.Equal(lb.got, da) || !bytes.Equal(la.got, db) {
		t.Fatalf("seed %d: bytes differ: %d of %d and %d of %d", seed, len(lb.got), na, len(la.got), nb)
	}
	return w.now.Sub(start)
}

func TestTransferIsExactOnACleanPath(t *testing.T) {
	for seed := range uint64(20) {
		path := impairment{delay: time.Duration(1+seed) * 100 * time.Microsecond}
		transfer(t, seed, path, testConfig(), testConfig(), 1<<20, 300_000)
	}
}

func TestTransferIsExactUnderImpairment(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 77))
		path := impairment{
			loss: r.Float64() * 0.15, dup: r.Float64() * 0.05, reorder: r.Float64() * 0.3,
			delay: time.Duration(r.IntN(20_000)+50) * time.Microsecond,
		}
		path.jitter = path.delay * 2
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			transfer(t, seed, path, randomConfig(r), randomConfig(r), r.IntN(400_000), r.IntN(100_000))
		})
	}
}

// optionSets is what paths may leave of our SYN's options.
var optionSets = [][]byte{
	nil,
	{header.TCPOptionSACKPermitted},
	{header.TCPOptionTimestamp},
	{header.TCPOptionWindowScale},
	{header.TCPOptionSACKPermitted, header.TCPOptionTimestamp, header.TCPOptionWindowScale},
	{header.TCPOptionMSS},
}

func TestTransferIsExactWithoutOptions(t *testing.T) {
	for seed := range uint64(90) {
		r := rand.New(rand.NewPCG(seed, 78))
		path := impairment{
			loss: r.Float64() * 0.08, reorder: r.Float64() * 0.1, dup: r.Float64() * 0.05,
			delay: 5 * time.Millisecond, jitter: 10 * time.Millisecond,
			strip: optionSets[seed%uint64(len(optionSets))],
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			transfer(t, seed, path, randomConfig(r), randomConfig(r), r.IntN(300_000), r.IntN(100_000))
		})
	}
}

func TestTransferSurvivesBlackouts(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 79))
		path := impairment{delay: 3 * time.Millisecond, dark: time.Duration(r.IntN(900)) * time.Millisecond}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			transfer(t, seed, path, randomConfig(r), randomConfig(r), r.IntN(2_000_000), r.IntN(1_000_000))
		})
	}
}

// TestSlowReaderLosesNothing has a handler that takes a little of what it is
// offered and the rest now and then, over a path that loses.
func TestSlowReaderLosesNothing(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 80))
		w := newWorld(t, seed, randomConfig(r), randomConfig(r))
		w.path = impairment{delay: time.Millisecond, loss: r.Float64() * 0.05}
		data := randomBytes(w.rand, 300_000)
		la, lb := &peerLog{}, &peerLog{limit: 1 + r.IntN(3000)}
		src := &source{data, w.rand}
		la.onWritable = src.pump
		lb.onEOF = func(c *Conn) { c.Close() }
		src.pump(w.connect(la, lb))
		for range 20_000 {
			w.run(time.Duration(r.IntN(5_000_000)), nil)
			if lb.c != nil && lb.c.State() != Closed {
				lb.drain(lb.c, 1+r.IntN(20_000))
			}
			if lb.closed == 1 && la.closed == 1 {
				break
			}
		}
		if !bytes.Equal(lb.got, data) || lb.err != nil || la.err != nil {
			t.Fatalf("seed %d: %d of %d bytes, %v %v", seed, len(lb.got), len(data), la.err, lb.err)
		}
	}
}

// TestRandomEnds opens many connections on a bad path and ends them in every
// way at any time. Nothing may be left behind.
func TestRandomEnds(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 81))
		w := newWorld(t, seed, randomConfig(r), randomConfig(r))
		w.path = impairment{delay: 5 * time.Millisecond, loss: 0.05, dup: 0.02, reorder: 0.1, jitter: 20 * time.Millisecond}
		var logs []*peerLog
		w.b.e.SetOpenHandler(func(c *Conn) {
			l := &peerLog{c: c}
			logs = append(logs, l)
			if r.IntN(5) == 0 {
				c.SetHandler(l)
				return
			}
			c.Accept(l)
		})
		for range 30 {
			l := &peerLog{}
			c, err := w.a.e.Dial(w.addrPort(w.a, 0), w.addrPort(w.b, 80), l)
			if err != nil {
				t.Fatal(err)
			}
			l.c = c
			logs = append(logs, l)
		}
		for range 600 {
			w.run(time.Duration(r.IntN(20_000_000)), nil)
			l := logs[r.IntN(len(logs))]
			switch r.IntN(12) {
			case 0:
				l.c.Close()
			case 1:
				l.c.Abort()
			case 2, 3:
				l.c.CloseWrite()
			case 4:
				l.c.Accept(l)
			case 5:
				l.c.Refuse(Refusal(r.IntN(6)))
			default:
				l.c.Write(make([]byte, r.IntN(30_000)))
			}
		}
		w.b.e.SetOpenHandler(nil) // old SYNs may still arrive
		for _, l := range logs {
			if l.c.State() == Held {
				l.c.Refuse(Silent)
			}
			l.c.Close()
		}
		w.run(3*time.Hour, nil)
		for _, h := range []*host{w.a, w.b} {
			if st := h.e.Stats(); st.Connections != 0 || st.Held != 0 || st.TimeWait != 0 || h.timers.Len() != 0 {
				t.Fatalf("seed %d host %s: left %+v and %d timers", seed, h.name, st, h.timers.Len())
			}
			if used := h.e.pool.total - len(h.e.pool.free); used != 0 {
				t.Fatalf("seed %d host %s: %d chunks lost", seed, h.name, used)
			}
		}
		for _, l := range logs {
			if l.closed > 1 || l.c.State() != Closed && l.c.State() != TimeWait {
				t.Fatalf("seed %d: %v, told %d times", seed, l.c.State(), l.closed)
			}
		}
	}
}

// randomConfig is an engine with or without offload, with any MTU and buffers.
func randomConfig(r *rand.Rand) Config {
	c := testConfig()
	c.Caps.TSO4 = r.IntN(2) == 0
	c.MTU = []int{576, 1280, 1500, 9000, 65520}[r.IntN(5)]
	c.SendBuffer = 4096 << r.IntN(8)
	c.ReceiveBuffer = 4096 << r.IntN(8)
	if r.IntN(2) == 0 {
		c.Congestion = "newreno"
	}
	return c
}
