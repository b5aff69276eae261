package portfwd

import (
	"net/netip"
	"sync"

	"sbxnet/netstack/header"
)

// conflicts remembers which of our addresses somebody else on the link was seen
// to use, so that each is warned of once, whichever shard sees it. There are no
// more than the stacks have.
type conflicts struct {
	mu     sync.Mutex
	warned map[netip.Addr]bool
}

// first reports whether a is new.
func (c *conflicts) first(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned[a] {
		return false
	}
	if c.warned == nil {
		c.warned = make(map[netip.Addr]bool)
	}
	c.warned[a] = true
	return true
}

// addressConflict is told by the stack that another station has one of its
// addresses, or asks to have it.
func (s *shard) addressConflict(a netip.Addr, station header.MAC) {
	if !s.conflicts.first(a) {
		return
	}
	flag := "--cidr"
	if a.Is6() {
		flag = "--cidr6"
	}
	s.warn("%v is %s, and %v in the sandbox uses it, too: flows to it may fail; give that interface another address, or sbxnet another network with %s",
		a, s.roleOf(a), station, flag)
}

// roleOf is what one of the stack's addresses is for.
func (s *shard) roleOf(a netip.Addr) string {
	switch a {
	case s.cfg.IPv4.Gateway, s.cfg.IPv6.Gateway:
		return "the gateway"
	case s.cfg.IPv4.DNS, s.cfg.IPv6.DNS:
		return "the name server"
	}
	return "the gateway's on the link"
}
