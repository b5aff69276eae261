package portfwd

import (
	"slices"
	"sync"
	"sync/atomic"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Frames of a flow that arrive on another shard than its own (see directory)
// are copied and handed to that. What is not of a flow, such as ARP and
// neighbour discovery, is shard 0's.

// inbox holds frames that arrived on other shards, within limits.
type inbox struct {
	limits  *Limits
	waiting atomic.Bool

	mu      sync.Mutex
	arrived handedFrames
	taken   handedFrames // the owner's, swapped with arrived

	datagrams atomic.Int32 // posted and not run yet
}

// handedFrames are frames one behind the other. It grows as they come, and is emptied
// as a whole.
type handedFrames struct {
	bytes  []byte
	frames []handedFrame
}

type handedFrame struct {
	length int
	off    frame.Offload
}

// put copies a frame into the inbox, and reports whether there was room and
// whether its owner has to be woken for it.
func (b *inbox) put(data []byte, off frame.Offload) (ok, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &b.arrived
	if len(h.frames) >= b.limits.HandoverFrames || len(h.bytes)+len(data) > b.limits.HandoverBytes {
		return false, false
	}
	if cap(h.bytes)-len(h.bytes) < len(data) {
		h.bytes = slices.Grow(h.bytes, max(len(data), len(h.bytes))) // to twice as much, or more
	}
	h.bytes = append(h.bytes, data...)
	h.frames = append(h.frames, handedFrame{len(data), off})
	b.waiting.Store(true)
	return true, len(h.frames) == 1
}

// take returns what waits. It is good until the next take.
func (b *inbox) take() *handedFrames {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrived, b.taken = b.taken.emptied(), b.arrived
	b.waiting.Store(false)
	return &b.taken
}

// emptied is what the next frames go into.
func (h *handedFrames) emptied() handedFrames { return handedFrames{h.bytes[:0], h.frames[:0]} }

// idleBytes is the memory of frames that were taken. The owner calls it.
func (b *inbox) idleBytes() int { return cap(b.taken.bytes) }

// trim gives memory back that no frame is in.
func (b *inbox) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = handedFrames{}
	if len(b.arrived.frames) == 0 {
		b.arrived = handedFrames{}
	}
}

// each calls f with one frame after the other.
func (h *handedFrames) each(f func(data []byte, off frame.Offload)) {
	rest := h.bytes
	for _, one := range h.frames {
		f(rest[:one.length:one.length], one.off)
		rest = rest[one.length:]
	}
}

// input passes a frame to the stack, of this shard or another.
func (s *shard) input(data []byte, off frame.Offload, now timer.Instant) {
	if len(s.shards) > 1 {
		if owner := s.ownerOfFrame(data); owner != s.index {
			s.handOver(s.shards[owner], data, off)
			return
		}
	}
	s.stack.Input(data, off, now)
}

func (s *shard) handOver(to *shard, data []byte, off frame.Offload) {
	ok, first := to.inbox.put(data, off)
	if !ok {
		s.counters.handoverLost++
		return
	}
	s.counters.handedOver++
	if first {
		to.loop.Wake()
	}
}

// readInbox takes in what other shards have handed over.
func (s *shard) readInbox(now timer.Instant) {
	if !s.inbox.waiting.Load() {
		return
	}
	s.inbox.take().each(func(data []byte, off frame.Offload) { s.stack.Input(data, off, now) })
	s.udp.flush() // the frames' memory is used again
}

// ownerOfFrame is the index of the shard that a frame from the link belongs to.
func (s *shard) ownerOfFrame(data []byte) int {
	flow, ok := header.ParseFlow(data)
	if !ok || flow.Destination.Addr().IsMulticast() {
		return 0
	}
	if flow.Fragment {
		// All of a datagram's meet on one shard, whatever the others are.
		return int(flow.Hash() % uint32(len(s.shards)))
	}
	icmp := flow.Protocol == header.ProtocolICMP || flow.Protocol == header.ProtocolICMPv6
	if icmp && flow.Source.Port() == 0 && flow.Destination.Port() == 0 {
		return 0
	}
	k := flowKey{flow.Protocol, udpKey{flow.Source, flow.Destination}}
	if flow.Quoted { // a packet of ours
		k.udpKey = udpKey{flow.Destination, flow.Source}
	}
	return s.owner(k)
}

// handOverDatagram passes on a datagram that is another shard's, and reports
// whether it was. It arrived in fragments, which have no ports to tell by, or
// the other shard has just opened its flow.
func (s *shard) handOverDatagram(d *netstack.Datagram) bool {
	if len(s.shards) == 1 {
		return false
	}
	owner := s.owner(flowKey{header.ProtocolUDP, udpKey{d.Src, d.Dst}})
	if owner == s.index {
		return false
	}
	to := s.shards[owner]
	if int(to.inbox.datagrams.Add(1)) > s.cfg.Limits.HandoverDatagrams {
		to.inbox.datagrams.Add(-1)
		s.counters.handoverLost++
		return true
	}
	s.counters.handedOver++
	c := *d
	c.Payload = slices.Clone(d.Payload)
	to.loop.Post(func() {
		to.inbox.datagrams.Add(-1)
		to.Datagram(&c)
		to.udp.flush()
	})
	return true
}
