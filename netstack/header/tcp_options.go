package header

import (
	"encoding/binary"

	"sbxnet/netstack/seq"
)

// TCP option kinds (RFC 9293 §3.1, RFC 7323, RFC 2018).
const (
	TCPOptionEnd           = 0
	TCPOptionNop           = 1
	TCPOptionMSS           = 2
	TCPOptionWindowScale   = 3
	TCPOptionSACKPermitted = 4
	TCPOptionSACK          = 5
	TCPOptionTimestamp     = 8
)

// MaxWindowScale is the largest shift that may be used (RFC 7323 §2.3).
const MaxWindowScale = 14

// MaxSACKBlocks is how many blocks 40 bytes of options hold; beside a
// timestamp it is one fewer.
const MaxSACKBlocks = 4

// timestampLayout is the four bytes that begin the layout RFC 7323 appendix A
// recommends and nearly every segment has: nop, nop, timestamp of length 10.
const timestampLayout = TCPOptionNop<<24 | TCPOptionNop<<16 | TCPOptionTimestamp<<8 | 10

// SACKBlock is a range of received data beyond the cumulative acknowledgement:
// [Left, Right) (RFC 2018 §3).
type SACKBlock struct{ Left, Right seq.Value }

// TCPOptions is the options of one segment that the stack understands.
type TCPOptions struct {
	MSS            uint16 // bytes; valid if HasMSS, else 0
	WindowScale    uint8  // shift, at most MaxWindowScale; valid if HasWindowScale, else 0
	HasMSS         bool
	HasWindowScale bool
	SACKPermitted  bool
	Timestamp      bool // TSVal and TSEcr are valid, else 0
	TSVal, TSEcr   uint32
	SACK           [MaxSACKBlocks]SACKBlock // in the order of the wire
	NumSACK        int
}

// ParseTCPOptions reads the options in b, in any order. Unknown kinds are
// skipped. A known kind with a length it cannot have is skipped too, as Linux
// does. A length that runs out of b or below 2 ends the parse, and what was
// read until then stands. Of an option that comes twice the last counts. A
// window scale above 14 is read as 14 (RFC 7323 §2.3). Nothing is known here
// of the segment's flags: that MSS, window scale and SACK-permitted count only
// with SYN is the caller's to observe, as is the sense of a SACK block.
func ParseTCPOptions(b []byte) (o TCPOptions) {
	if len(b) == 12 && binary.BigEndian.Uint32(b) == timestampLayout {
		o.Timestamp = true
		o.TSVal = binary.BigEndian.Uint32(b[4:8])
		o.TSEcr = binary.BigEndian.Uint32(b[8:12])
		return o
	}
	o.parse(b)
	return o
}

func (o *TCPOptions) parse(b []byte) {
	for {
		for len(b) > 0 && b[0] == TCPOptionNop {
			b = b[1:]
		}
		kind, data, rest, ok := nextOption(b)
		if !ok {
			return
		}
		b = rest
		switch {
		case kind == TCPOptionMSS && len(data) == 2:
			o.HasMSS, o.MSS = true, binary.BigEndian.Uint16(data)
		case kind == TCPOptionWindowScale && len(data) == 1:
			o.HasWindowScale, o.WindowScale = true, min(data[0], MaxWindowScale)
		case kind == TCPOptionSACKPermitted && len(data) == 0:
			o.SACKPermitted = true
		case kind == TCPOptionTimestamp && len(data) == 8:
			o.Timestamp = true
			o.TSVal = binary.BigEndian.Uint32(data)
			o.TSEcr = binary.BigEndian.Uint32(data[4:])
		case kind == TCPOptionSACK && len(data) >= 8 && len(data)%8 == 0:
			o.parseSACK(data)
		}
	}
}

func (o *TCPOptions) parseSACK(data []byte) {
	o.SACK = [MaxSACKBlocks]SACKBlock{}
	o.NumSACK = min(len(data)/8, MaxSACKBlocks)
	for i := range o.NumSACK {
		o.SACK[i] = SACKBlock{
			Left:  seq.Value(binary.BigEndian.Uint32(data[8*i:])),
			Right: seq.Value(binary.BigEndian.Uint32(data[8*i+4:])),
		}
	}
}

// SYNLen is the number of bytes that [PutTCPSYNOptions] writes for o.
func (o *TCPOptions) SYNLen() int {
	n := 0
	if o.HasMSS {
		n += 4
	}
	if o.SACKPermitted {
		n += 2
	}
	if o.Timestamp {
		n += 10
	}
	if o.HasWindowScale {
		n += 4
	}
	return (n + 3) &^ 3
}

// PutTCPSYNOptions writes the options of a SYN to the front of b: MSS,
// SACK-permitted, timestamp, nop, window scale, those that o has, padded with
// nops to a multiple of 4. It returns the length, [TCPOptions.SYNLen]. SACK
// blocks do not go on a SYN and are left out.
func PutTCPSYNOptions(b []byte, o *TCPOptions) int {
	n := 0
	if o.HasMSS {
		b[0], b[1] = TCPOptionMSS, 4
		binary.BigEndian.PutUint16(b[2:4], o.MSS)
		n = 4
	}
	if o.SACKPermitted {
		b[n], b[n+1] = TCPOptionSACKPermitted, 2
		n += 2
	}
	if o.Timestamp {
		b[n], b[n+1] = TCPOptionTimestamp, 10
		binary.BigEndian.PutUint32(b[n+2:], o.TSVal)
		binary.BigEndian.PutUint32(b[n+6:], o.TSEcr)
		n += 10
	}
	if o.HasWindowScale {
		b[n], b[n+1], b[n+2] = TCPOptionNop, TCPOptionWindowScale, 3
		b[n+3] = min(o.WindowScale, MaxWindowScale)
		n += 4
	}
	for ; n&3 != 0; n++ {
		b[n] = TCPOptionNop
	}
	return n
}

// Len is the number of bytes that [PutTCPOptions] writes for o.
func (o *TCPOptions) Len() int {
	n := 0
	if o.Timestamp {
		n = 12
	}
	if k := o.fittingSACK(n); k > 0 {
		n += 4 + 8*k
	}
	return n
}

// fittingSACK is how many blocks fit behind n bytes of other options.
func (o *TCPOptions) fittingSACK(n int) int {
	return max(0, min(o.NumSACK, MaxSACKBlocks, (TCPMaxOptionsLen-n-4)/8))
}

// PutTCPOptions writes the options of a segment without SYN to the front of b:
// nop, nop, timestamp; nop, nop, SACK. Of the SACK blocks it takes the first,
// so the caller puts the newest there (RFC 2018 §4): four, or three beside a
// timestamp. It returns the length, [TCPOptions.Len], a multiple of 4.
func PutTCPOptions(b []byte, o *TCPOptions) int {
	n := 0
	if o.Timestamp {
		binary.BigEndian.PutUint32(b, timestampLayout)
		binary.BigEndian.PutUint32(b[4:], o.TSVal)
		binary.BigEndian.PutUint32(b[8:], o.TSEcr)
		n = 12
	}
	k := o.fittingSACK(n)
	if k == 0 {
		return n
	}
	b[n], b[n+1], b[n+2], b[n+3] = TCPOptionNop, TCPOptionNop, TCPOptionSACK, uint8(2+8*k)
	n += 4
	for _, block := range o.SACK[:k] {
		binary.BigEndian.PutUint32(b[n:], uint32(block.Left))
		binary.BigEndian.PutUint32(b[n+4:], uint32(block.Right))
		n += 8
	}
	return n
}
