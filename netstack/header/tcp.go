package header

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/seq"
)

// Lengths of a TCP header in bytes: without options, and with as many as fit.
const (
	TCPMinLen        = 20
	TCPMaxLen        = 60
	TCPMaxOptionsLen = TCPMaxLen - TCPMinLen
)

// TCPChecksumOffset is where the checksum field lies in a TCP header.
const TCPChecksumOffset = 16

// TCPFlags is the set of control bits.
type TCPFlags uint8

// The control bits (RFC 9293 §3.1, RFC 3168 §6.1).
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

var flagNames = [8]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

// Has reports whether all of the given bits are set.
func (f TCPFlags) Has(all TCPFlags) bool { return f&all == all }

// Any reports whether at least one of the given bits is set.
func (f TCPFlags) Any(of TCPFlags) bool { return f&of != 0 }

// String is the bits from low to high, such as "SYN|ACK", or "none".
func (f TCPFlags) String() string {
	if f == 0 {
		return "none"
	}
	var s []byte
	for i, name := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		if len(s) > 0 {
			s = append(s, '|')
		}
		s = append(s, name...)
	}
	return string(s)
}

// TCP is a view of a TCP header, options included (RFC 9293 §3.1).
//
//	 0                   1                   2                   3
//	|          source port          |        destination port       |
//	|                        sequence number                        |
//	|                     acknowledgment number                     |
//	| offset| rsvd  |C|E|U|A|P|R|S|F|            window             |
//	|           checksum            |         urgent pointer        |
//	|                    options, 0 to 40 bytes                     |
type TCP []byte

// TCPFields is what [PutTCP] writes, before any options.
type TCPFields struct {
	SourcePort, DestinationPort uint16
	Seq, Ack                    seq.Value
	Flags                       TCPFlags
	Window                      uint16 // as on the wire, already scaled down
	Checksum                    uint16 // as it goes into the field
	Urgent                      uint16
	OptionsLen                  int // bytes of options after the fixed header, a multiple of 4, at most 40
}

// ParseTCP splits a segment. It wants a data offset of at least 20 bytes that
// lies within b. The checksum and the options are not looked at.
func ParseTCP(b []byte) (h TCP, payload []byte, ok bool) {
	if len(b) < TCPMinLen {
		return nil, nil, false
	}
	n := int(b[12]>>4) * 4
	if n < TCPMinLen || n > len(b) {
		return nil, nil, false
	}
	return TCP(b[:n:n]), b[n:], true
}

// SourcePort is the sender's port.
func (h TCP) SourcePort() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// DestinationPort is the receiver's port.
func (h TCP) DestinationPort() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// Seq is the sequence number of the first byte, or of the SYN.
func (h TCP) Seq() seq.Value { return seq.Value(binary.BigEndian.Uint32(h[4:8])) }

// Ack is the acknowledgement number, meaningless without the ACK flag.
func (h TCP) Ack() seq.Value { return seq.Value(binary.BigEndian.Uint32(h[8:12])) }

// Flags is the control bits.
func (h TCP) Flags() TCPFlags { return TCPFlags(h[13]) }

// Window is the window field, not scaled.
func (h TCP) Window() uint16 { return binary.BigEndian.Uint16(h[14:16]) }

// Checksum is the checksum field.
func (h TCP) Checksum() uint16 { return binary.BigEndian.Uint16(h[16:18]) }

// Urgent is the urgent pointer, meaningless without the URG flag.
func (h TCP) Urgent() uint16 { return binary.BigEndian.Uint16(h[18:20]) }

// OptionBytes is the options as they came.
func (h TCP) OptionBytes() []byte { return h[TCPMinLen:] }

// Options parses the options: see [ParseTCPOptions].
func (h TCP) Options() TCPOptions { return ParseTCPOptions(h[TCPMinLen:]) }

// Fields returns all fields of the fixed header.
func (h TCP) Fields() TCPFields {
	return TCPFields{
		SourcePort: h.SourcePort(), DestinationPort: h.DestinationPort(),
		Seq: h.Seq(), Ack: h.Ack(), Flags: h.Flags(), Window: h.Window(),
		Checksum: h.Checksum(), Urgent: h.Urgent(), OptionsLen: len(h) - TCPMinLen,
	}
}

// SetSeq changes the sequence number and leaves the checksum alone.
func (h TCP) SetSeq(v seq.Value) { binary.BigEndian.PutUint32(h[4:8], uint32(v)) }

// SetFlags changes the control bits and leaves the checksum alone.
func (h TCP) SetFlags(f TCPFlags) { h[13] = uint8(f) }

// ChecksumValid verifies the checksum over pseudo-header, header and payload.
func (h TCP) ChecksumValid(src, dst netip.Addr, payload []byte) bool {
	return h.pseudoHeader(src, dst, len(payload)).Add(h).Add(payload).Valid()
}

// SetChecksum computes the checksum over pseudo-header, header with options,
// and payload.
func (h TCP) SetChecksum(src, dst netip.Addr, payload []byte) {
	h[16], h[17] = 0, 0
	c := h.pseudoHeader(src, dst, len(payload)).Add(h).Add(payload).Checksum()
	binary.BigEndian.PutUint16(h[16:18], c)
}

// SetPartialChecksum writes the folded pseudo-header sum for a payload of n
// bytes, not complemented, for a link that adds the rest.
func (h TCP) SetPartialChecksum(src, dst netip.Addr, n int) {
	binary.BigEndian.PutUint16(h[16:18], h.pseudoHeader(src, dst, n).Fold())
}

func (h TCP) pseudoHeader(src, dst netip.Addr, payload int) checksum.Sum {
	return checksum.PseudoHeader(src, dst, ProtocolTCP, uint32(len(h)+payload))
}

// PutTCP writes the fixed header to the front of b and returns its length,
// TCPMinLen. The caller writes OptionsLen bytes of options behind it, usually
// with [PutTCPOptions]. It panics if that length does not fit its field.
func PutTCP(b []byte, f TCPFields) int {
	if f.OptionsLen&3 != 0 || uint(f.OptionsLen) > TCPMaxOptionsLen {
		panic("header: TCP options length")
	}
	b = b[:TCPMinLen]
	binary.BigEndian.PutUint16(b[0:2], f.SourcePort)
	binary.BigEndian.PutUint16(b[2:4], f.DestinationPort)
	binary.BigEndian.PutUint32(b[4:8], uint32(f.Seq))
	binary.BigEndian.PutUint32(b[8:12], uint32(f.Ack))
	b[12] = uint8((TCPMinLen+f.OptionsLen)/4) << 4
	b[13] = uint8(f.Flags)
	binary.BigEndian.PutUint16(b[14:16], f.Window)
	binary.BigEndian.PutUint16(b[16:18], f.Checksum)
	binary.BigEndian.PutUint16(b[18:20], f.Urgent)
	return TCPMinLen
}
