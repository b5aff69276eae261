package header

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/checksum"
)

// UDPLen is the length of a UDP header, in bytes.
const UDPLen = 8

// UDPChecksumOffset is where the checksum field lies in a UDP header.
const UDPChecksumOffset = 6

// UDP is a view of a UDP header (RFC 768).
//
//	0             2                  4        6          8
//	| source port | destination port | length | checksum |
type UDP []byte

// UDPFields is what [PutUDP] writes.
type UDPFields struct {
	SourcePort, DestinationPort uint16
	PayloadLen                  int    // bytes after the header
	Checksum                    uint16 // as it goes into the field
}

// ParseUDP splits a datagram. It wants a length field that covers the header
// and does not exceed b; what b has beyond it is cut off. Length 0, a
// jumbogram (RFC 2675 §4), is refused. The checksum is not looked at.
func ParseUDP(b []byte) (h UDP, payload []byte, ok bool) {
	if len(b) < UDPLen {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[4:6]))
	if n < UDPLen || n > len(b) {
		return nil, nil, false
	}
	return UDP(b[:UDPLen:UDPLen]), b[UDPLen:n:n], true
}

// SourcePort is the sender's port.
func (h UDP) SourcePort() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// DestinationPort is the receiver's port.
func (h UDP) DestinationPort() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// Len is the declared length of header and payload.
func (h UDP) Len() int { return int(binary.BigEndian.Uint16(h[4:6])) }

// Checksum is the checksum field; 0 means none was computed.
func (h UDP) Checksum() uint16 { return binary.BigEndian.Uint16(h[6:8]) }

// Fields returns all fields.
func (h UDP) Fields() UDPFields {
	return UDPFields{SourcePort: h.SourcePort(), DestinationPort: h.DestinationPort(),
		PayloadLen: h.Len() - UDPLen, Checksum: h.Checksum()}
}

// ChecksumValid verifies the checksum over pseudo-header, header and payload.
// A field of 0 passes over IPv4, where it means that the sender computed none
// (RFC 768), and fails over IPv6 (RFC 8200 §8.1).
func (h UDP) ChecksumValid(src, dst netip.Addr, payload []byte) bool {
	if h.Checksum() == 0 {
		return dst.Is4()
	}
	return checksum.PseudoHeader(src, dst, ProtocolUDP, uint32(h.Len())).Add(h).Add(payload).Valid()
}

// SetChecksum computes the checksum over pseudo-header, header and payload. A
// result of 0 is written as 0xffff.
func (h UDP) SetChecksum(src, dst netip.Addr, payload []byte) {
	h[6], h[7] = 0, 0
	c := checksum.PseudoHeader(src, dst, ProtocolUDP, uint32(h.Len())).Add(h).Add(payload).Checksum()
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(h[6:8], c)
}

// SetPartialChecksum writes the folded pseudo-header sum, not complemented,
// for a link that adds the rest.
func (h UDP) SetPartialChecksum(src, dst netip.Addr) {
	c := checksum.PseudoHeader(src, dst, ProtocolUDP, uint32(h.Len())).Fold()
	binary.BigEndian.PutUint16(h[6:8], c)
}

// PutUDP writes a header to the front of b and returns UDPLen. It panics if
// the length does not fit its field.
func PutUDP(b []byte, f UDPFields) int {
	n := UDPLen + f.PayloadLen
	if n < UDPLen || n > 0xffff {
		panic("header: UDP payload too long")
	}
	b = b[:UDPLen]
	binary.BigEndian.PutUint16(b[0:2], f.SourcePort)
	binary.BigEndian.PutUint16(b[2:4], f.DestinationPort)
	binary.BigEndian.PutUint16(b[4:6], uint16(n))
	binary.BigEndian.PutUint16(b[6:8], f.Checksum)
	return UDPLen
}
