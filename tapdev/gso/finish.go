package gso

import (
	"encoding/binary"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

// Finish completes the checksum of a frame that needs one, in place in
// f.Header, and reports whether it could: the whole field must lie in the
// header. A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768).
func Finish(f *frame.Frame) bool {
	if !f.NeedsChecksum {
		return true
	}
	start := int(f.ChecksumStart)
	field := start + int(f.ChecksumOffset)
	if field+2 > len(f.Header) {
		return false
	}
	sum := checksum.Sum(0).Add(f.Header[start:]).Add(f.Payload[0]).Add(f.Payload[1]).Checksum()
	if sum == 0 && f.ChecksumOffset == 6 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(f.Header[field:], sum)
	f.NeedsChecksum = false
	return true
}

// FinishBytes is Finish for a frame in one piece, as links receive it. A super-
// segment gets the checksum that it would have as one packet.
func FinishBytes(data []byte, o *frame.Offload) bool {
	f := frame.Frame{Header: data, Offload: *o}
	ok := Finish(&f)
	o.NeedsChecksum = f.NeedsChecksum
	return ok
}
