package header

import (
	"encoding/binary"
	"net/netip"
)

// IPv6Len is the length of the fixed IPv6 header, in bytes.
const IPv6Len = 40

// IPv6 is a view of the fixed IPv6 header (RFC 8200 §3).
//
//	 0                   1                   2                   3
//	|version| traffic class |              flow label               |
//	|        payload length         |  next header  |   hop limit   |
//	|                   source address, 16 bytes                    |
//	|                 destination address, 16 bytes                 |
type IPv6 []byte

// IPv6Fields is what [PutIPv6] writes.
type IPv6Fields struct {
	DSCP        uint8  // 0…63
	ECN         uint8  // NotECT, ECT0, ECT1, CE
	FlowLabel   uint32 // 20 bits
	NextHeader  uint8
	HopLimit    uint8
	Source      netip.Addr
	Destination netip.Addr
	PayloadLen  int // bytes after the fixed header, extension headers included
}

// ParseIPv6 splits a packet. It wants version 6 and a payload length that does
// not exceed b; what b has beyond it is cut off. The payload begins with
// extension headers if there are any: see [WalkIPv6].
func ParseIPv6(b []byte) (h IPv6, payload []byte, ok bool) {
	if len(b) < IPv6Len || b[0]>>4 != 6 {
		return nil, nil, false
	}
	end := IPv6Len + int(binary.BigEndian.Uint16(b[4:6]))
	if end > len(b) {
		return nil, nil, false
	}
	return IPv6(b[:IPv6Len:IPv6Len]), b[IPv6Len:end:end], true
}

// TrafficClass is DSCP and ECN in one byte.
func (h IPv6) TrafficClass() uint8 { return h[0]<<4 | h[1]>>4 }

// DSCP is the differentiated services codepoint (RFC 2474).
func (h IPv6) DSCP() uint8 { return h.TrafficClass() >> 2 }

// ECN is the congestion notification codepoint (RFC 3168).
func (h IPv6) ECN() uint8 { return h.TrafficClass() & 3 }

// FlowLabel is the 20-bit flow label (RFC 6437).
func (h IPv6) FlowLabel() uint32 { return binary.BigEndian.Uint32(h[0:4]) & 0xfffff }

// PayloadLen is the declared length of what follows the fixed header.
func (h IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(h[4:6])) }

// NextHeader is the protocol of what follows the fixed header.
func (h IPv6) NextHeader() uint8 { return h[6] }

// HopLimit is the hop limit.
func (h IPv6) HopLimit() uint8 { return h[7] }

// Source is the sender's address.
func (h IPv6) Source() netip.Addr { return netip.AddrFrom16([16]byte(h[8:24])) }

// Destination is the receiver's address.
func (h IPv6) Destination() netip.Addr { return netip.AddrFrom16([16]byte(h[24:40])) }

// Fields returns all fields.
func (h IPv6) Fields() IPv6Fields {
	return IPv6Fields{
		DSCP: h.DSCP(), ECN: h.ECN(), FlowLabel: h.FlowLabel(),
		NextHeader: h.NextHeader(), HopLimit: h.HopLimit(),
		Source: h.Source(), Destination: h.Destination(), PayloadLen: h.PayloadLen(),
	}
}

// SetPayloadLen changes the payload length, in bytes.
func (h IPv6) SetPayloadLen(n int) { binary.BigEndian.PutUint16(h[4:6], uint16(n)) }

// SetNextHeader changes the next header field.
func (h IPv6) SetNextHeader(protocol uint8) { h[6] = protocol }

// SetHopLimit changes the hop limit.
func (h IPv6) SetHopLimit(n uint8) { h[7] = n }

// PutIPv6 writes a fixed header to the front of b and returns IPv6Len. It
// panics if the payload length does not fit its field.
func PutIPv6(b []byte, f IPv6Fields) int {
	if uint(f.PayloadLen) > 0xffff {
		panic("header: IPv6 payload too long")
	}
	b = b[:IPv6Len]
	class := uint32(f.DSCP<<2 | f.ECN&3)
	binary.BigEndian.PutUint32(b[0:4], 6<<28|class<<20|f.FlowLabel&0xfffff)
	binary.BigEndian.PutUint16(b[4:6], uint16(f.PayloadLen))
	b[6] = f.NextHeader
	b[7] = f.HopLimit
	*(*[16]byte)(b[8:24]) = f.Source.As16()
	*(*[16]byte)(b[24:40]) = f.Destination.As16()
	return IPv6Len
}
