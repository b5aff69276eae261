package gso

import (
	"encoding/binary"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

// spec describes a frame to build; the zero value is an ACK without payload
// over IPv4.
type spec struct {
	v6, udp  bool
	id       uint16
	tos      byte
	frag     uint16 // flags and fragment offset
	seq      uint32
	flags    byte
	options  []byte
	window   uint16
	port     uint16
	payload  []byte
	pieces   int // where payload is parted in two
	extIPv6  bool
	ethernet byte
}

const df = 0x4000

// build makes a frame that needs a checksum, as the stack does.
func (s spec) build() frame.Frame {
	transport := make([]byte, 8)
	proto, field := byte(17), 6
	if !s.udp {
		proto, field = 6, 16
		transport = make([]byte, 20+len(s.options))
		binary.BigEndian.PutUint32(transport[4:], s.seq)
		binary.BigEndian.PutUint32(transport[8:], 0x01020304)
		transport[12] = byte(len(transport)/4) << 4
		transport[13] = s.flags
		binary.BigEndian.PutUint16(transport[14:], s.window)
		copy(transport[20:], s.options)
	} else {
		binary.BigEndian.PutUint16(transport[4:], uint16(8+len(s.payload)))
	}
	binary.BigEndian.PutUint16(transport, 80)
	binary.BigEndian.PutUint16(transport[2:], s.port)

	h := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 + s.ethernet, 0x08, 0x00}
	n := len(transport) + len(s.payload)
	if s.v6 {
		h[12], h[13] = 0x86, 0xdd
		ip := make([]byte, 40)
		ip[0], ip[1] = 0x60|s.tos>>4, s.tos<<4
		ip[6], ip[7], ip[8], ip[24], ip[39] = proto, 64, 0xfd, 0xfd, 7
		if s.extIPv6 {
			ip[6] = 60 // destination options
			ip = append(ip, proto, 0, 1, 4, 0, 0, 0, 0)
			n += 8
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(n))
		h = append(h, ip...)
	} else {
		ip := make([]byte, 20)
		ip[0], ip[1], ip[8], ip[9] = 0x45, s.tos, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
		binary.BigEndian.PutUint16(ip[4:], s.id)
		binary.BigEndian.PutUint16(ip[6:], s.frag)
		copy(ip[12:], []byte{10, 0, 2, 2, 10, 0, 2, 100})
		binary.BigEndian.PutUint16(ip[10:], checksum.Of(ip))
		h = append(h, ip...)
	}
	start := len(h)
	h = append(h, transport...)
	putPartial(h, start, field, len(transport)+len(s.payload))
	f := frame.Frame{Header: h}
	f.Payload[0] = s.payload[:s.pieces]
	f.Payload[1] = s.payload[s.pieces:]
	f.NeedsChecksum = true
	f.ChecksumStart, f.ChecksumOffset, f.HeaderLen = uint16(start), uint16(field), uint16(len(h))
	return f
}

// super makes a super-segment of what spec describes.
func (s spec) super(size uint16) frame.Frame {
	f := s.build()
	f.GSOSize = size
	switch {
	case s.udp:
		f.GSOType = frame.GSOUDP
	case s.v6:
		f.GSOType = frame.GSOTCPv6
	default:
		f.GSOType = frame.GSOTCPv4
	}
	return f
}

// wrongChecksum says which checksum of a complete frame in one piece does not
// add up, "" if none.
func wrongChecksum(b []byte, start int) string {
	ip := b[14:]
	proto, addresses := ip[9], ip[12:20]
	if ip[0]>>4 == 6 {
		proto, addresses = ip[6], ip[8:40]
		if proto == 60 {
			proto = ip[40]
		}
	} else if checksum.Of(ip[:int(ip[0]&15)*4]) != 0 {
		return "IPv4 header"
	}
	transport := b[start:]
	sum := checksum.Sum(0).Add(addresses).AddUint16(uint16(proto)).AddUint32(uint32(len(transport))).Add(transport)
	if !sum.Valid() {
		return "transport"
	}
	return ""
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// splitAll returns copies of all segments of f, checksums completed, and nil if
// f cannot be split.
func splitAll(f *frame.Frame) [][]byte {
	var s Splitter
	if !s.Start(f) {
		return nil
	}
	var all [][]byte
	for seg := s.Next(); seg != nil; seg = s.Next() {
		Finish(seg)
		all = append(all, seg.AppendTo(nil))
	}
	return all
}
