package gso

import (
	"testing"

	"sbxnet/netstack/frame"
)

func BenchmarkSplit64K(b *testing.B) {
	f := spec{payload: pattern(64000), flags: flagACK, frag: df}.super(1448)
	var s Splitter
	b.SetBytes(64000)
	b.ReportAllocs()
	for b.Loop() {
		s.Start(&f)
		for s.Next() != nil {
		}
	}
}

func BenchmarkSplitAndChecksum64K(b *testing.B) {
	f := spec{payload: pattern(64000), flags: flagACK, frag: df}.super(1448)
	var s Splitter
	b.SetBytes(64000)
	b.ReportAllocs()
	for b.Loop() {
		s.Start(&f)
		for g := s.Next(); g != nil; g = s.Next() {
			Finish(g)
		}
	}
}

func BenchmarkFinish1448(b *testing.B) {
	f := spec{payload: pattern(1448), flags: flagACK, frag: df}.build()
	b.SetBytes(1448)
	b.ReportAllocs()
	for b.Loop() {
		g := f
		Finish(&g)
	}
}

func BenchmarkJoin44(b *testing.B) {
	frames := stream(spec{flags: flagACK, frag: df}, 1448, 44)
	var c Coalescer
	b.SetBytes(44 * 1448)
	b.ReportAllocs()
	for b.Loop() {
		if c.Join(frames, allKinds) != 44 {
			b.Fatal("not joined")
		}
	}
}

func BenchmarkJoinStrangers(b *testing.B) {
	frames := []frame.Frame{spec{flags: flagACK}.build(), spec{flags: flagACK}.build()}
	var c Coalescer
	b.ReportAllocs()
	for b.Loop() {
		if c.Join(frames, allKinds) != 1 {
			b.Fatal("joined")
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	super := spec{payload: pattern(64000), flags: flagACK}.super(1448)
	frames := stream(spec{flags: flagACK, frag: df}, 1000, 20)
	var s Splitter
	var c Coalescer
	if n := testing.AllocsPerRun(100, func() {
		s.Start(&super)
		for g := s.Next(); g != nil; g = s.Next() {
			Finish(g)
		}
		c.Join(frames, allKinds)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
