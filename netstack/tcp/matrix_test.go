package tcp

import (
	"fmt"
	"testing"

	"sbxnet/netstack/header"
)

// inState is a script whose connection is in the given synchronised state, and
// the next sequence numbers: the peer's, ours as the peer acknowledges it.
func inState(t *testing.T, state State) (s *script, next, ack int) {
	t.Helper()
	s = established(t, testConfig(), mss(1460))
	c := s.conn()
	next, ack = 1, 1
	fin := func() { s.exchange(seg{flags: fFIN | fACK, seq: next, ack: ack}); next++ }
	closeWrite := func() { c.CloseWrite(); s.flush() }
	switch state {
	case FinWait1:
		closeWrite()
	case FinWait2:
		closeWrite()
		ack++
		s.exchange(seg{flags: fACK, seq: next, ack: ack})
	case CloseWait:
		fin()
	case Closing:
		closeWrite()
		fin()
	case LastAck:
		fin()
		closeWrite()
	}
	if c.State() != state {
		t.Fatalf("state %v, want %v", c.State(), state)
	}
	return s, next, ack
}

// TestEveryStateEveryPlace sends RST, SYN, ACK, FIN, SYN|FIN and nothing to
// every place of the window in every synchronised state, and compares with what
// RFC 9293 §3.10.7.4 and RFC 5961 say.
func TestEveryStateEveryPlace(t *testing.T) {
	states := []State{Established, FinWait1, FinWait2, CloseWait, Closing, LastAck}
	flags := []header.TCPFlags{fRST, fSYN, fACK, fFIN | fACK, fFIN, fSYN | fFIN, 0}
	places := []string{"outside left", "left edge", "inside", "right edge", "outside right"}
	for _, state := range states {
		for _, f := range flags {
			for i, place := range places {
				t.Run(fmt.Sprintf("%v %v %s", state, f, place), func(t *testing.T) {
					s, next, ack := inState(t, state)
					edge := int(s.conn().rcvAdv.Diff(peerISN))
					at := []int{next - 20, next, next + 20, edge, edge + 20}[i]
					out := s.exchange(seg{flags: f, seq: at, ack: ack})
					want, answer := expected(state, f, place)
					if got := s.conn().State(); got != want {
						t.Errorf("state %v, want %v", got, want)
					}
					if answered := len(out) > 0; answered != answer {
						t.Errorf("answered %v, want %v: %v", answered, answer, out)
					}
					for _, o := range out {
						if o.flags.Any(fRST|fSYN) || o.ack < next {
							t.Errorf("answer %v ack %d", o.flags, o.ack)
						}
					}
				})
			}
		}
	}
}

// expected is the state after a segment, and whether it is answered.
func expected(state State, f header.TCPFlags, place string) (next State, answer bool) {
	in := place == "left edge" || place == "inside"
	switch {
	case f == fSYN|fFIN || f == 0:
		return state, false
	case f == fRST && place == "left edge":
		return Closed, false
	case f == fRST:
		return state, in
	case !in || f == fSYN:
		return state, true
	case f == fFIN:
		return state, false // without ACK it is nothing
	case f == fACK|fFIN && place == "left edge" && state.canReceive():
		return map[State]State{Established: CloseWait, FinWait1: Closing, FinWait2: TimeWait}[state], true
	case f == fACK|fFIN && state.canReceive():
		return state, true // a gap before it
	}
	return state, false
}

func TestMemoryPressureStopsNobody(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.BufferBytes, cfg.Limits.IdleBytes = 4*chunkSize, chunkSize
	w := newWorld(t, 9, cfg, cfg)
	w.path.loss, w.path.reorder, w.path.jitter = 0.02, 0.1, w.path.delay*5
	var logs []*peerLog
	w.b.e.SetOpenHandler(func(c *Conn) {
		l := &peerLog{onEOF: func(c *Conn) { c.Close() }}
		logs = append(logs, l)
		c.Accept(l)
	})
	const n, size = 40, 300_000
	for range n {
		la := &peerLog{}
		src := &source{make([]byte, size), w.rand}
		la.onWritable = src.pump
		c, err := w.a.e.Dial(w.addrPort(w.a, 0), w.addrPort(w.b, 80), la)
		if err != nil {
			t.Fatal(err)
		}
		src.pump(c)
	}
	most := 0
	done := func() bool {
		most = max(most, w.a.e.pool.total)
		got := 0
		for _, l := range logs {
			got += len(l.got)
		}
		return got == n*size
	}
	if !w.run(3600e9, done) {
		t.Fatal("stuck")
	}
	if most > 2*n+4 { // each one's first, and as many that wait for the batch to leave
		t.Fatalf("%d chunks for %d connections", most, n)
	}
	w.run(3600e9, nil)
	if used := w.a.e.pool.total; used > 1 {
		t.Fatalf("%d chunks kept when idle, want the one that may be", used)
	}
}
