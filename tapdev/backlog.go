package tapdev

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of the "fifo" queueing discipline, per queue: a few round trips' worth
// of a full window, and no more memory than that.
const (
	fifoFrames = 1024
	fifoBytes  = 4 << 20
)

// backlog holds copies of what the device did not take, in order. The zero
// value holds nothing, ever: that is the "none" discipline.
type backlog struct {
	limitFrames, limitBytes int
	held                    []held
	first                   int // index of the oldest in held
	size                    int // bytes held
}

// held is one write that waits: virtio header and frame in one piece.
type held struct {
	bytes          []byte
	frames, length uint64 // for the counters
}

// frames is the number of writes that wait.
func (b *backlog) frames() int { return len(b.held) - b.first }

// push copies what iov holds and reports whether there was room for it.
func (b *backlog) push(iov []unix.Iovec, frames, length uint64) bool {
	n := 0
	for i := range iov {
		n += int(iov[i].Len)
	}
	if b.frames() >= b.limitFrames || b.size+n > b.limitBytes {
		return false
	}
	c := make([]byte, 0, n)
	for i := range iov {
		c = append(c, unsafe.Slice(iov[i].Base, int(iov[i].Len))...)
	}
	b.held = append(b.held, held{c, frames, length})
	b.size += n
	return true
}

// front is the oldest; there must be one.
func (b *backlog) front() held { return b.held[b.first] }

// pop forgets the oldest.
func (b *backlog) pop() {
	b.size -= len(b.held[b.first].bytes)
	b.held[b.first] = held{}
	b.first++
	if b.first == len(b.held) {
		b.held, b.first = b.held[:0], 0
	} else if b.first > 2*fifoFrames {
		n := copy(b.held, b.held[b.first:])
		clear(b.held[n:])
		b.held, b.first = b.held[:n], 0
	}
}
