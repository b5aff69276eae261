package netstack

import (
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/reassembly"
)

// inputIPv4 takes in an IPv4 packet: form, addresses, TTL, reassembly (RFC 1122
// §3.2, RFC 1812 §5.2.2).
func (s *Stack) inputIPv4(p *packet, b []byte) {
	h, payload, ok := header.ParseIPv4(b)
	if !ok {
		s.stats.Drops.Malformed++
		return
	}
	if !h.ChecksumValid() {
		s.stats.Drops.IPChecksum++
		return
	}
	p.src, p.dst = h.Source(), h.Destination()
	p.ttl, p.tos, p.protocol = h.TTL(), h.TOS(), h.Protocol()
	p.header, p.payload = h, payload
	if !s.admitIPv4(p, h) || !s.ttlSuffices(p, h.FragmentOffset() == 0) {
		return
	}
	if h.IsFragment() && !s.reassembleIPv4(p, h) {
		return
	}
	s.dispatchIPv4(p)
}

// admitIPv4 decides by the addresses whether a packet may come in.
func (s *Stack) admitIPv4(p *packet, h header.IPv4) bool {
	p.local = s.isOwn(p.dst)
	switch {
	case p.dst == broadcast:
		return s.admitBroadcast(p, h)
	case h.HasSourceRoute(): // RFC 7126 §4.3, §4.4
		s.stats.Drops.SourceRoute++
	case !s.sourceIPv4(p):
		s.stats.Drops.MartianSource++
	case p.src == p.dst:
		s.stats.Drops.Land++
	case p.local && !p.group:
		return true
	case p.group, p.dst.IsMulticast(), s.isSubnetBroadcast(p.dst):
		// A unicast packet in a broadcast frame too (RFC 1122 §3.3.6).
		s.stats.Drops.Group++
	case header.IsMartianDestination(p.dst):
		s.stats.Drops.MartianTarget++
	case s.onLink(p.dst) && !s.standsFor(p.dst):
		s.stats.Drops.NoSuchHost++
		s.sendErrorIf(h.FragmentOffset() == 0, p, errHost)
	default:
		return true
	}
	return false
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// sourceIPv4 judges the source address. 127.0.0.0/8 gets a second look when the
// flow is known.
func (s *Stack) sourceIPv4(p *packet) bool {
	if p.src.IsLoopback() {
		p.loopback = true
		return true
	}
	if header.IsMartianSource(p.src) || s.isOwn(p.src) || s.isSubnetBroadcast(p.src) {
		return false
	}
	// Link-local addresses do not leave the link (RFC 3927 §2.7).
	return p.local || !header.IsLinkLocal(p.src) || s.onLink(p.src)
}

// ttlSuffices lets packets for ourselves pass, and others that could go one hop
// further: to the sandbox we are the first router.
func (s *Stack) ttlSuffices(p *packet, first bool) bool {
	if p.local || p.ttl > 1 {
		return true
	}
	s.stats.Drops.TTL++
	s.sendErrorIf(first, p, errTTL)
	return false
}

// reassembleIPv4 keeps a fragment, and turns p into the datagram if it is
// complete now.
func (s *Stack) reassembleIPv4(p *packet, h header.IPv4) bool {
	s.stats.FragmentsIn++
	if h.FragmentOffset() == 0 && len(p.payload) < leastTransport(p.protocol) {
		// RFC 1858 §3.2.1, and what RFC 7112 asks of IPv6: who looks at the
		// first fragment only must see the ports.
		s.stats.Drops.Reassembly++
		return false
	}
	d, result := s.reassembly4.Add(s.now,
		reassembly.Key{Source: p.src, Destination: p.dst, ID: uint32(h.ID()), Protocol: p.protocol},
		reassembly.Fragment{Offset: h.FragmentOffset(), More: h.MoreFragments(), ECN: h.ECN(),
			Header: h, Payload: p.payload})
	if !s.reassembled(result) {
		return false
	}
	if len(d.Header)+len(d.Payload) > 65535 {
		s.stats.Drops.Reassembly++
		return false
	}
	p.whole, p.off = true, frame.Offload{}
	p.header, p.payload = d.Header, d.Payload
	p.tos = p.tos&^3 | d.ECN
	return true
}

// reassembled counts, and reports whether there is a datagram.
func (s *Stack) reassembled(r reassembly.Result) bool {
	switch r {
	case reassembly.Complete:
		s.stats.DatagramsReassembled++
		return true
	case reassembly.Held, reassembly.Duplicate:
	default:
		s.stats.Drops.Reassembly++
	}
	return false
}

// leastTransport is the shortest header of a transport protocol.
func leastTransport(protocol uint8) int {
	switch protocol {
	case header.ProtocolTCP:
		return header.TCPMinLen
	case header.ProtocolUDP, header.ProtocolICMP:
		return header.UDPLen
	}
	return 1
}

func (s *Stack) dispatchIPv4(p *packet) {
	switch p.protocol {
	case header.ProtocolTCP:
		s.inputTCP(p)
	case header.ProtocolUDP:
		s.inputUDP(p)
	case header.ProtocolICMP:
		s.inputICMPv4(p)
	case header.ProtocolIGMP:
		s.stats.Drops.ICMPIgnored++
	default:
		s.stats.Drops.Protocol++
		if p.local {
			s.sendError(p, errProtocol)
		} else {
			s.sendError(p, errProhibited) // we carry TCP, UDP and echo only
		}
	}
}

// reassemblyTimedOut4 tells the sender of an unfinished datagram (RFC 792).
func (s *Stack) reassemblyTimedOut4(head, payload []byte) {
	h := header.IPv4(head)
	p := packet{src: h.Source(), dst: h.Destination(), protocol: h.Protocol(), header: h, payload: payload}
	p.local, p.loopback = s.isOwn(p.dst), p.src.IsLoopback()
	s.sendError(&p, errReassembly)
}
