package header

import (
	"encoding/binary"
	"net/netip"
)

// EthernetLen is the length of an Ethernet II header without VLAN tag, in bytes.
const EthernetLen = 14

// EtherType says what an Ethernet frame carries (IEEE 802 Numbers, IANA).
type EtherType uint16

// The EtherTypes the stack knows.
const (
	EtherTypeIPv4 EtherType = 0x0800
	EtherTypeARP  EtherType = 0x0806
	EtherTypeIPv6 EtherType = 0x86dd
)

// MAC is a 48-bit Ethernet address, in wire order.
type MAC [6]byte

// Broadcast is the address of every station on the link.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// IsBroadcast reports whether m is the all-ones address.
func (m MAC) IsBroadcast() bool { return m == Broadcast }

// IsMulticast reports whether m addresses a group; broadcast is one.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// IsZero reports whether m is all zeros, which no station has.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports whether m can be a station's own address.
func (m MAC) IsUnicast() bool { return !m.IsMulticast() && !m.IsZero() }

// String is m in colon notation, lower case.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i, x := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[x>>4], digits[x&15])
	}
	return string(b)
}

// MulticastMAC is the group address on Ethernet for an IP multicast group:
// 01:00:5e and 23 bits for IPv4 (RFC 1112 §6.4), 33:33 and 32 bits for IPv6
// (RFC 2464 §7).
func MulticastMAC(group netip.Addr) MAC {
	if group.Is4() {
		a := group.As4()
		return MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// Ethernet is a view of an Ethernet II header.
//
//	0               6               12          14
//	| destination   | source        | EtherType |
type Ethernet []byte

// EthernetFields is what [PutEthernet] writes.
type EthernetFields struct {
	Destination, Source MAC
	Type                EtherType
}

// ParseEthernet splits a frame into header and payload. The payload may end in
// padding. A type field below 0x0600, which is an IEEE 802.3 length, is left
// to the caller, who does not know it.
func ParseEthernet(b []byte) (h Ethernet, payload []byte, ok bool) {
	if len(b) < EthernetLen {
		return nil, nil, false
	}
	return Ethernet(b[:EthernetLen:EthernetLen]), b[EthernetLen:], true
}

// Destination is the station or group the frame is for.
func (h Ethernet) Destination() MAC { return MAC(h[0:6]) }

// Source is the station that sent the frame.
func (h Ethernet) Source() MAC { return MAC(h[6:12]) }

// Type says what the payload is.
func (h Ethernet) Type() EtherType { return EtherType(binary.BigEndian.Uint16(h[12:14])) }

// Fields returns all fields.
func (h Ethernet) Fields() EthernetFields {
	return EthernetFields{Destination: h.Destination(), Source: h.Source(), Type: h.Type()}
}

// PutEthernet writes a header to the front of b and returns EthernetLen.
func PutEthernet(b []byte, f EthernetFields) int {
	b = b[:EthernetLen]
	*(*MAC)(b[0:6]) = f.Destination
	*(*MAC)(b[6:12]) = f.Source
	binary.BigEndian.PutUint16(b[12:14], uint16(f.Type))
	return EthernetLen
}
