package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Respond4 takes in the payload of a datagram that came to [ServerPort4], by
// broadcast or to the server's address, and returns the reply if there is one.
// req stays the caller's.
func (s *Server) Respond4(req []byte, now timer.Instant) (Reply, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := parse4(req)
	if !ok || !s.cfg.IPv4.served() {
		s.stats.Malformed++
		return Reply{}, false
	}
	s.stats.In4++
	s.pool4.now = now
	if !s.concerns4(m) {
		s.stats.Ignored++
		return Reply{}, false
	}
	a := s.answer4(m)
	if a == nil {
		return Reply{}, false
	}
	s.stats.Out4++
	r := Reply{From: netip.AddrPortFrom(s.cfg.IPv4.Gateway, ServerPort4), Payload: a.ToBytes()}
	s.address4(m, a, &r)
	return r, true
}

// concerns4 reports whether a request is for us: to any server or to this one,
// and from this link or a relay on it, whose clients would be given an address
// of this link (RFC 2131 §4.3.1).
func (s *Server) concerns4(m *message4) bool {
	f := &s.cfg.IPv4
	if !m.giaddr.IsUnspecified() && !f.isHost(m.giaddr) {
		return false
	}
	// A REQUEST with another server's identifier turns down our offer.
	return m.kind == dhcpv4.MessageTypeRequest || !m.server.IsValid() || m.server == f.Gateway
}

// answer4 is the reply to a message, or nil.
func (s *Server) answer4(m *message4) *reply4 {
	switch m.kind {
	case dhcpv4.MessageTypeDiscover:
		return s.discovered4(m)
	case dhcpv4.MessageTypeRequest:
		return s.requested4(m)
	case dhcpv4.MessageTypeInform:
		return s.informed4(m)
	case dhcpv4.MessageTypeDecline:
		if l := s.pool4.current(m.client()); l != nil && l.addr == m.requested {
			s.stats.Declined++
			s.pool4.decline(l)
			return nil
		}
	case dhcpv4.MessageTypeRelease:
		if l := s.pool4.current(m.client()); l != nil && l.addr == m.ciaddr {
			s.pool4.release(l)
			return nil
		}
	}
	s.stats.Ignored++
	return nil
}

// discovered4 offers an address (RFC 2131 §4.3.1).
func (s *Server) discovered4(m *message4) *reply4 {
	p, c := &s.pool4, m.client()
	l := p.choose(c, m.requested)
	if l == nil {
		s.stats.Exhausted++
		return nil
	}
	p.give(l, c, offered, p.now.Add(offerTime))
	return s.grant4(m, dhcpv4.MessageTypeOffer, l)
}

// requested4 tells apart what a REQUEST is by what it names (RFC 2131 §4.3.2).
func (s *Server) requested4(m *message4) *reply4 {
	p, f := &s.pool4, &s.cfg.IPv4
	l := p.current(m.client())
	switch {
	case m.server.IsValid() && m.server != f.Gateway:
		if l != nil && l.state == offered {
			p.release(l)
		}
		s.stats.Ignored++
		return nil
	case m.server.IsValid(): // SELECTING
		if !m.requested.IsValid() {
			return s.refuse4(m, "no address requested")
		}
		return s.bind4(m, l, m.requested)
	case m.requested.IsValid(): // INIT-REBOOT
		if l == nil && f.isHost(m.requested) {
			s.stats.Ignored++
			return nil // "MUST remain silent": there may be a server that knows it
		}
		if l == nil || l.addr != m.requested {
			return s.refuse4(m, "not your address")
		}
		return s.bind4(m, l, m.requested)
	case m.ciaddr.IsUnspecified():
		s.stats.Ignored++
		return nil
	}
	return s.bind4(m, l, m.ciaddr) // RENEWING, REBINDING
}

// bind4 acknowledges that the client has an address: l's, or one that is free
// if we do not know the client.
func (s *Server) bind4(m *message4, l *lease, a netip.Addr) *reply4 {
	p, c := &s.pool4, m.client()
	if l == nil {
		l = p.at(a)
		if l == nil || !p.available(l, c) {
			return s.refuse4(m, "address is not to be had")
		}
	}
	if l.addr != a {
		return s.refuse4(m, "not your address")
	}
	p.give(l, c, bound, p.now.Add(s.cfg.Lease))
	return s.grant4(m, dhcpv4.MessageTypeAck, l)
}

