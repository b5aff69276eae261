package header

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/checksum"
)

// Lengths of an IPv4 header in bytes: without options, and with as many as fit.
const (
	IPv4MinLen = 20
	IPv4MaxLen = 60
)

const (
	ipv4DontFragment  = 0x4000
	ipv4MoreFragments = 0x2000
	ipv4OffsetMask    = 0x1fff
)

// IPv4 is a view of an IPv4 header, options included (RFC 791 §3.1).
//
//	 0                   1                   2                   3
//	|version| IHL   | DSCP      |ECN|          total length         |
//	|        identification         |0|DF|MF|    fragment offset    |
//	|      TTL      |    protocol   |        header checksum        |
//	|                         source address                        |
//	|                      destination address                      |
//	|                    options, 0 to 40 bytes                     |
type IPv4 []byte

// IPv4Fields is what [PutIPv4] writes.
type IPv4Fields struct {
	DSCP           uint8 // 0…63
	ECN            uint8 // NotECT, ECT0, ECT1, CE
	ID             uint16
	DontFragment   bool
	MoreFragments  bool
	FragmentOffset int // bytes, a multiple of 8
	TTL            uint8
	Protocol       uint8
	Source         netip.Addr // IPv4
	Destination    netip.Addr // IPv4
	Options        []byte     // at most 40 bytes, padded with zeros to a multiple of 4
	PayloadLen     int        // bytes after the header
}

// ParseIPv4 splits a packet. It wants version 4, a header of at least 20 bytes
// that is there in full, and a total length that covers the header and does
// not exceed b. What b has beyond it, such as Ethernet's padding, is cut off.
// The checksum is not looked at: see [IPv4.ChecksumValid].
func ParseIPv4(b []byte) (h IPv4, payload []byte, ok bool) {
	if len(b) < IPv4MinLen || b[0]>>4 != 4 {
		return nil, nil, false
	}
	n := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:4]))
	if n < IPv4MinLen || total < n || len(b) < total {
		return nil, nil, false
	}
	return IPv4(b[:n:n]), b[n:total:total], true
}

// TOS is the whole traffic class byte, DSCP and ECN.
func (h IPv4) TOS() uint8 { return h[1] }

// DSCP is the differentiated services codepoint (RFC 2474).
func (h IPv4) DSCP() uint8 { return h[1] >> 2 }

// ECN is the congestion notification codepoint (RFC 3168).
func (h IPv4) ECN() uint8 { return h[1] & 3 }

// TotalLen is the declared length of header and payload.
func (h IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(h[2:4])) }

// ID is the identification field.
func (h IPv4) ID() uint16 { return binary.BigEndian.Uint16(h[4:6]) }

// DontFragment is the DF flag.
func (h IPv4) DontFragment() bool { return h.fragmentWord()&ipv4DontFragment != 0 }

// MoreFragments is the MF flag.
func (h IPv4) MoreFragments() bool { return h.fragmentWord()&ipv4MoreFragments != 0 }

// FragmentOffset is where the payload belongs in the datagram, in bytes.
func (h IPv4) FragmentOffset() int { return int(h.fragmentWord()&ipv4OffsetMask) * 8 }

// IsFragment reports whether the packet is less than a whole datagram.
func (h IPv4) IsFragment() bool {
	return h.fragmentWord()&(ipv4MoreFragments|ipv4OffsetMask) != 0
}

func (h IPv4) fragmentWord() uint16 { return binary.BigEndian.Uint16(h[6:8]) }

// TTL is the time to live.
func (h IPv4) TTL() uint8 { return h[8] }

// Protocol says what the payload is.
func (h IPv4) Protocol() uint8 { return h[9] }

// Checksum is the header checksum field.
func (h IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(h[10:12]) }

// Source is the sender's address.
func (h IPv4) Source() netip.Addr { return netip.AddrFrom4([4]byte(h[12:16])) }

// Destination is the receiver's address.
func (h IPv4) Destination() netip.Addr { return netip.AddrFrom4([4]byte(h[16:20])) }

// ChecksumValid verifies the header checksum.
func (h IPv4) ChecksumValid() bool { return checksum.Sum(0).Add(h).Valid() }

// Fields returns all fields; Options points into h.
func (h IPv4) Fields() IPv4Fields {
	return IPv4Fields{
		DSCP: h.DSCP(), ECN: h.ECN(), ID: h.ID(),
		DontFragment: h.DontFragment(), MoreFragments: h.MoreFragments(), FragmentOffset: h.FragmentOffset(),
		TTL: h.TTL(), Protocol: h.Protocol(), Source: h.Source(), Destination: h.Destination(),
		Options: h[IPv4MinLen:], PayloadLen: h.TotalLen() - len(h),
	}
}

// SetTotalLen changes the total length, in bytes, and mends the checksum.
func (h IPv4) SetTotalLen(n int) { h.setWord(2, uint16(n)) }

// SetID changes the identification and mends the checksum.
func (h IPv4) SetID(id uint16) { h.setWord(4, id) }

// SetTOS changes the traffic class byte and mends the checksum.
func (h IPv4) SetTOS(tos uint8) { h.setWord(0, uint16(h[0])<<8|uint16(tos)) }

// SetTTL changes the time to live and mends the checksum.
func (h IPv4) SetTTL(ttl uint8) { h.setWord(8, uint16(ttl)<<8|uint16(h[9])) }

func (h IPv4) setWord(at int, v uint16) {
	old := binary.BigEndian.Uint16(h[at:])
	binary.BigEndian.PutUint16(h[at:], v)
	binary.BigEndian.PutUint16(h[10:12], checksum.Update16(h.Checksum(), old, v))
}

// SetChecksum computes the header checksum afresh.
func (h IPv4) SetChecksum() {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:12], checksum.Of(h))
}

// HeaderLen is the length of the header that [PutIPv4] would write for f.
func (f *IPv4Fields) HeaderLen() int { return IPv4MinLen + (len(f.Options)+3)&^3 }

// PutIPv4 writes a header with its checksum to the front of b and returns its
// length. It panics if options or total length do not fit their fields.
func PutIPv4(b []byte, f IPv4Fields) int {
	n := f.HeaderLen()
	total := n + f.PayloadLen
	if n > IPv4MaxLen || total > 0xffff || total < n {
		panic("header: IPv4 options or payload too long")
	}
	b = b[:n]
	b[0] = 4<<4 | uint8(n/4)
	b[1] = f.DSCP<<2 | f.ECN&3
	binary.BigEndian.PutUint16(b[2:4], uint16(total))
	binary.BigEndian.PutUint16(b[4:6], f.ID)
	fragment := uint16(f.FragmentOffset/8) & ipv4OffsetMask
	if f.DontFragment {
		fragment |= ipv4DontFragment
	}
	if f.MoreFragments {
		fragment |= ipv4MoreFragments
	}
	binary.BigEndian.PutUint16(b[6:8], fragment)
	b[8] = f.TTL
	b[9] = f.Protocol
	*(*[4]byte)(b[12:16]) = f.Source.As4()
	*(*[4]byte)(b[16:20]) = f.Destination.As4()
	clear(b[IPv4MinLen+copy(b[IPv4MinLen:], f.Options):])
	IPv4(b).SetChecksum()
	return n
}
