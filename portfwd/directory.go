package portfwd

import (
	"net/netip"
	"sync"

	"sbxnet/netstack/header"
)

// With more than one queue, every flow has one shard: the one that opened it.
// That is where the sandbox's first frame of it arrived, or where the published
// port is read.
//
// The kernel spreads flows over queues by a keyed hash of its own, so nobody
// can know beforehand where a frame will arrive; but it is always the same
// queue, until we write: that makes a TAP deliver the flow's frames where the
// last one was written, for some seconds (tun_flow_update and
// tun_flow_cleanup in drivers/net/tun.c). What arrives elsewhere all the same,
// such as ICMP errors about a flow, is handed over to its shard. Echo flows and
// the stack's own services are served wherever a frame arrives.

// flowKey names a flow by its protocol and its ends on the link.
type flowKey struct {
	protocol uint8
	udpKey
}

// tcpKey is the flow of a connection of the stack's.
func tcpKey(local, remote netip.AddrPort) flowKey {
	return flowKey{header.ProtocolTCP, udpKey{sandbox: remote, peer: local}}
}

// directory says which shard a flow is, for the others: each knows its own by
// itself. It is empty where there is one shard only.
type directory struct {
	mu    sync.RWMutex
	flows map[flowKey]int
}

func (d *directory) find(k flowKey) (shard int, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	shard, ok = d.flows[k]
	return shard, ok
}

// claim enters a flow for a shard, unless it is another's.
func (d *directory) claim(k flowKey, shard int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if other, taken := d.flows[k]; taken {
		return other == shard
	}
	if d.flows == nil {
		d.flows = make(map[flowKey]int)
	}
	d.flows[k] = shard
	return true
}

func (d *directory) remove(k flowKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.flows, k)
}

// owner is the index of a flow's shard: this one, if there is no such flow yet.
// It takes a lock for flows that are not this shard's only.
func (s *shard) owner(k flowKey) int {
	if k == s.lastOwned {
		return s.index
	}
	if _, mine := s.owned[k]; mine {
		s.lastOwned = k
		return s.index
	}
	if other, ok := s.directory.find(k); ok {
		return other
	}
	return s.index
}

// claim makes a flow the shard's, unless it is another's. With one shard there
// is nothing to do.
func (s *shard) claim(k flowKey) bool {
	if len(s.shards) == 1 {
		return true
	}
	if !s.directory.claim(k, s.index) {
		return false
	}
	if s.owned == nil {
		s.owned = make(map[flowKey]struct{})
	}
	s.owned[k] = struct{}{}
	return true
}

// disclaim gives a flow up, if it is the shard's.
func (s *shard) disclaim(k flowKey) {
	if _, mine := s.owned[k]; !mine {
		return
	}
	delete(s.owned, k)
	if s.lastOwned == k {
		s.lastOwned = flowKey{}
	}
	s.directory.remove(k)
}
