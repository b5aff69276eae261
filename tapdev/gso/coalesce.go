package gso

import (
	"bytes"
	"encoding/binary"

	"sbxnet/netstack/frame"
)

// MaxSegments is how many segments are joined at most. The kernel takes 128 UDP
// datagrams in one (UDP_MAX_SEGMENTS), older ones 64.
const MaxSegments = 64

// Kinds says what may be joined: what the receiver can cut again.
type Kinds struct {
	TCPv4, TCPv6, UDP bool
	// MaxFrame is the longest frame to make, in bytes with the Ethernet header;
	// 0 leaves it to IP, which has room for 65535 bytes behind that.
	MaxFrame int
}

// Coalescer joins segments of one flow that follow each other. The zero value
// is ready.
type Coalescer struct {
	header [frame.MaxHeader]byte
	// Joined is the super-segment of the last call that returned more than
	// one; its payload is the payload of the frames, in order, and is not set.
	Joined frame.Frame
}

// Join returns how many frames, from the first on, make one super-segment. It
// returns 1 where the first stands alone, and only for more does it set Joined.
func (c *Coalescer) Join(frames []frame.Frame, kinds Kinds) int {
	if len(frames) < 2 || frames[0].GSOType != frame.GSONone || !frames[0].NeedsChecksum {
		return min(1, len(frames))
	}
	kind := joinable(&frames[0])
	switch {
	case kind == frame.GSOTCPv4 && kinds.TCPv4:
	case kind == frame.GSOTCPv6 && kinds.TCPv6:
	case kind == frame.GSOUDP && kinds.UDP:
	default:
		return 1
	}
	n, total := run(frames, kind, kinds.MaxFrame)
	if n > 1 {
		c.build(frames[:n], kind, total)
	}
	return n
}

// run counts the frames that belong together and their payload, in bytes.
func run(frames []frame.Frame, kind frame.GSOType, maxFrame int) (n, total int) {
	first := &frames[0]
	size := payloadLen(first)
	total = size
	// The joined datagram's length must fit the 16 bits of IPv4's total length,
	// IPv6's payload length (less than this) and UDP's.
	room := 0xffff - (len(first.Header) - ethernetLen)
	if maxFrame > 0 {
		room = min(room, maxFrame-len(first.Header))
	}
	for n = 1; n < min(len(frames), MaxSegments); n++ {
		last, next := &frames[n-1], &frames[n]
		if payloadLen(last) < size || pushed(last, kind) || next.GSOType != frame.GSONone || !next.NeedsChecksum {
			break
		}
		if m := payloadLen(next); m > size || total+m > room || joinable(next) != kind {
			break
		}
		if !sameFlow(first, next, kind, n, total) {
			break
		}
		total += payloadLen(next)
	}
	return n, total
}

func payloadLen(f *frame.Frame) int { return len(f.Payload[0]) + len(f.Payload[1]) }

func pushed(f *frame.Frame, kind frame.GSOType) bool {
	return kind != frame.GSOUDP && f.Header[int(f.ChecksumStart)+13]&flagPSH != 0
}

