package netstack

import (
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// inputTCP hands a segment to the engine.
func (s *Stack) inputTCP(p *packet) {
	h, payload, ok := header.ParseTCP(p.payload)
	if !ok {
		s.stats.Drops.Malformed++
		return
	}
	if !p.checksumKnown() && !h.ChecksumValid(p.src, p.dst, payload) {
		s.stats.Drops.TransportCheck++
		return
	}
	if p.loopback && !s.acceptLoopbackTCP(p, h) {
		s.stats.Drops.MartianSource++
		return
	}
	s.stats.TCPIn++
	s.segment = tcp.Packet{Now: s.now, Src: p.src, Dst: p.dst, TCP: p.payload, ECN: p.tos & 3}
	if (p.off.GSOType == frame.GSOTCPv4 || p.off.GSOType == frame.GSOTCPv6) &&
		len(payload) > int(p.off.GSOSize) {
		s.segment.SegmentSize = int(p.off.GSOSize)
	}
	s.tcp.Input(&s.segment)
}

// acceptLoopbackTCP lets a segment from 127.0.0.0/8 through if it belongs to a
// connection that we opened to there. Nothing is opened from there.
func (s *Stack) acceptLoopbackTCP(p *packet, h header.TCP) bool {
	if h.Flags()&(header.SYN|header.ACK) == header.SYN {
		return false
	}
	return s.loopback.has(loopbackFlow{
		local:  netip.AddrPortFrom(p.dst, h.DestinationPort()),
		remote: netip.AddrPortFrom(p.src, h.SourcePort()), protocol: header.ProtocolTCP,
	})
}

// AppendTCP implements tcp.Output. Ethernet and IP header come ready-made from
// the route's cache as long as the neighbour they were made for stays what it is.
func (s *Stack) AppendTCP(r *tcp.Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	c := &r.Cache
	v4 := r.Remote.Addr().Is4()
	gen := s.nd.Generation()
	if v4 {
		gen = s.arp.Generation()
	}
	if v4 && r.Remote.Addr().IsLoopback() {
		s.loopback.note(loopbackFlow{r.Local, r.Remote, header.ProtocolTCP})
	}
	if c.Len != 0 && c.Generation == gen {
		f := s.out.Append(int(c.Len) + tcpLen)
		s.stats.FramesOut++
		copy(f.Header, c.Header[:c.Len])
		return s.finishTCP(f, r, tcpLen, payloadLen)
	}
	return s.appendTCPUncached(r, tcpLen, payloadLen)
}

// appendTCPUncached resolves the next hop, and keeps the header it makes if
// that succeeds. If not, the segment waits as other packets do.
func (s *Stack) appendTCPUncached(r *tcp.Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	dst := r.Remote.Addr()
	to, hop, ok := s.resolve(dst)
	if !hop.IsValid() {
		return nil, nil
	}
	s.putTemplate(r, to)
	n := int(r.Cache.Len) + tcpLen
	if ok {
		// Asked for only now: resolving may have changed it.
		r.Cache.Generation = s.cache(hop).Generation()
		f := s.out.Append(n)
		s.stats.FramesOut++
		copy(f.Header, r.Cache.Header[:r.Cache.Len])
		return s.finishTCP(f, r, tcpLen, payloadLen)
	}
	held := s.hold(hop, n, n+payloadLen)
	if held == nil {
		r.Cache.Len = 0
		return nil, nil
	}
	copy(held.Header, r.Cache.Header[:r.Cache.Len])
	f, segment := s.finishTCP(&held.Frame, r, tcpLen, payloadLen)
	r.Cache.Len = 0
	return f, segment
}

// putTemplate writes the Ethernet and IP header of an empty segment into r's
// cache.
func (s *Stack) putTemplate(r *tcp.Route, to header.MAC) {
	c := &r.Cache
	src, dst := r.Local.Addr(), r.Remote.Addr()
	c.Len = uint8(header.EthernetLen + ipLen(dst))
	s.putEthernet(c.Header[:], to, dst)
	o := outgoing{src: src, dst: dst, protocol: header.ProtocolTCP, hopLimit: defaultTTL}
	if !dst.Is4() {
		o.label = s.flowLabel(r.Local, r.Remote, header.ProtocolTCP)
	}
	// DF and ID 0: TCP does its own cutting (RFC 1191, RFC 6864 §4.1).
	s.putIP(c.Header[:], &o, ipFields{dontFragment: true})
}

// finishTCP sets in a copied template what differs from segment to segment.
func (s *Stack) finishTCP(f *frame.Frame, r *tcp.Route, tcpLen, payloadLen int) (*frame.Frame, []byte) {
	n := int(r.Cache.Len)
	ip := f.Header[header.EthernetLen:n]
	if r.Remote.Addr().Is4() {
		h := header.IPv4(ip)
		h.SetTotalLen(len(ip) + tcpLen + payloadLen)
		if r.ECN != 0 {
			h.SetTOS(r.ECN & 3)
		}
	} else {
		header.IPv6(ip).SetPayloadLen(tcpLen + payloadLen)
		ip[1] |= r.ECN & 3 << 4 // the low bits of the traffic class
	}
	f.HeaderLen = uint16(len(f.Header))
	return f, f.Header[n:]
}
