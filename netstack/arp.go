package netstack

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
)

// inputARP takes in an ARP message (RFC 826).
func (s *Stack) inputARP(b []byte) {
	h, ok := header.ParseARP(b)
	if !ok || !h.SenderMAC().IsUnicast() || h.SenderMAC() == s.cfg.HardwareAddr {
		s.stats.Drops.Malformed++
		return
	}
	sender := h.SenderIP()
	probe := sender.IsUnspecified() // RFC 5227 §1.1
	// Where route_localnet is set, Linux asks in the name of the packet that
	// waits (arp_solicit in net/ipv4/arp.c), which may be a server's on 127.0.0.1.
	loopback := sender.IsLoopback() && h.Op() == header.ARPRequest
	switch {
	case s.isOwn(sender):
		s.conflict(sender, h.SenderMAC())
		return
	case !probe && !loopback && !s.plausibleNeighbor(sender):
		s.stats.Drops.MartianSource++
		return
	}
	switch h.Op() {
	case header.ARPRequest:
		s.inputARPRequest(h, probe)
	case header.ARPReply:
		if !probe {
			s.arp.Answered(s.now, sender, h.SenderMAC())
		}
	default:
		s.stats.Drops.Malformed++
	}
}

// inputARPRequest answers for our own addresses, probes included, and for those
// that the stack stands for, and learns
// from those who ask for one: they are about to talk to us. A request for the
// sender's own address is an announcement (RFC 5227 §3).
func (s *Stack) inputARPRequest(h header.ARP, probe bool) {
	switch target := h.TargetIP(); {
	case target.IsLoopback():
	case target == h.SenderIP():
		s.arp.Claimed(s.now, target, h.SenderMAC())
	case s.isOwn(target), !probe && s.standsFor(target):
		if !probe && !h.SenderIP().IsLoopback() {
			s.arp.Heard(s.now, h.SenderIP(), h.SenderMAC())
		}
		s.sendARP(h.SenderMAC(), header.ARPFields{
			Op: header.ARPReply, SenderMAC: s.cfg.HardwareAddr, SenderIP: target,
			TargetMAC: h.SenderMAC(), TargetIP: h.SenderIP(),
		})
	}
}

// plausibleNeighbor reports whether a station on the link can have a.
func (s *Stack) plausibleNeighbor(a netip.Addr) bool {
	return !header.IsMartianSource(a) && !s.isOwn(a) && !s.isSubnetBroadcast(a) &&
		(s.onLink(a) || a == s.cfg.NextHop4 || a == s.cfg.NextHop6)
}

func (s *Stack) sendARP(to header.MAC, fields header.ARPFields) {
	f := s.out.Append(header.EthernetLen + header.ARPLen)
	header.PutEthernet(f.Header, header.EthernetFields{
		Destination: to, Source: s.cfg.HardwareAddr, Type: header.EtherTypeARP})
	header.PutARP(f.Header[header.EthernetLen:], fields)
	f.HeaderLen = uint16(len(f.Header))
	s.stats.FramesOut++
}

// ownFor is the stack's address to speak to a from: one on a's network, else
// the gateway's.
func (s *Stack) ownFor(a netip.Addr) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return s.linkLocal
	}
	for _, p := range s.cfg.Addresses {
		if p.Contains(a) {
			return p.Addr()
		}
	}
	return s.gateway(a)
}

// arpLink is the stack as the ARP cache sees it.
type arpLink Stack

// Solicit asks for an IPv4 address.
func (l *arpLink) Solicit(a netip.Addr, to header.MAC) {
	s := (*Stack)(l)
	own := s.ownFor(a)
	if !own.IsValid() {
		return
	}
	s.sendARP(to, header.ARPFields{
		Op: header.ARPRequest, SenderMAC: s.cfg.HardwareAddr, SenderIP: own, TargetIP: a})
}

// Release sends a frame that waited.
func (l *arpLink) Release(f *neighbor.Held) { (*Stack)(l).release(f) }

// Abandon tells the flow of a frame that waited in vain.
func (l *arpLink) Abandon(f *neighbor.Held) { (*Stack)(l).abandon(f) }
