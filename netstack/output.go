package netstack

import (
	"bytes"
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
)

// defaultTTL is what the stack sends with (RFC 1340).
const defaultTTL = 64

// outgoing is an IP datagram to send: 8 bytes of transport header, which both
// UDP and ICMP have, and a payload. TCP has its own way, see [Stack.AppendTCP].
type outgoing struct {
	src, dst netip.Addr
	protocol uint8
	hopLimit uint8
	label    uint32 // IPv6 flow label
	head     [8]byte
	payload  []byte
	stays    bool // payload stays untouched until Reclaim, so it is not copied
	off      frame.Offload
}

// length is that of transport header and payload.
func (o *outgoing) length() int { return len(o.head) + len(o.payload) }

// ipLen is the length of an IP header without options for a's family.
func ipLen(a netip.Addr) int {
	if a.Is4() {
		return header.IPv4MinLen
	}
	return header.IPv6Len
}

// send sends a datagram in one frame, which its sender has made sure is small
// enough or has the link segment it.
func (s *Stack) send(o *outgoing) {
	ip := ipLen(o.dst)
	n := header.EthernetLen + ip + len(o.head)
	f := s.append(o.dst, n, o.payload, o.stays)
	if f == nil {
		return
	}
	s.putIP(f.Header, o, ipFields{length: o.length(), dontFragment: true})
	copy(f.Header[header.EthernetLen+ip:], o.head[:])
	f.Offload = o.off
	f.HeaderLen = uint16(n)
}

// ipFields is what differs between the fragments of a datagram.
type ipFields struct {
	length       int // after the IP header
	dontFragment bool
	id           uint16
	offset       int
	more         bool
	protocol     uint8 // 0: the datagram's own
}

// putIP writes the IP header behind the Ethernet header of b.
func (s *Stack) putIP(b []byte, o *outgoing, f ipFields) {
	b = b[header.EthernetLen:]
	if f.protocol == 0 {
		f.protocol = o.protocol
	}
	if o.dst.Is4() {
		header.PutIPv4(b, header.IPv4Fields{
			Source: o.src, Destination: o.dst, Protocol: f.protocol, TTL: o.hopLimit, PayloadLen: f.length,
			DontFragment: f.dontFragment, ID: f.id, FragmentOffset: f.offset, MoreFragments: f.more,
		})
		return
	}
	header.PutIPv6(b, header.IPv6Fields{
		Source: o.src, Destination: o.dst, NextHeader: f.protocol, HopLimit: o.hopLimit, PayloadLen: f.length,
		FlowLabel: o.label,
	})
}

// append returns a frame with n bytes of header, its Ethernet header filled in,
// for a packet to dst. If the next hop is not resolved yet, the frame is one
// that waits for it. It returns nil if the packet cannot go.
func (s *Stack) append(dst netip.Addr, n int, payload []byte, stays bool) *frame.Frame {
	to, hop, ok := s.resolve(dst)
	var f *frame.Frame
	switch {
	case !ok && !hop.IsValid():
		return nil
	case !ok:
		held := s.hold(hop, n, n+len(payload))
		if held == nil {
			return nil
		}
		f = &held.Frame
		if !stays {
			payload = bytes.Clone(payload)
		}
		f.Payload[0] = payload
	case stays:
		f = s.out.Append(n)
		f.Payload[0] = payload
		s.stats.FramesOut++
	default:
		f = s.out.AppendCopy(n, payload)
		s.stats.FramesOut++
	}
	s.putEthernet(f.Header, to, dst)
	return f
}

// resolve finds the Ethernet address that a packet to dst goes to. If ok is
// false and hop is valid, hop is being asked for.
func (s *Stack) resolve(dst netip.Addr) (to header.MAC, hop netip.Addr, ok bool) {
	if dst.IsMulticast() {
		return header.MulticastMAC(dst), dst, true
	}
	hop = s.nextHop(dst)
	if !hop.IsValid() {
		s.stats.Drops.NoRoute++
		return to, hop, false
	}
	to, ok = s.cache(hop).Lookup(s.now, hop)
	return to, hop, ok
}

// hold returns a frame that goes out when hop resolves.
func (s *Stack) hold(hop netip.Addr, n, size int) *neighbor.Held {
	f := s.cache(hop).Hold(hop, n, size)
	if f == nil {
		s.stats.Drops.Unresolved++
	}
	return f
}

// putEthernet writes the Ethernet header of a packet to dst.
func (s *Stack) putEthernet(b []byte, to header.MAC, dst netip.Addr) {
	t := header.EtherTypeIPv6
	if dst.Is4() {
		t = header.EtherTypeIPv4
	}
	header.PutEthernet(b, header.EthernetFields{Destination: to, Source: s.cfg.HardwareAddr, Type: t})
}

// release sends a frame that waited for its next hop.
func (s *Stack) release(h *neighbor.Held) {
	payload := h.Payload[0]
	if len(h.Payload[1]) > 0 {
		payload = append(bytes.Clone(payload), h.Payload[1]...)
	}
	f := s.out.AppendCopy(len(h.Header), payload)
	copy(f.Header, h.Header)
	f.Offload = h.Offload
	s.stats.FramesOut++
}
