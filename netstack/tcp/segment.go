package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// segment is a received segment, parsed.
type segment struct {
	seq, ack seq.Value
	flags    header.TCPFlags
	wnd      uint16
	ecn      uint8
	size     int // payload of each segment it was coalesced from, or 0
	payload  []byte
	opt      header.TCPOptions
}

// length is SEG.LEN: payload, SYN and FIN.
func (s *segment) length() uint32 {
	n := uint32(len(s.payload))
	if s.flags.Has(header.SYN) {
		n++
	}
	if s.flags.Has(header.FIN) {
		n++
	}
	return n
}

// end is the sequence number behind the segment.
func (s *segment) end() seq.Value { return s.seq.Add(s.length()) }

// impossible reports flags that no connection produces: SYN with FIN or RST, or
// none of those that mean anything.
func impossible(f header.TCPFlags) bool {
	switch {
	case f.Has(header.SYN) && f.Any(header.FIN|header.RST):
		return true
	case !f.Any(header.SYN | header.FIN | header.RST | header.ACK):
		return true
	}
	return false
}
