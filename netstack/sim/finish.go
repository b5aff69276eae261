package sim

import (
	"encoding/binary"
	"fmt"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// finish does in software what a frame leaves to its link, and checks on the
// way that the offload metadata makes sense. It appends the resulting frames,
// in memory of their own, to out. If whole is set, a super-segment stays as it is,
// checksum and all, for a link that hands it over so.
func finish(f *frame.Frame, whole bool, out []wireFrame) ([]wireFrame, error) {
	b := f.AppendTo(nil)
	if !f.NeedsChecksum {
		return append(out, wireFrame{data: b}), nil
	}
	field := int(f.ChecksumStart) + int(f.ChecksumOffset)
	if field+2 > len(b) || int(f.HeaderLen) != len(f.Header) {
		return out, fmt.Errorf("offload %+v does not fit a frame of %d+%d bytes", f.Offload, len(f.Header), len(b)-len(f.Header))
	}
	if f.GSOType == frame.GSONone {
		complete(b, int(f.ChecksumStart), field)
		return append(out, wireFrame{data: b}), nil
	}
	if f.GSOSize == 0 || len(b)-len(f.Header) <= int(f.GSOSize) {
		return out, fmt.Errorf("GSO size %d for %d bytes of payload", f.GSOSize, len(b)-len(f.Header))
	}
	if whole {
		return append(out, wireFrame{data: b, off: f.Offload}), nil
	}
	return segment(f, b, out)
}

// complete adds the sum from start on to the pseudo-header's in the field.
func complete(b []byte, start, field int) {
	binary.BigEndian.PutUint16(b[field:], checksum.Of(b[start:]))
}

// segment cuts a TCP super-segment b as a link would: sequence numbers go up,
// FIN and PSH stay on the last segment, CWR on the first.
func segment(f *frame.Frame, b []byte, out []wireFrame) ([]wireFrame, error) {
	head, payload, size := b[:len(f.Header)], b[len(f.Header):], int(f.GSOSize)
	start := int(f.ChecksumStart)
	for off := 0; off < len(payload); off += size {
		part := payload[off:min(off+size, len(payload))]
		seg := append(append(make([]byte, 0, len(head)+len(part)), head...), part...)
		setLength(seg)
		t, _, ok := header.ParseTCP(seg[start:])
		if !ok {
			return out, fmt.Errorf("no TCP header at %d of a super-segment", start)
		}
		t.SetSeq(t.Seq().Add(uint32(off)))
		flags := t.Flags()
		if off+size < len(payload) {
			flags &^= header.FIN | header.PSH
		}
		if off > 0 {
			flags &^= header.CWR
		}
		t.SetFlags(flags)
		src, dst := addresses(seg)
		t.SetChecksum(src, dst, part)
		out = append(out, wireFrame{data: seg})
	}
	return out, nil
}

// setLength makes the IP header's length that of the frame.
func setLength(b []byte) {
	ip := b[header.EthernetLen:]
	if ip[0]>>4 == 4 {
		header.IPv4(ip[:header.IPv4MinLen]).SetTotalLen(len(ip))
		return
	}
	header.IPv6(ip).SetPayloadLen(len(ip) - header.IPv6Len)
}