// refuse4 sends a client back to its beginnings (RFC 2131 §4.3.2).
func (s *Server) refuse4(m *message4, why string) *reply4 {
	s.stats.Refused++
	r := begin4(m, dhcpv4.MessageTypeNak, s.cfg.IPv4.Gateway, leastDatagram4-udpIPv4)
	if !m.giaddr.IsUnspecified() {
		r.SetBroadcast() // so that the relay broadcasts it
	}
	r.option(dhcpv4.OptMessage(why))
	r.option(dhcpv4.OptClientIdentifier(m.identifier)) // RFC 6842
	return r
}

// grant4 is an OFFER or ACK of an address.
func (s *Server) grant4(m *message4, kind dhcpv4.MessageType, l *lease) *reply4 {
	r := s.begin4(m, kind)
	r.YourIPAddr = l.addr.AsSlice()
	if kind == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = m.ClientIPAddr
	}
	r.option(dhcpv4.OptIPAddressLeaseTime(s.cfg.Lease))
	r.option(dhcpv4.OptRenewTimeValue(s.cfg.Lease / 2))
	r.option(dhcpv4.OptRebindingTimeValue(s.cfg.Lease * 7 / 8))
	r.option(dhcpv4.OptClientIdentifier(m.identifier)) // RFC 6842
	s.parameters4(m, r)
	if l == &s.pool4.leases[0] && s.pool4.reserved && m.wants(dhcpv4.OptionHostName) {
		r.option(dhcpv4.OptHostName(s.cfg.Hostname))
	}
	return r
}

// informed4 tells a client that has an address all else (RFC 2131 §4.3.5).
func (s *Server) informed4(m *message4) *reply4 {
	if !s.cfg.IPv4.isHost(m.ciaddr) {
		s.stats.Ignored++
		return nil
	}
	r := s.begin4(m, dhcpv4.MessageTypeAck)
	r.ClientIPAddr = m.ClientIPAddr
	r.option(dhcpv4.OptClientIdentifier(m.identifier)) // RFC 6842
	s.parameters4(m, r)
	return r
}

// begin4 starts a reply as long as the client and the link take it.
func (s *Server) begin4(m *message4, kind dhcpv4.MessageType) *reply4 {
	limit := max(leastDatagram4, min(m.maxDatagram, s.cfg.MTU, MaxMessage))
	return begin4(m, kind, s.cfg.IPv4.Gateway, limit-udpIPv4)
}

// parameters4 tells what the network is like. What a client cannot do without
// it is told whether it asked or not. The mask goes before the router (RFC 2132
// §3.3).
func (s *Server) parameters4(m *message4, r *reply4) {
	f := &s.cfg.IPv4
	r.option(dhcpv4.OptSubnetMask(net.CIDRMask(f.Prefix.Bits(), 32)))
	r.option(dhcpv4.OptRouter(f.Gateway.AsSlice()))
	r.option(dhcpv4.OptDNS(ipsOf(f.DNS)...))
	r.option(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(s.cfg.MTU)})
	if f.Prefix.Bits() <= 30 {
		r.option(dhcpv4.OptBroadcastAddress(lastAddr(f.Prefix).AsSlice()))
	}
	if m.wants(dhcpv4.OptionDomainName) {
		r.option(dhcpv4.OptDomainName(s.cfg.Domain))
	}
	if m.wants(dhcpv4.OptionDNSDomainSearchList) {
		r.option(dhcpv4.OptDomainSearch(s.domains))
	}
}

// address4 says where a reply goes (RFC 2131 §4.1).
func (s *Server) address4(m *message4, a *reply4, r *Reply) {
	switch {
	case !m.giaddr.IsUnspecified():
		r.To = netip.AddrPortFrom(m.giaddr, ServerPort4)
	case a.MessageType() == dhcpv4.MessageTypeNak:
		r.To, r.Station = netip.AddrPortFrom(Broadcast4, ClientPort4), header.Broadcast
	case !m.ciaddr.IsUnspecified() && s.cfg.IPv4.isHost(m.ciaddr):
		r.To, r.Station = netip.AddrPortFrom(m.ciaddr, ClientPort4), m.chaddr
	case m.IsBroadcast():
		r.To, r.Station = netip.AddrPortFrom(Broadcast4, ClientPort4), header.Broadcast
	default:
		r.To, r.Station = netip.AddrPortFrom(addrOf(a.YourIPAddr), ClientPort4), m.chaddr
	}
}
