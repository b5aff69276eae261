package header

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/seq"
)

// Quoted is the packet that an ICMP error is about, as far as the error quotes
// it. It is the receiver's own packet: Source is whom the error came to. All of
// it is the word of the error's sender and proves nothing until compared with
// a flow's state (RFC 5927 §4).
type Quoted struct {
	Protocol            uint8
	Source, Destination netip.AddrPort // ports 0 if the protocol has none
	// Head is the start of the transport header, up to 8 bytes.
	Head [8]byte
	// HeadLen is how many bytes of Head were quoted.
	HeadLen int
	// Fragment says that the quoted packet was a fragment other than the
	// first: it has no transport header, and Head and ports are zero.
	Fragment bool
}

// ParseQuotedIPv4 reads the body of an ICMPv4 error. The quotation may be cut
// anywhere behind the IP header, so its total length is not compared with b.
// What lies beyond the length it does declare is an ICMP extension (RFC 4884)
// or padding and not part of the packet.
func ParseQuotedIPv4(b []byte) (q Quoted, ok bool) {
	if len(b) < IPv4MinLen || b[0]>>4 != 4 {
		return Quoted{}, false
	}
	n := int(b[0]&0x0f) * 4
	if n < IPv4MinLen || n > len(b) {
		return Quoted{}, false
	}
	h := IPv4(b[:n])
	if h.TotalLen() < n {
		return Quoted{}, false
	}
	q.Protocol = h.Protocol()
	q.Fragment = h.FragmentOffset() != 0
	q.setTransport(h.Source(), h.Destination(), b[n:min(len(b), h.TotalLen())])
	return q, true
}

// ParseQuotedIPv6 reads the body of an ICMPv6 error. Extension headers are
// walked over as far as they are quoted; if the transport header is not
// reached, the quotation says nothing about a flow and is refused.
func ParseQuotedIPv6(b []byte) (q Quoted, ok bool) {
	if len(b) < IPv6Len || b[0]>>4 != 6 {
		return Quoted{}, false
	}
	h := IPv6(b[:IPv6Len])
	rest := b[IPv6Len:min(len(b), IPv6Len+h.PayloadLen())]
	q.Protocol = h.NextHeader()
	for range MaxIPv6Extensions + 1 {
		n := 0
		switch q.Protocol {
		case ProtocolHopByHop, ProtocolRouting, ProtocolDestination:
			if len(rest) < 8 {
				return Quoted{}, false
			}
			n = 8 + int(rest[1])*8
		case ProtocolFragment:
			f, _, ok := ParseIPv6Fragment(rest)
			if !ok {
				return Quoted{}, false
			}
			n = IPv6FragmentLen
			q.Fragment = f.Offset() != 0
		default:
			q.setTransport(h.Source(), h.Destination(), rest)
			return q, true
		}
		if n > len(rest) {
			return Quoted{}, false
		}
		q.Protocol, rest = rest[0], rest[n:]
		if q.Fragment {
			q.setTransport(h.Source(), h.Destination(), nil)
			return q, true
		}
	}
	return Quoted{}, false
}

func (q *Quoted) setTransport(src, dst netip.Addr, head []byte) {
	if !q.Fragment {
		q.HeadLen = copy(q.Head[:], head)
	}
	var from, to uint16
	if q.HasPorts() {
		from, to = binary.BigEndian.Uint16(q.Head[0:2]), binary.BigEndian.Uint16(q.Head[2:4])
	}
	q.Source, q.Destination = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}

// HasPorts reports whether the ports were quoted.
func (q *Quoted) HasPorts() bool {
	return (q.Protocol == ProtocolTCP || q.Protocol == ProtocolUDP) && q.HeadLen >= 4
}

// TCPSeq is the sequence number of the quoted segment, if it was quoted.
func (q *Quoted) TCPSeq() (v seq.Value, ok bool) {
	if q.Protocol != ProtocolTCP || q.HeadLen < 8 {
		return 0, false
	}
	return seq.Value(binary.BigEndian.Uint32(q.Head[4:8])), true
}

// Echo is the identifier and sequence number of the quoted echo request, if it
// is one and was quoted.
func (q *Quoted) Echo() (id, sequence uint16, ok bool) {
	request := q.Protocol == ProtocolICMP && q.Head[0] == ICMPv4EchoRequest ||
		q.Protocol == ProtocolICMPv6 && q.Head[0] == ICMPv6EchoRequest
	if !request || q.HeadLen < 8 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(q.Head[4:6]), binary.BigEndian.Uint16(q.Head[6:8]), true
}