// joinable says what kind of super-segment f could be part of, GSONone if of
// none: it has plain headers, all of them in f.Header, whose lengths are right,
// and payload.
func joinable(f *frame.Frame) frame.GSOType {
	h := f.Header
	if len(h) < ethernetLen+ipv4Len+udpLen || len(h) != int(f.HeaderLen) || len(h) > frame.MaxHeader || payloadLen(f) == 0 {
		return frame.GSONone
	}
	ip := h[ethernetLen:]
	datagram := f.Len() - ethernetLen
	kind, proto, start := frame.GSOTCPv4, byte(0), 0
	switch binary.BigEndian.Uint16(h[12:]) {
	case etherIPv4:
		fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff
		if ip[0] != 0x45 || fragment != 0 || int(binary.BigEndian.Uint16(ip[2:])) != datagram {
			return frame.GSONone
		}
		proto, start = ip[9], ethernetLen+ipv4Len
	case etherIPv6:
		if len(ip) < ipv6Len+udpLen || ip[0]>>4 != 6 || int(binary.BigEndian.Uint16(ip[4:])) != datagram-ipv6Len {
			return frame.GSONone
		}
		kind, proto, start = frame.GSOTCPv6, ip[6], ethernetLen+ipv6Len
	default:
		return frame.GSONone
	}
	if int(f.ChecksumStart) != start {
		return frame.GSONone
	}
	transport := h[start:]
	switch proto {
	case protoTCP:
		if f.ChecksumOffset != 16 || len(transport) < tcpLen || len(transport) != int(transport[12]>>4)*4 ||
			transport[13]&^flagPSH != flagACK {
			return frame.GSONone
		}
		return kind
	case protoUDP:
		if f.ChecksumOffset != 6 || len(transport) != udpLen ||
			int(binary.BigEndian.Uint16(transport[4:])) != udpLen+payloadLen(f) {
			return frame.GSONone
		}
		return frame.GSOUDP
	}
	return frame.GSONone
}

const flagACK = 0x10

// sameFlow reports whether b can follow n frames with total bytes of payload
// that begin with a. Every header field must be equal but those that a splitter
// makes anew; that includes the ECN codepoint and the whole TCP window.
func sameFlow(a, b *frame.Frame, kind frame.GSOType, n, total int) bool {
	x, y := a.Header, b.Header
	if len(x) != len(y) || a.ChecksumStart != b.ChecksumStart || !bytes.Equal(x[:ethernetLen+2], y[:ethernetLen+2]) {
		return false
	}
	ip := ethernetLen
	if binary.BigEndian.Uint16(x[12:]) == etherIPv4 {
		dontFragment := x[ip+6]&0x40 != 0
		following := binary.BigEndian.Uint16(y[ip+4:]) == binary.BigEndian.Uint16(x[ip+4:])+uint16(n)
		if !dontFragment && !following {
			return false
		}
		if !bytes.Equal(x[ip+6:ip+10], y[ip+6:ip+10]) || !bytes.Equal(x[ip+12:ip+20], y[ip+12:ip+20]) {
			return false
		}
	} else if !bytes.Equal(x[ip+2:ip+4], y[ip+2:ip+4]) || !bytes.Equal(x[ip+6:ip+40], y[ip+6:ip+40]) {
		return false
	}
	s, t := x[a.ChecksumStart:], y[b.ChecksumStart:]
	if !bytes.Equal(s[:4], t[:4]) {
		return false
	}
	if kind == frame.GSOUDP {
		return true
	}
	return binary.BigEndian.Uint32(t[4:]) == binary.BigEndian.Uint32(s[4:])+uint32(total) &&
		bytes.Equal(s[8:13], t[8:13]) && bytes.Equal(s[14:16], t[14:16]) && bytes.Equal(s[18:], t[18:])
}

// build makes the super-segment's header.
func (c *Coalescer) build(frames []frame.Frame, kind frame.GSOType, total int) {
	first, last := &frames[0], &frames[len(frames)-1]
	h := c.header[:copy(c.header[:], first.Header)]
	start := int(first.ChecksumStart)
	if binary.BigEndian.Uint16(h[12:]) == etherIPv4 {
		putIPv4Length(h, start, len(h)-ethernetLen+total)
	} else {
		binary.BigEndian.PutUint16(h[ethernetLen+4:], uint16(len(h)-ethernetLen-ipv6Len+total))
	}
	if kind == frame.GSOUDP {
		binary.BigEndian.PutUint16(h[start+4:], uint16(udpLen+total))
	} else {
		h[start+13] |= last.Header[start+13] & flagPSH
	}
	putPartial(h, start, int(first.ChecksumOffset), len(h)-start+total)
	c.Joined = frame.Frame{Header: h, Offload: first.Offload}
	c.Joined.GSOType = kind
	c.Joined.GSOSize = uint16(payloadLen(first))
}
