package tcp

// ChunkSize is what buffers grow by. A super-segment is at most 65535 bytes, so
// one that is cut from a queue of chunks touches two at most, which is what a
// frame can point to.
const ChunkSize = 64 << 10

const chunkSize = ChunkSize

type chunk = [chunkSize]byte

// Memory is where an engine's buffers come from and go back to. Only the
// engine's owner calls the engine, and only the engine calls it.
type Memory interface {
	// Get returns a chunk, whatever is in it, or nil if there is none.
	Get() *[ChunkSize]byte
	// Put takes one back.
	Put(*[ChunkSize]byte)
}

// goHeap is the Memory of an engine that was given none.
type goHeap struct{}

func (goHeap) Get() *chunk { return new(chunk) }
func (goHeap) Put(*chunk)  {}

// pool is the engine's buffer memory. Chunks that a frame of the current batch
// may point into go through limbo before they are used again.
type pool struct {
	memory   Memory
	free     []*chunk
	limbo    []*chunk
	total    int // chunks that exist: in use, free, or in limbo
	maxTotal int
	maxFree  int
}

func newPool(m Memory, l Limits) pool {
	if m == nil {
		m = goHeap{}
	}
	return pool{memory: m, maxTotal: l.BufferBytes / chunkSize, maxFree: l.IdleBytes / chunkSize}
}

// get takes a chunk. Past the limit only a buffer's first is granted: every
// connection can then still move, and none can move much.
func (p *pool) get(first bool) *chunk {
	if n := len(p.free); n > 0 {
		// Last in, first out: the chunk most likely to be in the cache.
		c := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return c
	}
	if p.total >= p.maxTotal && !first {
		return nil
	}
	c := p.memory.Get()
	if c != nil {
		p.total++
	}
	return c
}

// pressed reports whether half of all there may be is in use.
func (p *pool) pressed() bool { return 2*(p.total-len(p.free)) > p.maxTotal }

// put gives back a chunk that no frame points into.
func (p *pool) put(c *chunk) {
	if len(p.free) >= p.maxFree {
		p.total--
		p.memory.Put(c)
		return
	}
	p.free = append(p.free, c)
}

// trim gives back the chunks that are kept for reuse.
func (p *pool) trim() {
	for i, c := range p.free {
		p.memory.Put(c)
		p.free[i] = nil
	}
	p.total -= len(p.free)
	p.free = p.free[:0]
}

// idle is how many bytes are kept for reuse.
func (p *pool) idle() int { return len(p.free) * chunkSize }

// retire gives back a chunk that frames of the current batch may point into.
func (p *pool) retire(c *chunk) { p.limbo = append(p.limbo, c) }

// reclaim ends the batch.
func (p *pool) reclaim() {
	for i, c := range p.limbo {
		p.put(c)
		p.limbo[i] = nil
	}
	p.limbo = p.limbo[:0]
}
