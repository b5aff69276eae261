package netstack

import (
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// packet is an IP packet on its way in. All slices point into the frame, or
// into the reassembler.
type packet struct {
	mac      header.MAC // the Ethernet source
	group    bool       // the Ethernet destination is broadcast or multicast
	local    bool       // dst is one of the stack's addresses
	loopback bool       // src is 127.0.0.0/8: only flows that we opened may have it
	whole    bool       // was put together from fragments

	src, dst netip.Addr
	ttl      uint8 // IPv6: hop limit
	tos      uint8 // IPv6: traffic class
	protocol uint8
	header   []byte // IP header, IPv6 with the extension headers before payload
	payload  []byte
	off      frame.Offload // zero if whole: what the link said was about fragments
}

// checksumKnown reports whether the link vouches for the transport checksum: it
// verified it, or the sandbox's kernel left it to us.
func (p *packet) checksumKnown() bool {
	return p.off.NeedsChecksum || p.off.ChecksumValid
}

// inputEthernet is the first step: which station the frame is for, and which
// protocol.
func (s *Stack) inputEthernet(data []byte, off frame.Offload) {
	h, payload, ok := header.ParseEthernet(data)
	if !ok {
		s.stats.Drops.Malformed++
		return
	}
	dst, src := h.Destination(), h.Source()
	if dst != s.cfg.HardwareAddr && !dst.IsMulticast() {
		s.stats.Drops.NotForUs++
		return
	}
	if !src.IsUnicast() || src == s.cfg.HardwareAddr {
		s.stats.Drops.EthernetSource++
		return
	}
	switch h.Type() {
	case header.EtherTypeIPv4:
		s.stats.IPv4In++
		s.in = packet{mac: src, group: dst.IsMulticast(), off: off}
		s.inputIPv4(&s.in, payload)
	case header.EtherTypeIPv6:
		s.stats.IPv6In++
		s.in = packet{mac: src, group: dst.IsMulticast(), off: off}
		s.inputIPv6(&s.in, payload)
	case header.EtherTypeARP:
		s.stats.ARPIn++
		s.inputARP(payload)
	default:
		s.stats.Drops.EtherType++
	}
}
