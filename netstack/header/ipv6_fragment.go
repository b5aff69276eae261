package header

import "encoding/binary"

// IPv6FragmentLen is the length of an IPv6 fragment header, in bytes.
const IPv6FragmentLen = 8

// IPv6Fragment is a view of an IPv6 fragment header (RFC 8200 §4.5).
//
//	0             1          2                      4                8
//	| next header | reserved | offset, reserved, M  | identification |
type IPv6Fragment []byte

// IPv6FragmentFields is what [PutIPv6Fragment] writes.
type IPv6FragmentFields struct {
	NextHeader    uint8
	Offset        int // bytes, a multiple of 8
	MoreFragments bool
	ID            uint32
}

// ParseIPv6Fragment splits off a fragment header.
func ParseIPv6Fragment(b []byte) (h IPv6Fragment, payload []byte, ok bool) {
	if len(b) < IPv6FragmentLen {
		return nil, nil, false
	}
	return IPv6Fragment(b[:IPv6FragmentLen:IPv6FragmentLen]), b[IPv6FragmentLen:], true
}

// NextHeader is the first header of the fragmentable part.
func (h IPv6Fragment) NextHeader() uint8 { return h[0] }

// Offset is where the payload belongs in the fragmentable part, in bytes.
func (h IPv6Fragment) Offset() int { return int(binary.BigEndian.Uint16(h[2:4]) &^ 7) }

// MoreFragments is the M flag.
func (h IPv6Fragment) MoreFragments() bool { return h[3]&1 != 0 }

// ID is the identification.
func (h IPv6Fragment) ID() uint32 { return binary.BigEndian.Uint32(h[4:8]) }

// IsAtomic reports whether the packet is whole in spite of its fragment
// header; such a one is never put together with others (RFC 6946).
func (h IPv6Fragment) IsAtomic() bool { return h.Offset() == 0 && !h.MoreFragments() }

// Fields returns all fields.
func (h IPv6Fragment) Fields() IPv6FragmentFields {
	return IPv6FragmentFields{NextHeader: h.NextHeader(), Offset: h.Offset(),
		MoreFragments: h.MoreFragments(), ID: h.ID()}
}

// PutIPv6Fragment writes a fragment header to the front of b and returns
// IPv6FragmentLen.
func PutIPv6Fragment(b []byte, f IPv6FragmentFields) int {
	b = b[:IPv6FragmentLen]
	b[0], b[1] = f.NextHeader, 0
	offset := uint16(f.Offset) &^ 7
	if f.MoreFragments {
		offset |= 1
	}
	binary.BigEndian.PutUint16(b[2:4], offset)
	binary.BigEndian.PutUint32(b[4:8], f.ID)
	return IPv6FragmentLen
}
