package header

import (
	"encoding/binary"

	"sbxnet/netstack/checksum"
)

// ICMPv4 types (RFC 792).
const (
	ICMPv4EchoReply        = 0
	ICMPv4Unreachable      = 3
	ICMPv4SourceQuench     = 4
	ICMPv4Redirect         = 5
	ICMPv4EchoRequest      = 8
	ICMPv4TimeExceeded     = 11
	ICMPv4ParameterProblem = 12
)

// Codes of ICMPv4Unreachable (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
const (
	ICMPv4NetUnreachable         = 0
	ICMPv4HostUnreachable        = 1
	ICMPv4ProtocolUnreachable    = 2
	ICMPv4PortUnreachable        = 3
	ICMPv4FragmentationNeeded    = 4
	ICMPv4SourceRouteFailed      = 5
	ICMPv4NetUnknown             = 6
	ICMPv4HostUnknown            = 7
	ICMPv4SourceIsolated         = 8
	ICMPv4NetProhibited          = 9
	ICMPv4HostProhibited         = 10
	ICMPv4NetUnreachableForTOS   = 11
	ICMPv4HostUnreachableForTOS  = 12
	ICMPv4AdminProhibited        = 13
	ICMPv4PrecedenceViolation    = 14
	ICMPv4PrecedenceInsufficient = 15
)

// Codes of ICMPv4TimeExceeded.
const (
	ICMPv4TTLExceeded        = 0
	ICMPv4ReassemblyExceeded = 1
)

// Type is the message type.
func (m ICMPv4) Type() uint8 { return m[0] }

// Code refines the type.
func (m ICMPv4) Code() uint8 { return m[1] }

// Checksum is the checksum field.
func (m ICMPv4) Checksum() uint16 { return binary.BigEndian.Uint16(m[2:4]) }

// Rest is the four bytes after the checksum.
func (m ICMPv4) Rest() uint32 { return binary.BigEndian.Uint32(m[4:8]) }

// EchoID is the identifier of an echo message.
func (m ICMPv4) EchoID() uint16 { return binary.BigEndian.Uint16(m[4:6]) }

// EchoSeq is the sequence number of an echo message.
func (m ICMPv4) EchoSeq() uint16 { return binary.BigEndian.Uint16(m[6:8]) }

// MTU is the next-hop MTU of a fragmentation-needed message, in bytes, 0 from
// routers that predate RFC 1191.
func (m ICMPv4) MTU() int { return int(binary.BigEndian.Uint16(m[6:8])) }

// Pointer is the offset of the bad byte that a parameter problem names.
func (m ICMPv4) Pointer() int { return int(m[4]) }

// Fields returns type, code and rest.
func (m ICMPv4) Fields() ICMPFields {
	return ICMPFields{Type: m.Type(), Code: m.Code(), Rest: m.Rest()}
}

// IsError reports whether the message tells of another packet, which its body
// quotes. No ICMP message is ever sent about one (RFC 1122 §3.2.2). A type
// that is not known is not taken for an error.
func (m ICMPv4) IsError() bool {
	switch m.Type() {
	case ICMPv4Unreachable, ICMPv4SourceQuench, ICMPv4Redirect, ICMPv4TimeExceeded, ICMPv4ParameterProblem:
		return true
	}
	return false
}

// ChecksumValid verifies the checksum over the whole message.
func (m ICMPv4) ChecksumValid() bool { return checksum.Sum(0).Add(m).Valid() }

// PutICMPv4 writes the first 8 bytes of a message to the front of b, with a
// checksum that covers body too, wherever that lies. It returns ICMPLen.
func PutICMPv4(b []byte, f ICMPFields, body []byte) int {
	putICMP(b, f)
	c := checksum.Sum(0).Add(b[:ICMPLen]).Add(body).Checksum()
	binary.BigEndian.PutUint16(b[2:4], c)
	return ICMPLen
}
