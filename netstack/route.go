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

// standsFor reports whether the stack takes what is for a although a is not its
// own: see Config.AnswerAll.
func (s *Stack) standsFor(a netip.Addr) bool {
	switch {
	case !s.cfg.AnswerAll, a == s.cfg.NextHop4, a == s.cfg.NextHop6,
		header.IsMartianDestination(a), a.IsMulticast(), s.isSubnetBroadcast(a),
		a.Is6() && a.IsLinkLocalUnicast():
		return false
	}
	return !slices.ContainsFunc(s.cfg.Neighbors, func(n Neighbor) bool { return n.Addr == a })
}

// onLink reports whether a is reached without a next hop.
func (s *Stack) onLink(a netip.Addr) bool {
	prefixes := s.prefixes4
	if !a.Is4() {
		if a.IsLinkLocalUnicast() {
			return true
		}
		prefixes = s.prefixes6
	}
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isSubnetBroadcast reports whether a is the directed broadcast address of a
// network on the link, or its old form with all host bits zero (RFC 1122
// §3.3.6).
func (s *Stack) isSubnetBroadcast(a netip.Addr) bool {
	return slices.Contains(s.broadcasts, a)
}

// addPrefix takes note of a network on the link and its broadcast addresses.
// Networks of two addresses or one have none (RFC 3021).
func (s *Stack) addPrefix(p netip.Prefix) {
	if !p.Addr().Is4() {
		if !slices.Contains(s.prefixes6, p) {
			s.prefixes6 = append(s.prefixes6, p)
		}
		return
	}
	if slices.Contains(s.prefixes4, p) {
		return
	}
	s.prefixes4 = append(s.prefixes4, p)
	if p.Bits() <= 30 {
		s.broadcasts = append(s.broadcasts, p.Addr(), lastIPv4(p))
	}
}

// lastIPv4 is the highest address in an IPv4 prefix.
func lastIPv4(p netip.Prefix) netip.Addr {
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
