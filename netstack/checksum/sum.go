package checksum

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum is a partial checksum. The low 16 bits are the folded sum of what has
// been added, and bit 16 says that the number of bytes so far is odd. The zero
// value is the sum of nothing.
type Sum uint32

const odd Sum = 1 << 16

// Add appends b to the summed bytes.
func (s Sum) Add(b []byte) Sum {
	part := sum(b)
	if s&odd != 0 {
		// b starts in the low half of a word. Swapping all bytes of the words
		// swaps the bytes of their sum (RFC 1071 §2(B)).
		part = bits.ReverseBytes16(part)
	}
	return s.plus(part) ^ Sum(len(b)&1)<<16
}

// AddUint16 appends the two bytes of v, high byte first.
func (s Sum) AddUint16(v uint16) Sum {
	if s&odd != 0 {
		v = bits.ReverseBytes16(v)
	}
	return s.plus(v)
}

// AddUint32 appends the four bytes of v, high byte first.
func (s Sum) AddUint32(v uint32) Sum {
	return s.AddUint16(uint16(v >> 16)).AddUint16(uint16(v))
}

// Join appends the bytes summed in t, as if they had been added one by one.
func (s Sum) Join(t Sum) Sum {
	part := uint16(t)
	if s&odd != 0 {
		part = bits.ReverseBytes16(part)
	}
	return s.plus(part) ^ t&odd
}

// plus adds a folded sum to the low 16 bits and leaves the parity alone.
func (s Sum) plus(v uint16) Sum {
	t := uint32(uint16(s)) + uint32(v)
	return s&odd | Sum(t&0xffff+t>>16)
}

// Fold is the sum in 16 bits, not complemented. Of a pseudo-header it is what
// goes into the checksum field of a frame whose link will do the rest.
func (s Sum) Fold() uint16 { return uint16(s) }

// Checksum is the complement of the sum: the field's content on the wire, for
// a sum taken with the field as zero. UDP turns 0 into 0xffff; that is left to
// the caller.
func (s Sum) Checksum() uint16 { return ^uint16(s) }

// Valid reports whether a sum that covered the checksum field too comes out as
// it does for undamaged data.
func (s Sum) Valid() bool { return uint16(s) == 0xffff }

// Of is the checksum of b alone, complemented: Sum(0).Add(b).Checksum().
func Of(b []byte) uint16 { return ^sum(b) }

// PseudoHeaderIPv4 is the sum of the IPv4 pseudo-header (RFC 9293 §3.1, RFC 768)
// with length the transport header's and payload's, in bytes. Both addresses
// must be IPv4 or IPv4-mapped.
func PseudoHeaderIPv4(src, dst netip.Addr, proto uint8, length uint32) Sum {
	s, d := src.As4(), dst.As4()
	wide := uint64(binary.BigEndian.Uint32(s[:])) + uint64(binary.BigEndian.Uint32(d[:])) +
		uint64(proto) + uint64(length)
	return Sum(fold(wide))
}

// PseudoHeaderIPv6 is the sum of the IPv6 pseudo-header (RFC 8200 §8.1) with
// length the upper-layer packet's, in bytes.
func PseudoHeaderIPv6(src, dst netip.Addr, proto uint8, length uint32) Sum {
	s, d := src.As16(), dst.As16()
	wide, c := bits.Add64(binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:]), 0)
	wide, c = bits.Add64(wide, binary.BigEndian.Uint64(d[:8]), c)
	wide, c = bits.Add64(wide, binary.BigEndian.Uint64(d[8:]), c)
	wide, c = bits.Add64(wide, uint64(proto)+uint64(length), c)
	return Sum(fold(addCarry(wide, c)))
}

// PseudoHeader is the pseudo-header sum of whichever family dst is.
func PseudoHeader(src, dst netip.Addr, proto uint8, length uint32) Sum {
	if dst.Is4() {
		return PseudoHeaderIPv4(src, dst, proto, length)
	}
	return PseudoHeaderIPv6(src, dst, proto, length)
}

// sum is the folded sum of b in big-endian words, a last odd byte being the
// high half of a word whose low half is zero.
func sum(b []byte) uint16 {
	// Words are added in the machine's own byte order, eight bytes at a time:
	// the sum is the same up to one swap at the end (RFC 1071 §2(B), (C)).
	ne := binary.NativeEndian
	var s, c uint64
	for len(b) >= 128 {
		p := b[:128:128]
		s, c = bits.Add64(s, ne.Uint64(p[0:]), 0)
		s, c = bits.Add64(s, ne.Uint64(p[8:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[16:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[24:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[32:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[40:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[48:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[56:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[64:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[72:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[80:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[88:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[96:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[104:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[112:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[120:]), c)
		s = addCarry(s, c)
		b = b[128:]
	}
	for len(b) >= 32 {
		p := b[:32:32]
		s, c = bits.Add64(s, ne.Uint64(p[0:]), 0)
		s, c = bits.Add64(s, ne.Uint64(p[8:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[16:]), c)
		s, c = bits.Add64(s, ne.Uint64(p[24:]), c)
		s = addCarry(s, c)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, ne.Uint64(b), 0)
		s = addCarry(s, c)
		b = b[8:]
	}
	// Up to seven bytes are left. Each piece starts at an even place, so it may
	// be added as a number of its own.
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(ne.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(ne.Uint16(b))
		b = b[2:]
	}
	if len(b) > 0 {
		tail += uint64(ne.Uint16([]byte{b[0], 0}))
	}
	s, c = bits.Add64(s, tail, 0)
	s = addCarry(s, c)
	var word [2]byte
	ne.PutUint16(word[:], fold(s))
	return binary.BigEndian.Uint16(word[:])
}

// addCarry brings the carry of a 64-bit sum around. It cannot carry again: a
// sum that carried is at most 2⁶⁴-2.
func addCarry(s, c uint64) uint64 { return s + c }

// fold brings 64 bits down to 16, end-around.
func fold(s uint64) uint16 {
	s = s&0xffffffff + s>>32
	s = s&0xffffffff + s>>32
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return uint16(s)
}
