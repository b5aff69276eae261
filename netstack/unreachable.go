package netstack

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/tcp"
)

// SendUDPUnreachable tells the sandbox that a datagram of payloadLen bytes of
// payload, which it sent from flowSrc to flowDst, did not arrive. The error
// comes from the given address; if that is the zero Addr, from the gateway.
// Reset and Silent send nothing. Errors are limited in rate.
func (s *Stack) SendUDPUnreachable(flowSrc, flowDst netip.AddrPort, payloadLen int, reason tcp.Refusal, from netip.Addr) {
	if e, ok := refusalError(reason); ok {
		s.sendUDPError(e, flowSrc, flowDst, payloadLen, from)
	}
}

// SendUDPTooBig tells the sandbox that such a datagram was too big for the path
// beyond, which takes IP packets of mtu bytes.
func (s *Stack) SendUDPTooBig(flowSrc, flowDst netip.AddrPort, payloadLen, mtu int, from netip.Addr) {
	s.sendUDPError(tooBigError(mtu), flowSrc, flowDst, payloadLen, from)
}

func (s *Stack) sendUDPError(e icmpError, src, dst netip.AddrPort, payloadLen int, from netip.Addr) {
	var head [8]byte
	n := min(max(payloadLen, 0), maxPayload(src.Addr())-header.UDPLen)
	header.PutUDP(head[:], header.UDPFields{
		SourcePort: src.Port(), DestinationPort: dst.Port(), PayloadLen: n})
	s.sendErrorAbout(e, from, src.Addr(), dst.Addr(), header.ProtocolUDP, head, header.UDPLen+n)
}

// SendEchoUnreachable tells the sandbox that its echo request from src to dst
// did not arrive, as [Stack.SendUDPUnreachable] does of a datagram.
func (s *Stack) SendEchoUnreachable(src, dst netip.Addr, id, seq uint16, reason tcp.Refusal, from netip.Addr) {
	if e, ok := refusalError(reason); ok {
		s.sendEchoError(e, src, dst, id, seq, from)
	}
}

func (s *Stack) sendEchoError(e icmpError, src, dst netip.Addr, id, seq uint16, from netip.Addr) {
	protocol, kind := uint8(header.ProtocolICMPv6), uint8(header.ICMPv6EchoRequest)
	if src.Is4() {
		protocol, kind = header.ProtocolICMP, header.ICMPv4EchoRequest
	}
	head := [8]byte{kind}
	binary.BigEndian.PutUint32(head[4:], header.EchoRest(id, seq))
	s.sendErrorAbout(e, from, src, dst, protocol, head, len(head))
}

// SendUnreachable implements tcp.Output.
func (s *Stack) SendUnreachable(r *tcp.Route, reason tcp.Refusal, irs uint32) {
	e, ok := refusalError(reason)
	if !ok {
		return
	}
	if s.exceeded.sending {
		e = errTTL
	}
	var head [8]byte
	binary.BigEndian.PutUint16(head[0:], r.Remote.Port())
	binary.BigEndian.PutUint16(head[2:], r.Local.Port())
	binary.BigEndian.PutUint32(head[4:], irs)
	s.sendErrorAbout(e, s.exceeded.from, r.Remote.Addr(), r.Local.Addr(), header.ProtocolTCP, head, header.TCPMinLen)
}

// report is what an ICMP error from the sandbox says.
type report struct {
	reason tcp.Refusal
	mtu    int // not 0: too big
}

