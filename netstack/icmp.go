package netstack

import (
	"net/netip"

	"sbxnet/netstack/header"
)

// Echo is an echo request from the sandbox to an address outside. It is good
// until the call that hands it over returns.
type Echo struct {
	Src, Dst netip.Addr
	ID, Seq  uint16
	Payload  []byte
	TTL      uint8
}

// inputICMPv4 takes in an ICMP message (RFC 792).
func (s *Stack) inputICMPv4(p *packet) {
	m, body, ok := header.ParseICMPv4(p.payload)
	switch {
	case !ok:
		s.stats.Drops.Malformed++
	case !m.ChecksumValid():
		s.stats.Drops.TransportCheck++
	case m.IsError():
		s.inputICMPv4Error(p, m, body)
	case p.loopback:
		s.stats.Drops.MartianSource++
	case m.Type() == header.ICMPv4EchoRequest && m.Code() == 0:
		s.stats.ICMPIn++
		s.inputEcho(p, Echo{Src: p.src, Dst: p.dst, ID: m.EchoID(), Seq: m.EchoSeq(), Payload: body, TTL: p.ttl})
	default:
		s.stats.Drops.ICMPIgnored++
	}
}

// inputICMPv4Error takes in an error. Redirects and source quenches are ignored
// (RFC 6633); so is what quotes nothing that can be made out.
func (s *Stack) inputICMPv4Error(p *packet, m header.ICMPv4, body []byte) {
	s.stats.ICMPErrorsIn++
	r, ok := reportIPv4(m)
	if !ok {
		s.stats.Drops.ICMPIgnored++
		return
	}
	q, ok := header.ParseQuotedIPv4(body)
	if !ok {
		s.stats.Drops.ICMPQuote++
		return
	}
	s.inputError(p, q, r)
}

// inputICMPv6 takes in an ICMPv6 message (RFC 4443).
func (s *Stack) inputICMPv6(p *packet) {
	m, body, ok := header.ParseICMPv6(p.payload)
	switch {
	case !ok:
		s.stats.Drops.Malformed++
		return
	case !m.ChecksumValid(p.src, p.dst):
		s.stats.Drops.TransportCheck++
		return
	}
	switch m.Type() {
	case header.ICMPv6NeighborSolicitation, header.ICMPv6NeighborAdvertisement, header.ICMPv6RouterSolicitation:
		s.stats.ICMPIn++
		s.inputND(p, m)
		return
	case header.ICMPv6MulticastReport, header.ICMPv6MulticastReportVersion2, header.ICMPv6MulticastDone:
		s.stats.Drops.ICMPIgnored++ // MLD: there is nobody to forward to
		return
	}
	switch {
	case p.dst.IsMulticast() || p.src.IsUnspecified():
		s.stats.Drops.Group++
	case m.IsError():
		s.inputICMPv6Error(p, m, body)
	case m.Type() == header.ICMPv6EchoRequest && m.Code() == 0:
		s.stats.ICMPIn++
		s.inputEcho(p, Echo{Src: p.src, Dst: p.dst, ID: m.EchoID(), Seq: m.EchoSeq(), Payload: body, TTL: p.ttl})
	default:
		s.stats.Drops.ICMPIgnored++ // redirects among them
	}
}

func (s *Stack) inputICMPv6Error(p *packet, m header.ICMPv6, body []byte) {
	s.stats.ICMPErrorsIn++
	r, ok := reportIPv6(m)
	if !ok {
		s.stats.Drops.ICMPIgnored++
		return
	}
	q, ok := header.ParseQuotedIPv6(body)
	if !ok {
		s.stats.Drops.ICMPQuote++
		return
	}
	s.inputError(p, q, r)
}

// inputEcho answers for our own addresses and hands on the rest.
func (s *Stack) inputEcho(p *packet, e Echo) {
	switch {
	case s.cfg.NoEcho:
		s.stats.Drops.ICMPIgnored++
	case p.local:
		s.SendEchoReply(e.Dst, e.Src, e.ID, e.Seq, e.Payload)
	case s.handler != nil:
		s.echo = e
		s.handler.Echo(&s.echo)
		s.echo.Payload = nil
	default:
		s.stats.Drops.Refused++
		s.sendError(p, errNet)
	}
}

// SendEchoReply answers an echo request: from is the address that was asked, to
// who asked. payload is copied.
func (s *Stack) SendEchoReply(from, to netip.Addr, id, seq uint16, payload []byte) {
	if !from.IsValid() || from.Is4() != to.Is4() || from.Is4In6() || to.Is4In6() {
		s.stats.Drops.NoRoute++
		return
	}
	if header.ICMPLen+len(payload) > maxPayload(to) {
		s.stats.Drops.TooBig++
		return
	}
	o := outgoing{src: from, dst: to, hopLimit: defaultTTL, payload: payload}
	if to.Is4() {
		o.protocol = header.ProtocolICMP
		header.PutICMPv4(o.head[:], header.ICMPFields{Type: header.ICMPv4EchoReply,
			Rest: header.EchoRest(id, seq)}, payload)
	} else {
		o.protocol = header.ProtocolICMPv6
		header.PutICMPv6(o.head[:], header.ICMPFields{Type: header.ICMPv6EchoReply,
			Rest: header.EchoRest(id, seq)}, from, to, payload)
	}
	s.stats.EchoRepliesOut++
	if ipLen(to)+o.length() > s.cfg.MTU {
		s.sendFragmented(&o)
	} else {
		s.send(&o)
	}
}
