package hugepage

import (
	"math/bits"
	"unsafe"
)

// ChunkSize is how much Get returns, in bytes.
const ChunkSize = 64 << 10

// chunksPerSlab is how many chunks share one huge page.
const chunksPerSlab = Size / ChunkSize

// Slabs hands out chunks. Its zero value is ready for use.
type Slabs struct {
	byBase map[uintptr]*slab
	// open are the slabs with a free chunk.
	open  []*slab
	empty *slab // the one without a chunk in use that is kept, also in open
	inUse int
}

type slab struct {
	memory []byte
	free   uint32 // a bit for each chunk
	place  int    // in Slabs.open; -1: nothing is free
}

const allFree = 1<<chunksPerSlab - 1

// Get returns a chunk, which holds what it held last, or nil if the kernel has
// no memory. It is the caller's until Put.
func (s *Slabs) Get() *[ChunkSize]byte {
	if len(s.open) == 0 && !s.grow() {
		return nil
	}
	// Slabs that are in use fill up before the empty one is begun.
	l := s.open[len(s.open)-1]
	if l == s.empty && len(s.open) > 1 {
		l = s.open[len(s.open)-2]
	}
	if l == s.empty {
		s.empty = nil
	}
	i := bits.TrailingZeros32(l.free)
	l.free &^= 1 << i
	if l.free == 0 {
		s.closeSlab(l)
	}
	s.inUse++
	return (*[ChunkSize]byte)(l.memory[i*ChunkSize:])
}

// Put takes back a chunk that Get returned, into which nothing points any more.
func (s *Slabs) Put(c *[ChunkSize]byte) {
	at := uintptr(unsafe.Pointer(c))
	l := s.byBase[at&^(Size-1)]
	l.free |= 1 << (at % Size / ChunkSize)
	s.inUse--
	if l.place < 0 {
		l.place = len(s.open)
		s.open = append(s.open, l)
	}
	if l.free != allFree {
		return
	}
	if s.empty == nil {
		s.empty = l
		return
	}
	s.drop(l)
}

// Trim gives the slab that is kept back to the kernel.
func (s *Slabs) Trim() {
	if s.empty != nil {
		s.drop(s.empty)
		s.empty = nil
	}
}

// InUse is the number of chunks that are the callers'.
func (s *Slabs) InUse() int { return s.inUse }

// Mapped is the memory that is held, in bytes.
func (s *Slabs) Mapped() int { return len(s.byBase) * Size }

// Close gives back everything, chunks in use as well.
func (s *Slabs) Close() {
	for _, l := range s.byBase {
		Unmap(l.memory)
	}
	*s = Slabs{}
}

func (s *Slabs) grow() bool {
	memory, err := Map(Size)
	if err != nil {
		return false
	}
	if s.byBase == nil {
		s.byBase = map[uintptr]*slab{}
	}
	l := &slab{memory: memory, free: allFree, place: len(s.open)}
	s.byBase[uintptr(unsafe.Pointer(unsafe.SliceData(memory)))] = l
	s.open = append(s.open, l)
	return true
}

// closeSlab takes l out of open.
func (s *Slabs) closeSlab(l *slab) {
	last := len(s.open) - 1
	s.open[l.place] = s.open[last]
	s.open[l.place].place = l.place
	s.open[last] = nil
	s.open = s.open[:last]
	l.place = -1
}

func (s *Slabs) drop(l *slab) {
	s.closeSlab(l)
	delete(s.byBase, uintptr(unsafe.Pointer(unsafe.SliceData(l.memory))))
	Unmap(l.memory)
}
