package netstack

import (
	"net/netip"
	"slices"

	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
)

// isOwn reports whether a is one of the stack's addresses. There are a handful,
// which a walk finds faster than a hash.
func (s *Stack) isOwn(a netip.Addr) bool {
	if a.Is4() {
		return slices.Contains(s.own4, a)
	}
	return slices.Contains(s.own6, a)
}

// onLink reports whether a is reached without a next hop.
func (s *Stack) onLink(a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range s.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isSubnetBroadcast reports whether a is the directed broadcast address of a
// network on the link, or its old form with all host bits zero (RFC 1122
// §3.3.6). Networks of two addresses or one have none (RFC 3021).
func (s *Stack) isSubnetBroadcast(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	for _, p := range s.prefixes {
		if p.Bits() <= 30 && p.Contains(a) && (a == p.Addr() || a == lastIPv4(p)) {
			return true
		}
	}
	return false
}

// lastIPv4 is the highest address in an IPv4 prefix.
func lastIPv4(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// nextHop is the neighbour that packets to dst go to. 127.0.0.0/8 is the
// sandbox's own: it routes it where route_localnet is set.
func (s *Stack) nextHop(dst netip.Addr) netip.Addr {
	switch {
	case s.onLink(dst):
		return dst
	case dst.Is4():
		return s.cfg.NextHop4
	}
	return s.cfg.NextHop6
}

// cache is the neighbour cache for addresses of a's family.
func (s *Stack) cache(a netip.Addr) *neighbor.Cache {
	if a.Is4() {
		return s.arp
	}
	return s.nd
}

// gateway is the stack's first address of a's family, from which ICMP errors
// come that are about destinations not its own.
func (s *Stack) gateway(a netip.Addr) netip.Addr {
	switch {
	case a.Is4():
		return s.gateway4
	case a.IsLinkLocalUnicast():
		return s.linkLocal
	}
	return s.gateway6
}

// flowLabel is the IPv6 flow label of a flow: the same for all its packets, and
// not to be foreseen (RFC 6437 §3).
func (s *Stack) flowLabel(src, dst netip.AddrPort, protocol uint8) uint32 {
	return (header.FlowHash(src, dst, protocol) ^ s.flowKey) * 0x9e3779b1 >> 12
}
