package netstack

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
)

// inputND takes in a neighbour discovery message. The hop limit shows that it
// did not come through a router (RFC 4861 §7.1), and fragments are not to be
// trusted (RFC 6980 §5).
func (s *Stack) inputND(p *packet, m header.ICMPv6) {
	if p.ttl != header.NDPHopLimit || p.whole {
		s.stats.Drops.NotSolicited++
		return
	}
	ok := false
	switch m.Type() {
	case header.ICMPv6NeighborSolicitation:
		ok = s.inputNeighborSolicitation(p, m)
	case header.ICMPv6NeighborAdvertisement:
		ok = s.inputNeighborAdvertisement(p, m)
	case header.ICMPv6RouterSolicitation:
		ok = s.inputRouterSolicitation(p, m)
	}
	if !ok {
		s.stats.Drops.NotSolicited++
	}
}

// inputNeighborSolicitation answers for our own addresses (RFC 4861 §7.2.3).
func (s *Stack) inputNeighborSolicitation(p *packet, m header.ICMPv6) bool {
	h, options, ok := header.ParseNeighborSolicitation(m)
	if !ok {
		return false
	}
	target := h.Target()
	mac, hasMAC := options.LinkAddress(header.NDPSourceLinkAddress)
	if p.src.IsUnspecified() {
		// Somebody asks whether an address is free (RFC 4862 §5.4.3).
		if hasMAC || p.dst != header.SolicitedNode(target) {
			return false
		}
		if s.isOwn(target) && !s.ownProbe(options) {
			s.conflict(target, p.mac)
			s.sendNeighborAdvertisement(target, header.AllNodes, false)
		}
		return true
	}
	if !s.isOwn(target) && !s.standsFor(target) {
		return true
	}
	if hasMAC && mac.IsUnicast() && s.plausibleNeighbor(p.src) {
		s.nd.Heard(s.now, p.src, mac)
	}
	s.sendNeighborAdvertisement(target, p.src, true)
	return true
}

// inputNeighborAdvertisement takes in an answer, or a claim (RFC 4861 §7.2.5).
func (s *Stack) inputNeighborAdvertisement(p *packet, m header.ICMPv6) bool {
	h, options, ok := header.ParseNeighborAdvertisement(m)
	if !ok || h.Solicited() && p.dst.IsMulticast() {
		return false
	}
	target := h.Target()
	mac, ok := options.LinkAddress(header.NDPTargetLinkAddress)
	if !ok {
		mac = p.mac // may be left out of an answer to a unicast solicitation (§4.4)
	}
	switch {
	case s.isOwn(target):
		s.claimed(target, mac)
	case !mac.IsUnicast() || mac == s.cfg.HardwareAddr:
		return false
	case h.Solicited():
		s.nd.Answered(s.now, target, mac)
	default:
		s.nd.Claimed(s.now, target, mac)
	}
	return true
}

// sendNeighborAdvertisement answers for target. For what is not our own the answer
// is a proxy's, which any station's own overrides (RFC 4861 §7.2.8).
func (s *Stack) sendNeighborAdvertisement(target, to netip.Addr, solicited bool) {
	own := s.isOwn(target)
	fields := header.NeighborFields{
		Target: target, LinkAddress: s.cfg.HardwareAddr,
		Router: own && !s.cfg.RouterAdvertisement.Disabled, Solicited: solicited, Override: own && !s.optimistic(),
	}
	var b [header.IPv6Len]byte
	n := header.PutNeighborAdvertisement(b[:], &fields, target, to)
	s.sendND(b[:n], target, to)
}

// sendND sends a whole neighbour discovery message.
func (s *Stack) sendND(message []byte, src, dst netip.Addr) {
	o := outgoing{
		src: src, dst: dst, protocol: header.ProtocolICMPv6, hopLimit: header.NDPHopLimit,
		head: [8]byte(message), payload: message[header.ICMPLen:],
	}
	s.send(&o)
}

// ndLink is the stack as the neighbour discovery cache sees it.
type ndLink Stack

// Solicit asks for an IPv6 address. When it asks one station only, the cache
// still answers that station's Ethernet address.
func (l *ndLink) Solicit(a netip.Addr, to header.MAC) {
	s := (*Stack)(l)
	own := s.ownFor(a)
	if !own.IsValid() {
		return
	}
	dst := a
	if to.IsBroadcast() {
		dst = header.SolicitedNode(a)
	}
	fields := header.NeighborFields{Target: a, LinkAddress: s.cfg.HardwareAddr}
	var b [header.IPv6Len]byte
	n := header.PutNeighborSolicitation(b[:], &fields, own, dst)
	s.sendND(b[:n], own, dst)
}

// Release sends a frame that waited.
func (l *ndLink) Release(f *neighbor.Held) { (*Stack)(l).release(f) }

// Abandon tells the flow of a frame that waited in vain.
func (l *ndLink) Abandon(f *neighbor.Held) { (*Stack)(l).abandon(f) }
