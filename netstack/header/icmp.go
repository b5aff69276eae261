package header

import "encoding/binary"

// ICMPLen is the length of the part that all ICMP and ICMPv6 messages share,
// in bytes: type, code, checksum, and four bytes whose meaning depends on the
// type.
const ICMPLen = 8

// ICMPFields is what [PutICMPv4] and [PutICMPv6] write.
//
//	0      1      2          4                                  8
//	| type | code | checksum | rest: echo ID and sequence, MTU, | body
//	|      |      |          | pointer, flags or zero           |
type ICMPFields struct {
	Type, Code uint8
	Rest       uint32
}

// EchoRest is the Rest of an echo message.
func EchoRest(id, sequence uint16) uint32 { return uint32(id)<<16 | uint32(sequence) }

// ICMPv4 is a view of a whole ICMP message (RFC 792).
type ICMPv4 []byte

// ICMPv6 is a view of a whole ICMPv6 message (RFC 4443).
type ICMPv6 []byte

// ParseICMPv4 wants the 8 bytes that every message has. The view covers all of
// b, for the checksum does; the body is what follows the 8 bytes.
func ParseICMPv4(b []byte) (m ICMPv4, body []byte, ok bool) {
	if len(b) < ICMPLen {
		return nil, nil, false
	}
	return ICMPv4(b), b[ICMPLen:], true
}

// ParseICMPv6 is ParseICMPv4 for ICMPv6.
func ParseICMPv6(b []byte) (m ICMPv6, body []byte, ok bool) {
	if len(b) < ICMPLen {
		return nil, nil, false
	}
	return ICMPv6(b), b[ICMPLen:], true
}

func putICMP(b []byte, f ICMPFields) {
	b = b[:ICMPLen]
	b[0], b[1], b[2], b[3] = f.Type, f.Code, 0, 0
	binary.BigEndian.PutUint32(b[4:8], f.Rest)
}
