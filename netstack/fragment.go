package netstack

import (
	"sbxnet/netstack/header"
)

// sendFragmented sends a datagram that is longer than the MTU (RFC 791 §3.2,
// RFC 8200 §4.5). The checksum in its head is complete: no link can add to one
// that spans frames.
func (s *Stack) sendFragmented(o *outgoing) {
	f := fragmenter{outgoing: o, ip: ipLen(o.dst)}
	if o.dst.Is4() {
		f.id = uint32(s.rand.Uint32() >> 16) // unpredictable (RFC 7739 §5)
	} else {
		f.id = s.rand.Uint32()
		f.extension = header.IPv6FragmentLen
	}
	// All but the last fragment are a multiple of 8 bytes long.
	room := (s.cfg.MTU - f.ip - f.extension) &^ 7
	for at := 0; at < o.length(); at += room {
		s.sendFragment(&f, at, min(at+room, o.length()))
	}
}

// fragmenter is a datagram being cut.
type fragmenter struct {
	*outgoing
	ip        int // length of the IP header
	extension int // length of the IPv6 fragment header, 0 for IPv4
	id        uint32
}

// sendFragment sends bytes [at, end) of the datagram, counted from its
// transport header.
func (s *Stack) sendFragment(f *fragmenter, at, end int) {
	head := 0 // the first fragment has the transport header
	if at == 0 {
		head = len(f.head)
	}
	payload := f.payload[at+head-len(f.head) : end-len(f.head)]
	start := header.EthernetLen + f.ip
	n := start + f.extension + head
	out := s.append(f.dst, n, payload, f.stays)
	if out == nil {
		return
	}
	fields := ipFields{length: f.extension + end - at}
	more := end < f.length()
	if f.extension == 0 {
		fields.id, fields.offset, fields.more = uint16(f.id), at, more
	} else {
		fields.protocol = header.ProtocolFragment
		header.PutIPv6Fragment(out.Header[start:], header.IPv6FragmentFields{
			NextHeader: f.protocol, Offset: at, MoreFragments: more, ID: f.id})
	}
	s.putIP(out.Header, f.outgoing, fields)
	copy(out.Header[n-head:], f.head[:])
	out.HeaderLen = uint16(n)
	s.stats.FragmentsOut++
}
