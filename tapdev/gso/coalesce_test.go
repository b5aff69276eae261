package gso

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sbxnet/netstack/frame"
)

var allKinds = Kinds{TCPv4: true, TCPv6: true, UDP: true}

// stream is n segments of one flow that follow each other.
func stream(s spec, size, n int) []frame.Frame {
	var frames []frame.Frame
	for i := range n {
		s := s
		s.payload = pattern((i + 1) * size)[i*size:]
		s.seq += uint32(i * size)
		s.id += uint16(i)
		frames = append(frames, s.build())
	}
	return frames
}

// join gathers what the coalescer made of the first n frames.
func (c *Coalescer) gather(frames []frame.Frame) frame.Frame {
	f := c.Joined
	for i := range frames {
		f.Payload[0] = append(f.Payload[0], frames[i].Payload[0]...)
		f.Payload[0] = append(f.Payload[0], frames[i].Payload[1]...)
	}
	return f
}

// checkIdentity joins a batch, cuts what was joined, and compares with the
// batch. It returns how many frames a link would have written.
func checkIdentity(t *testing.T, frames []frame.Frame) (writes int) {
	t.Helper()
	var c Coalescer
	for len(frames) > 0 {
		n := c.Join(frames, allKinds)
		if n < 1 || n > len(frames) {
			t.Fatalf("joined %d of %d", n, len(frames))
		}
		writes++
		if n > 1 {
			f := c.gather(frames[:n])
			cut := splitAll(&f)
			if len(cut) != n {
				t.Fatalf("%d joined, %d cut", n, len(cut))
			}
			for i := range cut {
				g := frames[i]
				g.Header = bytes.Clone(g.Header)
				Finish(&g)
				want := g.AppendTo(nil)
				if i > 0 {
					ignoreAtomicID(cut[i], want)
				}
				if !bytes.Equal(cut[i], want) {
					t.Fatalf("segment %d of %d:\n %x, want\n %x", i, n, cut[i], want)
				}
			}
		}
		frames = frames[n:]
	}
	return writes
}

// ignoreAtomicID makes two frames alike in the identification of a datagram
// that must not be fragmented (RFC 6864 §4.1), and so in its header checksum.
func ignoreAtomicID(a, b []byte) {
	if a[14]>>4 != 4 || a[20]&0x40 == 0 {
		return
	}
	copy(a[18:20], b[18:20])
	copy(a[24:26], b[24:26])
}

func TestJoinTakesWholeStream(t *testing.T) {
	for name, s := range map[string]spec{
		"TCPv4":         {flags: flagACK, id: 65530},
		"TCPv4 DF":      {flags: flagACK, frag: df},
		"TCPv6":         {flags: flagACK, v6: true},
		"TCPv6 options": {flags: flagACK, v6: true, options: []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}},
		"UDPv4":         {udp: true},
		"UDPv6":         {udp: true, v6: true},
		"wrapped":       {flags: flagACK, seq: 0xfffffff0},
	} {
		t.Run(name, func(t *testing.T) {
			if w := checkIdentity(t, stream(s, 1200, 10)); w != 1 {
				t.Errorf("%d writes for ten segments, want 1", w)
			}
			if w := checkIdentity(t, stream(s, 1200, 70)); w != 2 {
				t.Errorf("%d writes for 70 segments (64 KiB and a bit), want 2", w)
			}
			if w := checkIdentity(t, stream(s, 1, 70)); w != 2 {
				t.Errorf("%d writes for 70 one-byte segments, want 2: %d at a time", w, MaxSegments)
			}
		})
	}
}

func TestJoinKeepsToFrameLimit(t *testing.T) {
	frames := stream(spec{flags: flagACK, frag: df}, 1000, 60)
	var c Coalescer
	kinds := allKinds
	for limit, want := range map[int]int{0: 60, 54 + 60000: 60, 54 + 59999: 59, 54 + 2000: 2, 54 + 1999: 1, 10: 1} {
		kinds.MaxFrame = limit
		if n := c.Join(frames, kinds); n != want {
			t.Errorf("limit %d: joined %d, want %d", limit, n, want)
		}
	}
}

func TestJoinLastMayBeShortAndPushed(t *testing.T) {
	s := stream(spec{flags: flagACK}, 100, 2)
	last := spec{flags: flagACK | flagPSH, seq: 200, id: 2, payload: []byte("end")}.build()
	s = append(s, last)
	var c Coalescer
	if n := c.Join(s, allKinds); n != 3 {
		t.Fatalf("joined %d of 3", n)
	}
	if c.Joined.Header[34+13] != flagACK|flagPSH {
		t.Errorf("flags %#x", c.Joined.Header[34+13])
	}
	s = append(s, spec{flags: flagACK, seq: 203, id: 3, payload: []byte("end")}.build())
	if n := c.Join(s, allKinds); n != 3 {
		t.Errorf("joined %d across a short, pushed segment", n)
	}
}

