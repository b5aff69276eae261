package tapdev

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/virtio"
)

// probeWrite writes a super-segment to an interface that is down (or has no
// carrier) and reports whether the kernel knows how to cut it. It checks the
// virtio header before it looks at the interface: EINVAL is a no, and the frame
// is dropped with EIO, ENETDOWN or the like where the answer is yes.
func probeWrite(fd, vnet int, f frame.Frame) bool {
	b := make([]byte, vnet, vnet+f.Len())
	virtio.Encode(b, &f.Offload, f.Len())
	_, err := unix.Write(fd, f.AppendTo(b))
	return err != unix.EINVAL
}

// The probes are two segments' worth of zeros between documentation addresses
// (RFC 5737, RFC 3849), from and to a locally administered hardware address, so
// that one which did get through would be nobody's.
const (
	probeSize    = 64
	probePayload = 2 * probeSize
)

func probeTCPv4() frame.Frame {
	return probeFrame(frame.GSOTCPv4, probeIPv4(6, 20), probeTCPHeader())
}

func probeTCPv6() frame.Frame {
	return probeFrame(frame.GSOTCPv6, probeIPv6(6, 20), probeTCPHeader())
}

func probeUDP() frame.Frame {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h[0:], 9) // discard
	binary.BigEndian.PutUint16(h[2:], 9)
	binary.BigEndian.PutUint16(h[4:], 8+probePayload)
	return probeFrame(frame.GSOUDP, probeIPv4(17, 8), h)
}

func probeTCPHeader() []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[0:], 9)
	binary.BigEndian.PutUint16(h[2:], 9)
	h[12] = 5 << 4
	h[13] = 0x10 // ACK
	return h
}

func probeIPv4(proto byte, transport int) []byte {
	h := make([]byte, 20)
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(20+transport+probePayload))
	h[8], h[9] = 1, proto
	copy(h[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	return h
}

func probeIPv6(proto byte, transport int) []byte {
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(transport+probePayload))
	h[6], h[7] = proto, 1
	copy(h[8:], []byte{0x20, 0x01, 0x0d, 0xb8})
	h[23] = 1
	copy(h[24:], []byte{0x20, 0x01, 0x0d, 0xb8})
	h[39] = 2
	return h
}

func probeFrame(kind frame.GSOType, network, transport []byte) frame.Frame {
	f := frame.Frame{Header: []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00}}
	if network[0]>>4 == 6 {
		f.Header[12], f.Header[13] = 0x86, 0xdd
	}
	f.Header = append(f.Header, network...)
	f.ChecksumStart = uint16(len(f.Header))
	f.Header = append(f.Header, transport...)
	f.HeaderLen = uint16(len(f.Header))
	f.ChecksumOffset = 16
	if kind == frame.GSOUDP {
		f.ChecksumOffset = 6
	}
	f.NeedsChecksum, f.GSOType, f.GSOSize = true, kind, probeSize
	f.Payload[0] = make([]byte, probePayload)
	return f
}
