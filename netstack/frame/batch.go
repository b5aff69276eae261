package frame

// MaxHeader is the longest header that [Batch.Append] hands out, in bytes:
// Ethernet 14, IPv4 with options 60, TCP with options 60, rounded up.
const MaxHeader = 160

// A slab is header memory for this many frames; a batch grows by whole slabs,
// so that headers handed out earlier never move.
const slabFrames = 64

// Batch collects output frames. Its owner flushes it to a link with
// [Batch.Frames] and then calls [Batch.Reset]. A batch keeps its memory, so a
// shard that reuses one allocates only while the batch grows to its usual size.
// It is not safe for concurrent use.
type Batch struct {
	frames []Frame
	slabs  [][]byte
	copies [][]byte // grown for AppendCopy, reused in order
	copied int
}

// Append adds a frame with a header of n bytes, n ≤ MaxHeader, whose content is
// arbitrary, and returns it to be filled in. The pointer is good until the next
// Append; the header's memory until Reset.
func (b *Batch) Append(n int) *Frame {
	i := len(b.frames)
	slab, slot := i/slabFrames, i%slabFrames*MaxHeader
	if slab == len(b.slabs) {
		b.slabs = append(b.slabs, make([]byte, slabFrames*MaxHeader))
	}
	header := b.slabs[slab][slot : slot+n : slot+MaxHeader]
	if i < cap(b.frames) {
		b.frames = b.frames[:i+1]
	} else {
		b.frames = append(b.frames, Frame{})
	}
	f := &b.frames[i]
	*f = Frame{Header: header}
	return f
}

// AppendCopy is Append for a payload that does not stay where it is: the batch
// keeps a copy of it until Reset.
func (b *Batch) AppendCopy(n int, payload []byte) *Frame {
	f := b.Append(n)
	if len(payload) == 0 {
		return f
	}
	if b.copied == len(b.copies) {
		b.copies = append(b.copies, nil)
	}
	c := append(b.copies[b.copied][:0], payload...)
	b.copies[b.copied] = c
	b.copied++
	f.Payload[0] = c
	return f
}

// Frames returns the frames in order. They belong to the batch.
func (b *Batch) Frames() []Frame { return b.frames }

// Len is the number of frames.
func (b *Batch) Len() int { return len(b.frames) }

// Reset forgets the frames and keeps the memory. Payload is let go of here, so
// that a batch at rest keeps nobody's buffer alive.
func (b *Batch) Reset() {
	clear(b.frames)
	b.frames = b.frames[:0]
	b.copied = 0
}
