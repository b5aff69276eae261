package netstack

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/header"
)

// canBindUDP reports whether an endpoint can have a for its address: any
// unicast one, the limited broadcast address, and the groups of the link (RFC
// 4291 §2.7).
func canBindUDP(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && (!a.IsMulticast() || a.Is6() && a.IsLinkLocalMulticast())
}

// isBoundGroup reports whether a packet is a datagram to the limited broadcast
// address, or to a group, that an endpoint is bound to. DHCP clients send such.
// Fragments are not: who has no address yet sends nothing that long.
func (s *Stack) isBoundGroup(p *packet) bool {
	if p.protocol != header.ProtocolUDP || p.whole || len(p.payload) < header.UDPLen || len(s.endpoints) == 0 {
		return false
	}
	port := binary.BigEndian.Uint16(p.payload[2:])
	return s.endpoints[netip.AddrPortFrom(p.dst, port)] != nil
}

// admitBroadcast lets datagrams to 255.255.255.255 in that an endpoint waits
// for: to it they are as good as sent to us alone. Their sender may have no address yet: 0.0.0.0 (RFC 1122 §3.2.1.3).
func (s *Stack) admitBroadcast(p *packet, h header.IPv4) bool {
	p.local = true
	switch {
	case h.HasSourceRoute():
		s.stats.Drops.SourceRoute++
	case !p.src.IsUnspecified() && (p.src.IsLoopback() || !s.sourceIPv4(p)):
		s.stats.Drops.MartianSource++
	case h.IsFragment() || !s.isBoundGroup(p):
		s.stats.Drops.Group++
	default:
		return true
	}
	return false
}

// SendUDPTo is [Stack.SendUDP] of one datagram to a station that is known,
// without asking who has dst: for hosts that have no address yet. The station
// may be the broadcast address, and dst then 255.255.255.255.
func (s *Stack) SendUDPTo(station header.MAC, src, dst netip.AddrPort, payload []byte) {
	ip := ipLen(dst.Addr())
	n := header.EthernetLen + ip + header.UDPLen
	switch {
	case !s.canSendUDP(src, dst) || !station.IsUnicast() && !station.IsBroadcast() || station == s.cfg.HardwareAddr:
		s.stats.Drops.NoRoute++
		return
	case n-header.EthernetLen+len(payload) > s.cfg.MTU:
		s.stats.Drops.TooBig++
		return
	}
	o := &s.outgoing
	*o = outgoing{src: src.Addr(), dst: dst.Addr(), protocol: header.ProtocolUDP, hopLimit: defaultTTL, payload: payload}
	h := header.UDP(o.head[:])
	header.PutUDP(h, header.UDPFields{SourcePort: src.Port(), DestinationPort: dst.Port(), PayloadLen: len(payload)})
	// Complete: DHCP clients read raw packets, and some of them drop what the
	// kernel would have let pass as not yet computed.
	h.SetChecksum(o.src, o.dst, payload)
	f := s.out.AppendCopy(n, payload)
	s.putEthernet(f.Header, station, o.dst)
	s.putIP(f.Header, o, ipFields{length: o.length(), dontFragment: true})
	copy(f.Header[header.EthernetLen+ip:], o.head[:])
	f.HeaderLen = uint16(n)
	o.payload = nil
	s.stats.UDPOut++
	s.stats.FramesOut++
}
