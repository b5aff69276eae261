package gso

import (
	"encoding/binary"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

const (
	ethernetLen = 14
	ipv4Len     = 20
	ipv6Len     = 40
	tcpLen      = 20
	udpLen      = 8

	protoTCP = 6
	protoUDP = 17

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	flagFIN = 0x01
	flagPSH = 0x08
	flagCWR = 0x80
)

// Splitter cuts one super-segment at a time. The zero value is ready.
type Splitter struct {
	header  [frame.MaxHeader]byte // of the segment that Next returned
	segment frame.Frame

	template []byte // the super-segment's headers
	payload  [2][]byte
	offload  frame.Offload
	total    int // bytes of payload
	done     int // bytes of it handed out
	index    int // segments handed out
}

// Start begins to cut f and reports whether it is a well-formed super-segment.
// All its headers must lie in f.Header, with nothing behind them. f's memory
// must stay untouched until the last Next.
func (s *Splitter) Start(f *frame.Frame) bool {
	s.total = 0
	s.done = 0
	if !splittable(f) {
		return false
	}
	s.template, s.payload, s.offload = f.Header, f.Payload, f.Offload
	s.total = len(f.Payload[0]) + len(f.Payload[1])
	s.index = 0
	return true
}

// splittable checks everything that Next relies on.
func splittable(f *frame.Frame) bool {
	h := f.Header
	start := int(f.ChecksumStart)
	if f.GSOSize == 0 || len(h) != int(f.HeaderLen) || len(h) > frame.MaxHeader || f.Len() > ethernetLen+ipv6Len+0xffff {
		return false
	}
	if len(h) < ethernetLen+ipv4Len+udpLen || start < ethernetLen+ipv4Len {
		return false
	}
	switch binary.BigEndian.Uint16(h[12:]) {
	case etherIPv4:
		if f.GSOType == frame.GSOTCPv6 || start != ethernetLen+int(h[ethernetLen]&15)*4 {
			return false
		}
	case etherIPv6:
		if f.GSOType == frame.GSOTCPv4 || start < ethernetLen+ipv6Len {
			return false
		}
	default:
		return false
	}
	switch f.GSOType {
	case frame.GSOTCPv4, frame.GSOTCPv6:
		return len(h) >= start+tcpLen && len(h) == start+int(h[start+12]>>4)*4 && f.ChecksumOffset == 16
	case frame.GSOUDP:
		return len(h) == start+udpLen && f.ChecksumOffset == 6
	}
	return false
}

// Next returns the next segment, or nil after the last. It needs a checksum;
// its pseudo-header sum is in place. The segment and its header belong to the
// Splitter and may be written to; both are good until the next call.
func (s *Splitter) Next() *frame.Frame {
	if s.done >= s.total {
		return nil
	}
	n := min(int(s.offload.GSOSize), s.total-s.done)
	h := s.header[:copy(s.header[:], s.template)]
	first, last := s.index == 0, s.done+n == s.total
	s.networkHeader(h, n)
	start := int(s.offload.ChecksumStart)
	if s.offload.GSOType == frame.GSOUDP {
		binary.BigEndian.PutUint16(h[start+4:], uint16(udpLen+n))
	} else {
		tcp := h[start:]
		binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(s.done))
		if !last {
			tcp[13] &^= flagFIN | flagPSH
		}
		if !first {
			tcp[13] &^= flagCWR // RFC 3168 §6.1.2: CWR is said once
		}
	}
	putPartial(h, start, int(s.offload.ChecksumOffset), len(h)-start+n)

	s.segment = frame.Frame{Header: h, Payload: cut(s.payload, s.done, n)}
	s.segment.Offload = s.offload
	s.segment.NeedsChecksum = true
	s.segment.GSOType = frame.GSONone
	s.segment.GSOSize = 0
	s.segment.ECN = false
	s.done += n
	s.index++
	return &s.segment
}

// networkHeader sets the lengths, the identification and the header checksum
// for a segment of n bytes of payload.
func (s *Splitter) networkHeader(h []byte, n int) {
	ip := h[ethernetLen:]
	if s.offload.ChecksumStart >= ethernetLen+ipv4Len && binary.BigEndian.Uint16(h[12:]) == etherIPv4 {
		id := binary.BigEndian.Uint16(ip[4:])
		binary.BigEndian.PutUint16(ip[4:], id+uint16(s.index))
		putIPv4Length(h, int(s.offload.ChecksumStart), len(ip)+n)
		return
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ipv6Len+n))
}

// putIPv4Length sets the total length of the IPv4 header that ends at end, and
// its checksum.
func putIPv4Length(h []byte, end, length int) {
	ip := h[ethernetLen:end]
	binary.BigEndian.PutUint16(ip[2:], uint16(length))
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], checksum.Of(ip))
}

// putPartial writes the folded pseudo-header sum for length bytes of transport
// header and payload into the checksum field.
func putPartial(h []byte, start, field, length int) {
	proto := byte(protoTCP)
	if field == 6 {
		proto = protoUDP
	}
	addresses := h[ethernetLen+12 : ethernetLen+20]
	if binary.BigEndian.Uint16(h[12:]) == etherIPv6 {
		addresses = h[ethernetLen+8 : ethernetLen+40]
	}
	sum := checksum.Sum(0).Add(addresses).AddUint16(uint16(proto)).AddUint32(uint32(length))
	binary.BigEndian.PutUint16(h[start+field:], sum.Fold())
}

// cut returns the n bytes at off of the two pieces, as at most two pieces.
func cut(p [2][]byte, off, n int) [2][]byte {
	if off >= len(p[0]) {
		off -= len(p[0])
		return [2][]byte{p[1][off : off+n]}
	}
	if off+n <= len(p[0]) {
		return [2][]byte{p[0][off : off+n]}
	}
	return [2][]byte{p[0][off:], p[1][:off+n-len(p[0])]}
}
