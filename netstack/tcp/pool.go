package tcp

// chunkSize is what buffers grow by. A super-segment is at most 65535 bytes, so
// one that is cut from a queue of chunks touches two at most, which is what a
// frame can point to.
const chunkSize = 64 << 10

type chunk [chunkSize]byte

// pool is the engine's buffer memory. Chunks that a frame of the current batch
// may point into go through limbo before they are used again.
type pool struct {
	free     []*chunk
	limbo    []*chunk
	total    int // chunks that exist: in use, free, or in limbo
	maxTotal int
	maxFree  int
}

func newPool(l Limits) pool {
	return pool{maxTotal: l.BufferBytes / chunkSize, maxFree: l.IdleBytes / chunkSize}
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
	p.total++
	return new(chunk)
}

// put gives back a chunk that no frame points into.
func (p *pool) put(c *chunk) {
	if len(p.free) >= p.maxFree {
		p.total--
		return
	}
	p.free = append(p.free, c)
}

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
