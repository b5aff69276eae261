package header

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Flow is what tells the frames of one flow from others, in either direction.
type Flow struct {
	Protocol            uint8
	Source, Destination netip.AddrPort // ports 0 where there are none
	// Fragment says that the frame is a fragment, the first included. Its
	// ports are 0, so that all fragments of a datagram hash alike.
	Fragment bool
	// Quoted says that the frame is an ICMP error and that the rest describes
	// the packet that it quotes, so that it hashes like that packet's flow.
	Quoted bool
}

// ParseFlow finds the flow that an Ethernet frame belongs to, without judging
// more of the frame than it reads: it is for choosing a shard, and the stack
// looks again. An echo message has its identifier for both ports. It reports
// false for frames that carry no IP packet that can be made out.
func ParseFlow(frame []byte) (f Flow, ok bool) {
	e, packet, ok := ParseEthernet(frame)
	if !ok {
		return Flow{}, false
	}
	switch e.Type() {
	case EtherTypeIPv4:
		return parseFlowIPv4(packet)
	case EtherTypeIPv6:
		return parseFlowIPv6(packet)
	}
	return Flow{}, false
}

func parseFlowIPv4(packet []byte) (f Flow, ok bool) {
	h, payload, ok := ParseIPv4(packet)
	if !ok {
		return Flow{}, false
	}
	f.Protocol, f.Fragment = h.Protocol(), h.IsFragment()
	if f.Protocol == ProtocolICMP && !f.Fragment {
		if m, body, ok := ParseICMPv4(payload); ok && m.IsError() {
			if q, ok := ParseQuotedIPv4(body); ok {
				return q.flow(), true
			}
		}
	}
	f.setTransport(h.Source(), h.Destination(), payload)
	return f, true
}

func parseFlowIPv6(packet []byte) (f Flow, ok bool) {
	h, payload, ok := ParseIPv6(packet)
	if !ok {
		return Flow{}, false
	}
	c, ok := WalkIPv6(h, payload)
	if !ok {
		return Flow{}, false
	}
	f.Protocol, f.Fragment = c.Protocol, c.Fragment != nil
	if f.Fragment {
		// Later fragments may name an extension header where the first names
		// the upper layer; they must hash alike.
		f.Protocol = ProtocolFragment
	}
	payload = payload[c.Offset:]
	if f.Protocol == ProtocolICMPv6 {
		if m, body, ok := ParseICMPv6(payload); ok && m.IsError() {
			if q, ok := ParseQuotedIPv6(body); ok {
				return q.flow(), true
			}
		}
	}
	f.setTransport(h.Source(), h.Destination(), payload)
	return f, true
}

func (f *Flow) setTransport(src, dst netip.Addr, transport []byte) {
	var from, to uint16
	switch {
	case f.Fragment:
	case f.Protocol == ProtocolTCP || f.Protocol == ProtocolUDP:
		if len(transport) >= 4 {
			from, to = binary.BigEndian.Uint16(transport[0:2]), binary.BigEndian.Uint16(transport[2:4])
		}
	case isEcho(f.Protocol, transport):
		from = binary.BigEndian.Uint16(transport[4:6])
		to = from
	}
	f.Source, f.Destination = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}

// isEcho reports whether b is an echo request or reply of either family.
func isEcho(protocol uint8, b []byte) bool {
	if len(b) < ICMPLen {
		return false
	}
	return protocol == ProtocolICMP && (b[0] == ICMPv4EchoRequest || b[0] == ICMPv4EchoReply) ||
		protocol == ProtocolICMPv6 && (b[0] == ICMPv6EchoRequest || b[0] == ICMPv6EchoReply)
}

// flow is the quoted packet's flow.
func (q *Quoted) flow() Flow {
	f := Flow{Protocol: q.Protocol, Source: q.Source, Destination: q.Destination,
		Fragment: q.Fragment, Quoted: true}
	if isEcho(q.Protocol, q.Head[:q.HeadLen]) {
		id := binary.BigEndian.Uint16(q.Head[4:6])
		f.Source = netip.AddrPortFrom(q.Source.Addr(), id)
		f.Destination = netip.AddrPortFrom(q.Destination.Addr(), id)
	}
	return f
}

// Hash is [FlowHash] of f's own fields.
func (f *Flow) Hash() uint32 { return FlowHash(f.Source, f.Destination, f.Protocol) }

// FlowHash spreads flows over shards. It is the same in both directions, the
// same for an IPv4 address and its IPv4-mapped form, and stable from run to
// run. It is not keyed: who chooses its ports chooses its shard, and slows
// down nobody but itself; tables use a keyed hash.
func FlowHash(src, dst netip.AddrPort, protocol uint8) uint32 {
	// Adding the ends' hashes makes it symmetric and, unlike xor, does not
	// cancel when both ends are the same.
	h := endHash(src) + endHash(dst) + uint64(protocol)*0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return uint32(h >> 32)
}

// endHash mixes an address and port by two 64×64→128-bit multiplications with
// odd constants, whose halves are folded together.
func endHash(end netip.AddrPort) uint64 {
	a := end.Addr().As16()
	hi, lo := bits.Mul64(binary.BigEndian.Uint64(a[0:8])^0xa0761d6478bd642f,
		binary.BigEndian.Uint64(a[8:16])^0xe7037ed1a0b428db)
	h := hi ^ lo ^ uint64(end.Port())<<32 ^ uint64(end.Port())
	hi, lo = bits.Mul64(h^0x8ebc6af09c88c6e3, 0x589965cc75374cc3)
	return hi ^ lo
}