// reportIPv4 reads an ICMP error's type and code (RFC 1122 §3.2.2.1, RFC 5461).
// It reports false for those that nobody acts on.
func reportIPv4(m header.ICMPv4) (r report, ok bool) {
	if m.Type() == header.ICMPv4TimeExceeded {
		return report{reason: tcp.HostUnreachable}, m.Code() == header.ICMPv4TTLExceeded
	}
	if m.Type() != header.ICMPv4Unreachable {
		return r, false
	}
	switch m.Code() {
	case header.ICMPv4NetUnreachable, header.ICMPv4NetUnknown, header.ICMPv4NetUnreachableForTOS:
		r.reason = tcp.NetUnreachable
	case header.ICMPv4ProtocolUnreachable, header.ICMPv4PortUnreachable:
		r.reason = tcp.PortUnreachable
	case header.ICMPv4FragmentationNeeded:
		// Routers before RFC 1191 leave 0; none is on this link.
		r.mtu = m.MTU()
		return r, r.mtu > 0
	case header.ICMPv4NetProhibited, header.ICMPv4HostProhibited, header.ICMPv4AdminProhibited:
		r.reason = tcp.Prohibited
	default:
		r.reason = tcp.HostUnreachable
	}
	return r, true
}

// reportIPv6 is reportIPv4 for ICMPv6 (RFC 4443 §3).
func reportIPv6(m header.ICMPv6) (r report, ok bool) {
	switch m.Type() {
	case header.ICMPv6PacketTooBig:
		r.mtu = int(min(m.MTU(), MaxMTU))
		return r, r.mtu > 0
	case header.ICMPv6TimeExceeded:
		return report{reason: tcp.HostUnreachable}, m.Code() == header.ICMPv6HopLimitExceeded
	case header.ICMPv6Unreachable:
	default:
		return r, false
	}
	switch m.Code() {
	case header.ICMPv6NoRoute:
		r.reason = tcp.NetUnreachable
	case header.ICMPv6PortUnreachable:
		r.reason = tcp.PortUnreachable
	case header.ICMPv6AdminProhibited, header.ICMPv6SourcePolicy, header.ICMPv6RejectRoute:
		r.reason = tcp.Prohibited
	default:
		r.reason = tcp.HostUnreachable
	}
	return r, true
}

// inputError hands an error to the flow that the quoted packet belongs to. The
// quoted packet is ours only if it came from where the error went; the flow's
// owner checks the rest (RFC 5927 §4.1).
func (s *Stack) inputError(p *packet, q header.Quoted, r report) {
	if q.Fragment || q.Source.Addr() != p.dst || !q.HasPorts() || !s.acceptLoopbackError(p, q) {
		s.stats.Drops.ICMPQuote++
		return
	}
	switch q.Protocol {
	case header.ProtocolTCP:
		if quoted, ok := q.TCPSeq(); ok {
			s.tcp.SetNow(s.now)
			s.tcp.Unreachable(q.Source, q.Destination, quoted, r.reason, r.mtu)
			return
		}
		s.stats.Drops.ICMPQuote++
	case header.ProtocolUDP:
		s.inputUDPError(&Unreachable{Src: q.Source, Dst: q.Destination, Reason: r.reason, MTU: r.mtu})
	}
}

// acceptLoopbackError lets an error from 127.0.0.0/8 through if it is about a
// flow that we opened to there.
func (s *Stack) acceptLoopbackError(p *packet, q header.Quoted) bool {
	return !p.loopback || s.loopback.has(loopbackFlow{q.Source, q.Destination, q.Protocol})
}

func (s *Stack) inputUDPError(u *Unreachable) {
	e := s.endpoint(u.Src)
	switch {
	case e != nil:
		if e.unreachable != nil {
			e.unreachable(u)
		}
	case s.handler != nil:
		s.handler.Unreachable(u)
	default:
		s.stats.Drops.ICMPQuote++
	}
}

// abandon tells the flow of a frame that could not be sent that its next hop is
// not there, as a router would (RFC 1812 §5.2.7.1).
func (s *Stack) abandon(h *neighbor.Held) {
	var q header.Quoted
	var ok bool
	b := h.AppendTo(nil)[header.EthernetLen:]
	if b[0]>>4 == 4 {
		q, ok = header.ParseQuotedIPv4(b)
	} else {
		q, ok = header.ParseQuotedIPv6(b)
	}
	if ok {
		s.inputError(&packet{dst: q.Source.Addr()}, q, report{reason: tcp.HostUnreachable})
	}
}
