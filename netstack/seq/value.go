package seq

// Value is a TCP sequence or acknowledgement number, in host byte order.
type Value uint32

// Add returns the value n steps forward of v, wrapping at 2³².
func (v Value) Add(n uint32) Value { return v + Value(n) }

// Sub returns the value n steps behind v, wrapping below 0.
func (v Value) Sub(n uint32) Value { return v - Value(n) }

// Diff is the signed distance from w to v: positive if v is ahead. It is right
// for values less than 2³¹ apart.
func (v Value) Diff(w Value) int32 { return int32(v - w) }

// Size is the number of steps forward from v to end, for a range that is known
// not to run backwards.
func (v Value) Size(end Value) uint32 { return uint32(end - v) }

// LessThan reports whether v comes before w.
func (v Value) LessThan(w Value) bool { return int32(v-w) < 0 }

// LessThanEq reports whether v comes before w or is w.
func (v Value) LessThanEq(w Value) bool { return v == w || int32(v-w) < 0 }

// GreaterThan reports whether v comes after w.
func (v Value) GreaterThan(w Value) bool { return w.LessThan(v) }

// GreaterThanEq reports whether v comes after w or is w.
func (v Value) GreaterThanEq(w Value) bool { return w.LessThanEq(v) }

// InWindow reports whether v lies in [first, first+size). Nothing lies in a
// window of size 0. It is exact for every size, beyond 2³¹ too.
func InWindow(v, first Value, size uint32) bool { return uint32(v-first) < size }

// InRange reports whether v lies in [first, end), end not behind first.
func InRange(v, first, end Value) bool { return v-first < end-first }

// Overlap reports whether [a, a+an) and [b, b+bn) share a point; an empty
// range shares none. Exact for ranges shorter than 2³¹.
func Overlap(a Value, an uint32, b Value, bn uint32) bool {
	return an != 0 && bn != 0 && (InWindow(a, b, bn) || InWindow(b, a, an))
}

// Max is the later of v and w.
func Max(v, w Value) Value {
	if v.LessThan(w) {
		return w
	}
	return v
}

// Min is the earlier of v and w.
func Min(v, w Value) Value {
	if w.LessThan(v) {
		return w
	}
	return v
}
