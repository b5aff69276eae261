package seq

import (
	"math"
	"testing"
)

// edges are the values where arithmetic that is not modular goes wrong.
var edges = []Value{0, 1, 2, 1000, 1<<31 - 1, 1 << 31, 1<<31 + 1, math.MaxUint32 - 1000, math.MaxUint32 - 1, math.MaxUint32}

func TestOrderHoldsAcrossTheWrap(t *testing.T) {
	for _, v := range edges {
		for _, d := range []uint32{1, 2, 1460, 1 << 30, 1<<31 - 1} {
			w := v.Add(d)
			if !v.LessThan(w) || w.LessThan(v) || !v.LessThanEq(w) || w.LessThanEq(v) {
				t.Errorf("%d should come before %d", v, w)
			}
			if !w.GreaterThan(v) || v.GreaterThan(w) || !w.GreaterThanEq(v) || v.GreaterThanEq(w) {
				t.Errorf("%d should come after %d", w, v)
			}
			if w.Diff(v) != int32(d) || v.Diff(w) != -int32(d) || v.Size(w) != d || w.Sub(d) != v {
				t.Errorf("distance from %d to %d: %d, %d, %d, want %d", v, w, w.Diff(v), v.Diff(w), v.Size(w), d)
			}
			if Max(v, w) != w || Max(w, v) != w || Min(v, w) != v || Min(w, v) != v {
				t.Errorf("Max, Min of %d, %d", v, w)
			}
		}
		if v.LessThan(v) || !v.LessThanEq(v) || v.GreaterThan(v) || !v.GreaterThanEq(v) || v.Diff(v) != 0 {
			t.Errorf("%d is not equal to itself", v)
		}
	}
}

func TestWindowIsHalfOpenAndMayWrap(t *testing.T) {
	for _, first := range edges {
		for _, size := range []uint32{1, 10, 65535, 1 << 30, 1 << 31, math.MaxUint32} {
			inside := []Value{first, first.Add(size - 1), first.Add(size / 2)}
			for _, v := range inside {
				if !InWindow(v, first, size) || !InRange(v, first, first.Add(size)) {
					t.Errorf("%d should be in the window of %d at %d", v, size, first)
				}
			}
			for _, v := range []Value{first.Add(size), first.Sub(1)} {
				if InWindow(v, first, size) || InRange(v, first, first.Add(size)) {
					t.Errorf("%d should not be in the window of %d at %d", v, size, first)
				}
			}
		}
		if InWindow(first, first, 0) || InRange(first, first, first) {
			t.Errorf("a window of size 0 holds %d", first)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, base := range edges {
		for _, c := range []struct {
			a, an, b, bn uint32
			want         bool
		}{
			{0, 10, 10, 10, false}, // touching
			{0, 11, 10, 10, true},
			{10, 10, 0, 10, false},
			{10, 10, 0, 11, true},
			{0, 100, 40, 10, true}, // one inside the other
			{40, 10, 0, 100, true},
			{5, 0, 0, 10, false}, // empty
			{0, 10, 5, 0, false},
			{5, 5, 5, 5, true},
		} {
			if got := Overlap(base.Add(c.a), c.an, base.Add(c.b), c.bn); got != c.want {
				t.Errorf("base %d: Overlap(%d+%d, %d+%d) = %v", base, c.a, c.an, c.b, c.bn, got)
			}
		}
	}
}

func TestMethodsAllocateNothing(t *testing.T) {
	v := Value(math.MaxUint32)
	if n := testing.AllocsPerRun(100, func() {
		v = Max(v.Add(3), Min(v, v.Sub(1)))
		if !InWindow(v, v.Sub(5), 10) {
			t.Error("not in window")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
