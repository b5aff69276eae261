package netstack

import (
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/reassembly"
)

// inputIPv6 takes in an IPv6 packet: form, addresses, hop limit, extension
// headers, reassembly (RFC 8200).
func (s *Stack) inputIPv6(p *packet, b []byte) {
	h, payload, ok := header.ParseIPv6(b)
	if !ok {
		s.stats.Drops.Malformed++
		return
	}
	p.src, p.dst = h.Source(), h.Destination()
	p.ttl, p.tos = h.HopLimit(), h.TrafficClass()
	p.header, p.payload, p.protocol = h, payload, h.NextHeader()
	if !s.admitIPv6(p) || !s.ttlSufficesIPv6(p, b) {
		return
	}
	c, ok := header.WalkIPv6(h, payload)
	if !ok {
		s.refuseIPv6(p, c)
		return
	}
	if c.Fragment != nil {
		s.reassembleIPv6(p, b, c)
		return
	}
	p.header, p.payload, p.protocol = b[:header.IPv6Len+c.Offset], payload[c.Offset:], c.Protocol
	s.dispatchIPv6(p)
}

// admitIPv6 decides by the addresses whether a packet may come in. Multicast
// is let through for neighbour discovery and for endpoints that are bound to a
// group, which dispatchIPv6 sees to.
func (s *Stack) admitIPv6(p *packet) bool {
	p.local = s.isOwn(p.dst)
	multicast := p.dst.IsMulticast()
	switch {
	case p.src.IsUnspecified() && multicast:
		return true // duplicate address detection, router solicitation, MLD
	case header.IsMartianSource(p.src), s.isOwn(p.src) && !claimsIPv6(p):
		s.stats.Drops.MartianSource++
	case p.src == p.dst:
		s.stats.Drops.Land++
	case multicast:
		return true
	case p.group:
		s.stats.Drops.Group++
	case p.local:
		return true
	case header.IsMartianDestination(p.dst):
		s.stats.Drops.MartianTarget++
	case header.IsLinkLocal(p.dst), s.onLink(p.dst) && !s.standsFor(p.dst):
		s.stats.Drops.NoSuchHost++
		s.sendErrorIf(!isFragmentIPv6(p), p, errHost)
	case header.IsLinkLocal(p.src):
		// It does not leave the link (RFC 4291 §2.5.6, RFC 4443 §3.1).
		s.stats.Drops.MartianSource++
		s.sendErrorIf(!isFragmentIPv6(p), p, errScope)
	default:
		return true
	}
	return false
}

// isFragmentIPv6 reports whether a packet whose headers have not been walked
// might be a fragment: it is not told apart from one behind other extension
// headers, and nobody misses an ICMP error about either.
func isFragmentIPv6(p *packet) bool {
	switch p.protocol {
	case header.ProtocolTCP, header.ProtocolUDP, header.ProtocolICMPv6:
		return false
	}
	return true
}

// ttlSufficesIPv6 is ttlSuffices for a packet whose headers are not known yet.
// Multicast goes nowhere, so its hop limit does not count.
func (s *Stack) ttlSufficesIPv6(p *packet, b []byte) bool {
	if p.dst.IsMulticast() || p.local || p.ttl > 1 {
		return true
	}
	// Walked only to see whether an error may be sent: fragments after the
	// first, and ICMPv6 errors, get none.
	payload := p.payload
	c, ok := header.WalkIPv6(p.header, payload)
	first := ok && (c.Fragment == nil || c.Fragment.Offset() == 0)
	if first {
		p.protocol, p.header, p.payload = c.Protocol, b[:header.IPv6Len+c.Offset], payload[c.Offset:]
	}
	return s.ttlSuffices(p, first)
}

// refuseIPv6 drops a packet whose extension headers cannot be followed, and
// says so where RFC 8200 §4.2 and RFC 7112 §5 want it.
func (s *Stack) refuseIPv6(p *packet, c header.IPv6Chain) {
	s.stats.Drops.ExtensionHeader++
	if !c.Problem || c.Fragment != nil && c.Fragment.Offset() != 0 {
		return
	}
	p.protocol = c.Protocol
	s.sendError(p, icmpError{type6: header.ICMPv6ParameterProblem, code6: c.Code, rest: c.Pointer, onlyIPv6: true})
}

