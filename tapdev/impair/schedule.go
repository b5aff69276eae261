package impair

import "sbxnet/netstack/frame"

// packet is one that waits in a lane. The lane owns data, which starts at the
// Ethernet header.
type packet struct {
	due   int64  // nanoseconds on the queue's clock
	order uint64 // among those due at the same time
	data  []byte
	frame.Offload
}

// schedule is a heap of packets, the next one due on top. As most arrive in the
// order in which they leave, pushing seldom moves any.
type schedule struct {
	heap []packet
	last uint64
}

func (s *schedule) len() int { return len(s.heap) }

// next is when the next packet is due; there must be one.
func (s *schedule) next() int64 { return s.heap[0].due }

func (p *packet) before(q *packet) bool {
	return p.due < q.due || p.due == q.due && p.order < q.order
}

func (s *schedule) push(p packet) {
	s.last++
	p.order = s.last
	s.heap = append(s.heap, p)
	i := len(s.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !p.before(&s.heap[parent]) {
			break
		}
		s.heap[i] = s.heap[parent]
		i = parent
	}
	s.heap[i] = p
}

func (s *schedule) pop() packet {
	top := s.heap[0]
	n := len(s.heap) - 1
	p := s.heap[n]
	s.heap[n] = packet{}
	s.heap = s.heap[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && s.heap[child+1].before(&s.heap[child]) {
			child++
		}
		if !s.heap[child].before(&p) {
			break
		}
		s.heap[i] = s.heap[child]
		i = child
	}
	s.heap[i] = p
	return top
}
