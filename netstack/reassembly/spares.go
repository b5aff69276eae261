package reassembly

import "bytes"

// What is kept of finished datagrams for the next ones, so that a sender of
// nothing but fragments costs no allocation: at most so many datagrams, and so
// many pieces of a size that nearly all links have.
const (
	spareQueues = 16
	sparePieces = 128
	pieceSize   = 2048
)

// spares is memory to be used again.
type spares struct {
	queues []*queue
	pieces [][]byte // of pieceSize bytes each
}

// queue returns an empty queue.
func (s *spares) queue() *queue {
	n := len(s.queues)
	if n == 0 {
		return &queue{}
	}
	q := s.queues[n-1]
	s.queues = s.queues[:n-1]
	return q
}

// copy returns a copy of b.
func (s *spares) copy(b []byte) []byte {
	n := len(s.pieces)
	switch {
	case len(b) > pieceSize:
		return bytes.Clone(b)
	case n == 0:
		return append(make([]byte, 0, pieceSize), b...)
	}
	p := s.pieces[n-1]
	s.pieces = s.pieces[:n-1]
	return append(p[:0], b...)
}

// take takes q, which nothing refers to any more, and its pieces.
func (s *spares) take(q *queue) {
	s.takePieces(q)
	if len(s.queues) < spareQueues {
		*q = queue{pieces: q.pieces, header: q.header[:0]}
		s.queues = append(s.queues, q)
	}
}

// takePieces leaves q without pieces.
func (s *spares) takePieces(q *queue) {
	for i := range q.pieces {
		if p := q.pieces[i].data; cap(p) == pieceSize && len(s.pieces) < sparePieces {
			s.pieces = append(s.pieces, p)
		}
		q.pieces[i].data = nil
	}
	q.pieces = q.pieces[:0]
}
