package tcp

// sendBuffer is the bytes between SND.UNA and the last one the user queued, in
// chunks. The first byte lies off bytes into the first chunk. Empty, it holds
// no chunk.
type sendBuffer struct {
	chunks []*chunk
	off    int
	len    int
}

// reserve appends the memory behind the last byte to bufs: at most n bytes in
// at most two pieces.
func (b *sendBuffer) reserve(p *pool, n int, bufs [][]byte) [][]byte {
	end := b.off + b.len
	for range 2 {
		i, pos := end/chunkSize, end%chunkSize
		if n <= 0 || !b.grow(p, i) {
			break
		}
		m := min(n, chunkSize-pos)
		bufs = append(bufs, b.chunks[i][pos:pos+m:pos+m])
		end += m
		n -= m
	}
	return bufs
}

// grow makes sure that chunk i is there; i is at most one past the last.
func (b *sendBuffer) grow(p *pool, i int) bool {
	if i < len(b.chunks) {
		return true
	}
	c := p.get(len(b.chunks) == 0)
	if c == nil {
		return false
	}
	b.chunks = append(b.chunks, c)
	return true
}

// commit adds n reserved bytes and returns chunks that stayed unused.
func (b *sendBuffer) commit(p *pool, n int) {
	room := len(b.chunks)*chunkSize - b.off - b.len
	b.len += min(max(n, 0), room)
	used := (b.off + b.len + chunkSize - 1) / chunkSize
	if b.len == 0 {
		used, b.off = 0, 0
	}
	for len(b.chunks) > used {
		last := len(b.chunks) - 1
		// It may have been in use, and its bytes acknowledged, in this very batch.
		p.retire(b.chunks[last])
		b.chunks[last] = nil
		b.chunks = b.chunks[:last]
	}
}

// at returns n bytes beginning at position from, in one or two pieces. The
// range must be queued and at most chunkSize long.
func (b *sendBuffer) at(from, n int) (pieces [2][]byte) {
	pos := b.off + from
	i, pos := pos/chunkSize, pos%chunkSize
	m := min(n, chunkSize-pos)
	if m > 0 {
		pieces[0] = b.chunks[i][pos : pos+m]
	}
	if n > m {
		pieces[1] = b.chunks[i+1][:n-m]
	}
	return pieces
}

// release drops the first n bytes, which the peer has acknowledged.
func (b *sendBuffer) release(p *pool, n int) {
	n = min(n, b.len)
	b.off += n
	b.len -= n
	done := b.off / chunkSize
	if b.len == 0 {
		done, b.off = len(b.chunks), 0
	} else {
		b.off %= chunkSize
	}
	if done == 0 {
		return
	}
	for _, c := range b.chunks[:done] {
		p.retire(c)
	}
	rest := copy(b.chunks, b.chunks[done:])
	clear(b.chunks[rest:])
	b.chunks = b.chunks[:rest]
}