func TestJoinLeavesStrangersAlone(t *testing.T) {
	base := spec{flags: flagACK, payload: pattern(100), window: 1000}
	next := base
	next.seq, next.id = 100, 1
	for name, pair := range map[string][2]func(s *spec){
		"gap":              {nil, func(s *spec) { s.seq++ }},
		"overlap":          {nil, func(s *spec) { s.seq-- }},
		"other port":       {nil, func(s *spec) { s.port++ }},
		"other neighbour":  {nil, func(s *spec) { s.ethernet++ }},
		"other window":     {nil, func(s *spec) { s.window++ }},
		"ECN codepoint":    {nil, func(s *spec) { s.tos = 3 }},
		"longer":           {nil, func(s *spec) { s.payload = pattern(101) }},
		"empty":            {nil, func(s *spec) { s.payload = nil }},
		"FIN":              {nil, func(s *spec) { s.flags |= flagFIN }},
		"SYN":              {func(s *spec) { s.flags |= 2 }, nil},
		"RST":              {nil, func(s *spec) { s.flags |= 4 }},
		"no ACK":           {func(s *spec) { s.flags = 0 }, func(s *spec) { s.flags = 0 }},
		"PSH before":       {func(s *spec) { s.flags |= flagPSH }, nil},
		"CWR":              {func(s *spec) { s.flags |= flagCWR }, func(s *spec) { s.flags |= flagCWR }},
		"options":          {nil, func(s *spec) { s.options = []byte{1, 1, 1, 1} }},
		"fragment":         {func(s *spec) { s.frag = 0x2000 }, func(s *spec) { s.frag = 0x2000 }},
		"DF":               {nil, func(s *spec) { s.frag = df }},
		"identification":   {nil, func(s *spec) { s.id = 7 }},
		"other family":     {nil, func(s *spec) { s.v6 = true }},
		"other protocol":   {nil, func(s *spec) { s.udp = true }},
		"extension header": {func(s *spec) { s.v6, s.extIPv6 = true, true }, func(s *spec) { s.v6, s.extIPv6 = true, true }},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := base, next
			if pair[0] != nil {
				pair[0](&a)
			}
			if pair[1] != nil {
				pair[1](&b)
			}
			var c Coalescer
			if n := c.Join([]frame.Frame{a.build(), b.build()}, allKinds); n != 1 {
				t.Errorf("joined %d", n)
			}
		})
	}
	var c Coalescer
	if n := c.Join([]frame.Frame{base.build(), next.build()}, allKinds); n != 2 {
		t.Errorf("the same two unchanged: joined %d, want 2", n)
	}
	if n := c.Join([]frame.Frame{base.build(), next.build()}, Kinds{TCPv6: true, UDP: true}); n != 1 {
		t.Errorf("joined %d of a kind that the receiver cannot cut", n)
	}
	complete := next.build()
	complete.NeedsChecksum = false
	if n := c.Join([]frame.Frame{base.build(), complete}, allKinds); n != 1 {
		t.Errorf("joined %d with a frame whose checksum is complete and would be lost", n)
	}
}

// TestSplitUndoesJoin is the identity for random batches, a few flows mixed
// with things that end a run.
func TestSplitUndoesJoin(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		if t.Failed() {
			t.Fatalf("seed %d", seed-1)
		}
		checkIdentity(t, randomBatch(r))
	}
}

func randomBatch(r *rand.Rand) []frame.Frame {
	var frames []frame.Frame
	s := spec{flags: flagACK}
	size := 1
	for range 1 + r.IntN(80) {
		if r.IntN(12) == 0 { // another flow
			s = spec{
				flags: flagACK, v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(),
				port: uint16(r.IntN(3)), tos: byte(r.IntN(4)), frag: uint16(r.IntN(2)) * df,
			}
			if r.IntN(3) == 0 {
				s.options = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
			}
			size = 1 + r.IntN(1500)
		}
		s.flags = flagACK
		n := size
		switch r.IntN(20) {
		case 0:
			n = r.IntN(size + 1)
		case 1:
			s.flags |= flagPSH
		case 2:
			s.flags |= flagFIN
		case 3:
			s.seq++
		}
		s.payload = pattern(n)
		s.pieces = r.IntN(n + 1)
		frames = append(frames, s.build())
		s.seq += uint32(n)
		s.id++
	}
	return frames
}

func FuzzCoalesce(f *testing.F) {
	seed := func(s spec) {
		frames := stream(s, 100, 2)
		f.Add(frames[0].Header, frames[1].Header, uint16(100), uint16(100), frames[0].ChecksumStart, frames[0].ChecksumOffset)
	}
	seed(spec{flags: flagACK})
	seed(spec{udp: true, v6: true})
	seed(spec{flags: flagACK, v6: true, options: []byte{1, 1, 1, 1}})
	f.Fuzz(func(t *testing.T, a, b []byte, n, m, start, field uint16) {
		var frames []frame.Frame
		for i, h := range [][]byte{a, b, b} {
			g := frame.Frame{Header: bytes.Clone(h)}
			g.Payload[0] = pattern(int([]uint16{n, m, m}[i]))
			g.Offload = frame.Offload{NeedsChecksum: true, ChecksumStart: start, ChecksumOffset: field, HeaderLen: uint16(len(h))}
			if joinable(&g) != frame.GSONone {
				// What the stack wrote has right sums; the fuzzer need not
				// find them.
				putPartial(g.Header, int(start), int(field), g.Len()-int(start))
				if binary.BigEndian.Uint16(g.Header[12:]) == etherIPv4 {
					putIPv4Length(g.Header, int(start), g.Len()-ethernetLen)
				}
			}
			frames = append(frames, g)
		}
		checkIdentity(t, frames)
	})
}