// reassembleIPv6 keeps a fragment, and takes in the datagram if it is complete.
func (s *Stack) reassembleIPv6(p *packet, b []byte, c header.IPv6Chain) {
	s.stats.FragmentsIn++
	if p.dst.IsMulticast() {
		s.stats.Drops.Group++
		return
	}
	at := header.IPv6Len + c.FragmentOffset + header.IPv6FragmentLen
	end := len(p.header) + len(p.payload)
	d, result := s.reassembly6.Add(s.now,
		reassembly.Key{Source: p.src, Destination: p.dst, ID: c.Fragment.ID()},
		reassembly.Fragment{Offset: c.Fragment.Offset(), More: c.Fragment.MoreFragments(), ECN: p.tos & 3,
			Header: b[:at], Payload: b[at:end]})
	if s.reassembled(result) {
		s.inputReassembled6(p, d)
	}
}

// inputReassembled6 makes a packet of a reassembled datagram: the first
// fragment's headers without the fragment header, then the data, which may
// begin with further extension headers.
func (s *Stack) inputReassembled6(p *packet, d *reassembly.Datagram) {
	n := len(d.Header) - header.IPv6FragmentLen
	fragment := header.IPv6Fragment(d.Header[n:])
	if n-header.IPv6Len+len(d.Payload) > 65535 {
		s.stats.Drops.Reassembly++
		return
	}
	s.whole = append(append(s.whole[:0], d.Header[:n]...), d.Payload...)
	s.whole[nextHeaderField(d.Header, n)] = fragment.NextHeader()
	h, payload := header.IPv6(s.whole[:header.IPv6Len]), s.whole[header.IPv6Len:]
	h.SetPayloadLen(len(payload))
	c, ok := header.WalkIPv6(h, payload)
	if !ok || c.Fragment != nil {
		s.stats.Drops.ExtensionHeader++
		return
	}
	p.whole, p.off = true, frame.Offload{}
	p.tos = p.tos&^3 | d.ECN
	p.header, p.payload, p.protocol = s.whole[:header.IPv6Len+c.Offset], payload[c.Offset:], c.Protocol
	s.dispatchIPv6(p)
}

// nextHeaderField finds the byte that names the header at offset end of an IPv6
// packet whose chain has been walked before.
func nextHeaderField(b []byte, end int) int {
	at, next := 6, header.IPv6Len
	for next < end {
		n := 8
		if b[at] != header.ProtocolFragment {
			n += int(b[next+1]) * 8
		}
		at, next = next, next+n
	}
	return at
}

func (s *Stack) dispatchIPv6(p *packet) {
	if p.dst.IsMulticast() && p.protocol != header.ProtocolICMPv6 && (p.src.IsUnspecified() || !s.isBoundGroup(p)) {
		s.stats.Drops.Group++
		return
	}
	switch p.protocol {
	case header.ProtocolTCP:
		s.inputTCP(p)
	case header.ProtocolUDP:
		s.inputUDP(p)
	case header.ProtocolICMPv6:
		s.inputICMPv6(p)
	case header.ProtocolNoNext:
		s.stats.Drops.Protocol++
	default:
		s.stats.Drops.Protocol++
		if p.local {
			field := uint32(nextHeaderField(p.header, len(p.header)))
			s.sendError(p, icmpError{type6: header.ICMPv6ParameterProblem,
				code6: header.ICMPv6UnrecognizedNextHeader, rest: field, onlyIPv6: true})
		} else {
			s.sendError(p, errProhibited)
		}
	}
}

// reassemblyTimedOut6 tells the sender of an unfinished datagram (RFC 8200
// §4.5).
func (s *Stack) reassemblyTimedOut6(head, payload []byte) {
	h := header.IPv6(head[:header.IPv6Len])
	p := packet{src: h.Source(), dst: h.Destination(), header: head, payload: payload}
	p.protocol = header.IPv6Fragment(head[len(head)-header.IPv6FragmentLen:]).NextHeader()
	p.local = s.isOwn(p.dst)
	s.sendError(&p, errReassembly)
}
