package socket

// ring is a bounded queue of bytes that grows as it is used. Its zero value is
// empty with a limit of ringLimit.
type ring struct {
	buf   []byte // its length is a power of two, or 0
	first int    // index of the oldest byte
	len   int    // bytes held
}

const (
	ringLimit = 256 << 10
	ringStart = 4 << 10
)

// space is how many bytes write would take.
func (r *ring) space() int { return ringLimit - r.len }

// write appends as much of p as fits and returns how much.
func (r *ring) write(p []byte) int {
	p = p[:min(len(p), r.space())]
	r.grow(r.len + len(p))
	for q := p; len(q) > 0; {
		end := (r.first + r.len) & (len(r.buf) - 1)
		n := copy(r.buf[end:], q) // never past the oldest byte: grow made room
		r.len += n
		q = q[n:]
	}
	return len(p)
}

// read takes out as many bytes as there are and p holds.
func (r *ring) read(p []byte) int {
	n := 0
	for n < len(p) && r.len > 0 {
		end := min(r.first+r.len, len(r.buf))
		m := copy(p[n:], r.buf[r.first:end])
		r.first = (r.first + m) & (len(r.buf) - 1)
		r.len -= m
		n += m
	}
	return n
}

// grow makes the buffer hold at least n bytes, n ≤ ringLimit.
func (r *ring) grow(n int) {
	if n <= len(r.buf) {
		return
	}
	size := max(len(r.buf), ringStart)
	for size < n {
		size *= 2
	}
	grown := make([]byte, size)
	held := r.read(grown)
	*r = ring{buf: grown, len: held}
}

// reset forgets everything, the memory too.
func (r *ring) reset() { *r = ring{} }
