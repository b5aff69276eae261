package netstack

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// icmpError is an ICMP error to send, as each family says it.
type icmpError struct {
	type4, code4 uint8
	type6, code6 uint8
	rest         uint32 // the four bytes after the checksum
	onlyIPv6     bool
}

// The errors that the stack finds itself.
var (
	errHost = icmpError{type4: header.ICMPv4Unreachable, code4: header.ICMPv4HostUnreachable,
		type6: header.ICMPv6Unreachable, code6: header.ICMPv6AddressUnreachable}
	errNet = icmpError{type4: header.ICMPv4Unreachable, code4: header.ICMPv4NetUnreachable,
		type6: header.ICMPv6Unreachable, code6: header.ICMPv6NoRoute}
	errPort = icmpError{type4: header.ICMPv4Unreachable, code4: header.ICMPv4PortUnreachable,
		type6: header.ICMPv6Unreachable, code6: header.ICMPv6PortUnreachable}
	errProhibited = icmpError{type4: header.ICMPv4Unreachable, code4: header.ICMPv4AdminProhibited,
		type6: header.ICMPv6Unreachable, code6: header.ICMPv6AdminProhibited}
	errTTL = icmpError{type4: header.ICMPv4TimeExceeded, code4: header.ICMPv4TTLExceeded,
		type6: header.ICMPv6TimeExceeded, code6: header.ICMPv6HopLimitExceeded}
	errReassembly = icmpError{type4: header.ICMPv4TimeExceeded, code4: header.ICMPv4ReassemblyExceeded,
		type6: header.ICMPv6TimeExceeded, code6: header.ICMPv6ReassemblyExceeded}
	errProtocol = icmpError{type4: header.ICMPv4Unreachable, code4: header.ICMPv4ProtocolUnreachable}
	errScope    = icmpError{type6: header.ICMPv6Unreachable, code6: header.ICMPv6BeyondScope, onlyIPv6: true}
)

// refusalError is the ICMP error for a way to refuse; Reset and Silent have none.
func refusalError(r tcp.Refusal) (e icmpError, ok bool) {
	switch r {
	case tcp.NetUnreachable:
		return errNet, true
	case tcp.HostUnreachable:
		return errHost, true
	case tcp.PortUnreachable:
		return errPort, true
	case tcp.Prohibited:
		return errProhibited, true
	}
	return icmpError{}, false
}

// tooBigError says that the way on takes packets of mtu bytes at most.
func tooBigError(mtu int) icmpError {
	return icmpError{
		type4: header.ICMPv4Unreachable, code4: header.ICMPv4FragmentationNeeded,
		type6: header.ICMPv6PacketTooBig, rest: uint32(min(max(mtu, 0), 0xffff)),
	}
}

// The most that an error quotes: as much as fits into a packet that every host
// takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
const (
	maxQuote4 = MinMTU - header.IPv4MinLen - header.ICMPLen
	maxQuote6 = MinMTU6 - header.IPv6Len - header.ICMPLen
)

func (s *Stack) sendErrorIf(first bool, p *packet, e icmpError) {
	if first {
		s.sendError(p, e)
	}
}

// sendError tells the sandbox what became of a packet of its own, if that may
// be told at all: see mayError. Whoever calls makes sure that p is not a later
// fragment.
func (s *Stack) sendError(p *packet, e icmpError) {
	if !p.mayError() {
		return
	}
	from := p.dst
	if !p.local {
		from = s.gateway(p.src)
	}
	s.sendQuoting(e, from, p.src, p.header, p.payload)
}

// mayError is RFC 1122 §3.2.2 and RFC 4443 §2.4 (e): no error about an error, a
// redirect, or a packet to a group. None comes this far from nobody in
// particular, but to a group.
func (p *packet) mayError() bool {
	if p.group || p.loopback || p.dst.IsMulticast() {
		return false
	}
	switch p.protocol {
	case header.ProtocolICMP:
		m, _, ok := header.ParseICMPv4(p.payload)
		return ok && m.Type() == header.ICMPv4EchoRequest
	case header.ProtocolICMPv6:
		m, _, ok := header.ParseICMPv6(p.payload)
		return ok && !m.IsError() && m.Type() != header.ICMPv6Redirect
	}
	return true
}

// sendQuoting sends an error that quotes a packet given as its header and what
// follows, as the rate allows.
func (s *Stack) sendQuoting(e icmpError, from, to netip.Addr, head, payload []byte) {
	if !from.IsValid() || to.Is4() && e.onlyIPv6 {
		return
	}
	if !s.errors.take(s.now) {
		s.stats.Drops.ICMPRateLimited++
		return
	}
	room := maxQuote6
	if to.Is4() {
		room = maxQuote4
	}
	s.scratch = append(s.scratch[:0], head[:min(len(head), room)]...)
	s.scratch = append(s.scratch, payload[:min(len(payload), room-len(s.scratch))]...)
	o := outgoing{src: from, dst: to, hopLimit: defaultTTL, payload: s.scratch}
	if to.Is4() {
		o.protocol = header.ProtocolICMP
		header.PutICMPv4(o.head[:], header.ICMPFields{Type: e.type4, Code: e.code4, Rest: e.rest}, o.payload)
	} else {
		o.protocol = header.ProtocolICMPv6
		header.PutICMPv6(o.head[:], header.ICMPFields{Type: e.type6, Code: e.code6, Rest: e.rest}, from, to, o.payload)
	}
	s.stats.ICMPErrorsOut++
	s.send(&o)
}

// sendErrorAbout sends an error about a packet that is gone, of which only the
// flow and the first 8 bytes of its transport header are known.
func (s *Stack) sendErrorAbout(e icmpError, from, src, dst netip.Addr, protocol uint8, head [8]byte, length int) {
	if !from.IsValid() {
		from = s.gateway(src)
	}
	if !src.IsValid() || src.Is4() != dst.Is4() || from.IsValid() && from.Is4() != src.Is4() {
		return
	}
	var b [header.IPv6Len]byte
	n := ipLen(src)
	length = min(max(length, len(head)), maxPayload(src))
	if src.Is4() {
		header.PutIPv4(b[:], header.IPv4Fields{Source: src, Destination: dst, Protocol: protocol,
			TTL: defaultTTL, DontFragment: true, PayloadLen: length})
	} else {
		header.PutIPv6(b[:], header.IPv6Fields{Source: src, Destination: dst, NextHeader: protocol,
			HopLimit: defaultTTL, PayloadLen: length})
	}
	s.sendQuoting(e, from, src, b[:n], head[:])
}
