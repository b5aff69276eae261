package header

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/checksum"
)

// ICMPv6 types (RFC 4443, RFC 4861, RFC 2710, RFC 3810).
const (
	ICMPv6Unreachable             = 1
	ICMPv6PacketTooBig            = 2
	ICMPv6TimeExceeded            = 3
	ICMPv6ParameterProblem        = 4
	ICMPv6EchoRequest             = 128
	ICMPv6EchoReply               = 129
	ICMPv6MulticastQuery          = 130
	ICMPv6MulticastReport         = 131
	ICMPv6MulticastDone           = 132
	ICMPv6RouterSolicitation      = 133
	ICMPv6RouterAdvertisement     = 134
	ICMPv6NeighborSolicitation    = 135
	ICMPv6NeighborAdvertisement   = 136
	ICMPv6Redirect                = 137
	ICMPv6MulticastReportVersion2 = 143
)

// Codes of ICMPv6Unreachable (RFC 4443 §3.1).
const (
	ICMPv6NoRoute            = 0
	ICMPv6AdminProhibited    = 1
	ICMPv6BeyondScope        = 2
	ICMPv6AddressUnreachable = 3
	ICMPv6PortUnreachable    = 4
	ICMPv6SourcePolicy       = 5
	ICMPv6RejectRoute        = 6
)

// Codes of ICMPv6TimeExceeded.
const (
	ICMPv6HopLimitExceeded   = 0
	ICMPv6ReassemblyExceeded = 1
)

// Codes of ICMPv6ParameterProblem (RFC 4443 §3.4, RFC 7112 §5).
const (
	ICMPv6ErroneousHeader        = 0
	ICMPv6UnrecognizedNextHeader = 1
	ICMPv6UnrecognizedOption     = 2
	ICMPv6IncompleteChain        = 3
)

// Type is the message type; errors are below 128.
func (m ICMPv6) Type() uint8 { return m[0] }

// Code refines the type.
func (m ICMPv6) Code() uint8 { return m[1] }

// Checksum is the checksum field.
func (m ICMPv6) Checksum() uint16 { return binary.BigEndian.Uint16(m[2:4]) }

// Rest is the four bytes after the checksum.
func (m ICMPv6) Rest() uint32 { return binary.BigEndian.Uint32(m[4:8]) }

// EchoID is the identifier of an echo message.
func (m ICMPv6) EchoID() uint16 { return binary.BigEndian.Uint16(m[4:6]) }

// EchoSeq is the sequence number of an echo message.
func (m ICMPv6) EchoSeq() uint16 { return binary.BigEndian.Uint16(m[6:8]) }

// MTU is the MTU that a packet-too-big message names, in bytes, as it came.
func (m ICMPv6) MTU() uint32 { return m.Rest() }

// Pointer is the offset of the bad byte that a parameter problem names.
func (m ICMPv6) Pointer() uint32 { return m.Rest() }

// Fields returns type, code and rest.
func (m ICMPv6) Fields() ICMPFields {
	return ICMPFields{Type: m.Type(), Code: m.Code(), Rest: m.Rest()}
}

// IsError reports whether the message tells of another packet, which its body
// quotes (RFC 4443 §2.1). No ICMPv6 message is ever sent about one.
func (m ICMPv6) IsError() bool { return m.Type() < 128 }

// ChecksumValid verifies the checksum over pseudo-header and message.
func (m ICMPv6) ChecksumValid(src, dst netip.Addr) bool {
	return checksum.PseudoHeaderIPv6(src, dst, ProtocolICMPv6, uint32(len(m))).Add(m).Valid()
}

// PutICMPv6 writes the first 8 bytes of a message to the front of b, with a
// checksum that covers body too, wherever that lies. It returns ICMPLen.
func PutICMPv6(b []byte, f ICMPFields, src, dst netip.Addr, body []byte) int {
	putICMP(b, f)
	c := checksum.PseudoHeaderIPv6(src, dst, ProtocolICMPv6, uint32(ICMPLen+len(body))).
		Add(b[:ICMPLen]).Add(body).Checksum()
	binary.BigEndian.PutUint16(b[2:4], c)
	return ICMPLen
}
