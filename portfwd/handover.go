package portfwd

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// With more than one queue, every flow has one shard: the one that its
// symmetric hash names, or that has claimed it. What is not of a flow, such as
// ARP and neighbour discovery, is shard 0's.
//
// Writing a frame to a queue makes a TAP deliver the flow's answers there
// (tun_flow_update in drivers/net/tun.c), so after the first frames a flow
// arrives where it belongs. The others are copied to their shard.

// inbox holds frames that arrived on other shards, within limits.
type inbox struct {
	limits  *Limits
	waiting atomic.Bool

	mu     sync.Mutex
	frames []handedFrame
	bytes  int

	taken     []handedFrame // the owner's, swapped with frames
	datagrams atomic.Int32  // posted and not run yet
}

type handedFrame struct {
	data []byte
	off  frame.Offload
}

// put copies a frame into the inbox, and reports whether there was room and
// whether its owner has to be woken for it.
func (b *inbox) put(data []byte, off frame.Offload) (ok, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.frames)
	if n >= b.limits.HandoverFrames || b.bytes+len(data) > b.limits.HandoverBytes {
		return false, false
	}
	b.frames = slices.Grow(b.frames, 1)[:n+1]
	f := &b.frames[n]
	f.data, f.off = append(f.data[:0], data...), off // in the memory of an earlier one
	b.bytes += len(data)
	b.waiting.Store(true)
	return true, n == 0
}

// take returns what waits. It is good until the next take.
func (b *inbox) take() []handedFrame {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes > b.limits.HandoverBytes/4 {
		b.taken = nil // a burst; its memory is not kept
	}
	b.frames, b.taken = b.taken[:0], b.frames
	b.bytes = 0
	b.waiting.Store(false)
	return b.taken
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
	for _, f := range s.inbox.take() {
		s.stack.Input(f.data, f.off, now)
	}
	s.udp.flush() // the frames' memory is used again
}

// ownerOfFrame is the index of the shard that a frame from the link belongs to.
func (f *Forwarder) ownerOfFrame(data []byte) int {
	flow, ok := header.ParseFlow(data)
	if !ok || flow.Destination.Addr().IsMulticast() {
		return 0
	}
	icmp := flow.Protocol == header.ProtocolICMP || flow.Protocol == header.ProtocolICMPv6
	if icmp && !flow.Fragment && flow.Source.Port() == 0 && flow.Destination.Port() == 0 {
		return 0
	}
	k := flowKey{flow.Protocol, udpKey{flow.Source, flow.Destination}}
	if flow.Quoted { // a packet of ours
		k.udpKey = udpKey{flow.Destination, flow.Source}
	}
	return f.owner(k)
}

// flowKey names a flow of any protocol by its ends on the link.
type flowKey struct {
	protocol uint8
	udpKey
}

// owner is the index of a flow's shard.
func (f *Forwarder) owner(k flowKey) int {
	if i, ok := f.claims.find(k); ok {
		return i
	}
	return int(header.FlowHash(k.sandbox, k.peer, k.protocol) % uint32(len(f.shards)))
}

// claims are the flows that belong to another shard than their hash says: those
// from a published socket, which stay where it is read.
type claims struct {
	some  atomic.Bool // there have been any
	mu    sync.RWMutex
	flows map[flowKey]int
}

func (c *claims) find(k flowKey) (shard int, ok bool) {
	if !c.some.Load() {
		return 0, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	shard, ok = c.flows[k]
	return shard, ok
}

// claim makes a flow the shard's, unless another shard has claimed it. With one
// shard there is nothing to do.
func (s *shard) claim(k flowKey) bool {
	if len(s.shards) == 1 {
		return true
	}
	c := &s.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, taken := c.flows[k]; taken {
		return other == s.index
	}
	if c.flows == nil {
		c.flows = make(map[flowKey]int)
	}
	c.flows[k] = s.index
	c.some.Store(true)
	return true
}

// disclaim gives a claimed flow up.
func (s *shard) disclaim(k flowKey) {
	if len(s.shards) == 1 {
		return
	}
	c := &s.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flows[k] == s.index {
		delete(c.flows, k)
	}
}

// handOverDatagram passes on a datagram that is another shard's, and reports
// whether it was. It arrived in fragments, which have no ports to tell by.
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

// tcpKey is the flow of a connection of the stack's.
func tcpKey(local, remote netip.AddrPort) flowKey {
	return flowKey{header.ProtocolTCP, udpKey{sandbox: remote, peer: local}}
}
