package virtio

import (
	"encoding/binary"
	"errors"

	"sbxnet/netstack/frame"
)

// Sizes of the header in bytes. TAP devices are set to Size (with
// TUNSETVNETHDRSZ), AF_PACKET sockets know LegacySize only (before Linux 6.6).
// The two bytes more are num_buffers, which neither uses.
const (
	Size       = 12
	LegacySize = 10
)

// Header fields, in bytes from its start. Integers are in native byte order.
const (
	offFlags          = 0
	offGSOType        = 1
	offHeaderLen      = 2
	offGSOSize        = 4
	offChecksumStart  = 6
	offChecksumOffset = 8
)

const (
	flagNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	flagDataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN   = 0x80
)

const (
	ethernetLen = 14
	tcpField    = 16 // the checksum field in a TCP header
	udpField    = 6  // and in a UDP header
)

// Errors of Parse.
var (
	ErrShort    = errors.New("virtio header: frame too short")
	ErrChecksum = errors.New("virtio header: checksum field outside the frame")
	ErrGSO      = errors.New("virtio header: impossible segmentation request")
)

// Encode writes the header for a frame of frameLen bytes into b, which is Size
// or LegacySize long. A super-segment with no more payload than one segment
// holds is not marked as one: some kernels refuse that. hdr_len is written
// whether or not there is anything to cut, because it decides how the kernel
// allocates the frame (tun_get_user in drivers/net/tun.c).
func Encode(b []byte, o *frame.Offload, frameLen int) {
	clear(b)
	ne := binary.NativeEndian
	if o.NeedsChecksum {
		b[offFlags] = flagNeedsChecksum
		ne.PutUint16(b[offChecksumStart:], o.ChecksumStart)
		ne.PutUint16(b[offChecksumOffset:], o.ChecksumOffset)
	}
	if int(o.HeaderLen) > frameLen {
		return
	}
	ne.PutUint16(b[offHeaderLen:], o.HeaderLen)
	if o.GSOType == frame.GSONone || frameLen-int(o.HeaderLen) <= int(o.GSOSize) {
		return
	}
	ne.PutUint16(b[offGSOSize:], o.GSOSize)
	switch o.GSOType {
	case frame.GSOTCPv4:
		b[offGSOType] = gsoTCPv4
	case frame.GSOTCPv6:
		b[offGSOType] = gsoTCPv6
	case frame.GSOUDP:
		b[offGSOType] = gsoUDP
		return
	}
	if o.ECN {
		b[offGSOType] |= gsoECN
	}
}

// Parse reads the header in b, at least LegacySize bytes, of the frame in data,
// which starts at the Ethernet header.
func Parse(b, data []byte) (frame.Offload, error) {
	var o frame.Offload
	if len(b) < LegacySize || len(data) < ethernetLen {
		return o, ErrShort
	}
	ne := binary.NativeEndian
	flags, kind := b[offFlags], b[offGSOType]
	if flags&flagNeedsChecksum == 0 {
		if kind != gsoNone {
			// A segment that is cut gets new checksums, so the kernel always
			// asks for both.
			return o, ErrGSO
		}
		o.ChecksumValid = flags&flagDataValid != 0
		return o, nil
	}
	o.NeedsChecksum = true
	o.ChecksumStart = ne.Uint16(b[offChecksumStart:])
	o.ChecksumOffset = ne.Uint16(b[offChecksumOffset:])
	start := int(o.ChecksumStart)
	if start < ethernetLen || start+int(o.ChecksumOffset)+2 > len(data) {
		return frame.Offload{}, ErrChecksum
	}
	o.HeaderLen = headerLen(data, start, o.ChecksumOffset)
	if kind == gsoNone {
		return o, nil
	}
	return parseGSO(o, kind, ne.Uint16(b[offGSOSize:]), data)
}

func parseGSO(o frame.Offload, kind byte, size uint16, data []byte) (frame.Offload, error) {
	field := uint16(tcpField)
	etherType := binary.BigEndian.Uint16(data[12:])
	switch kind &^ gsoECN {
	case gsoTCPv4:
		o.GSOType = frame.GSOTCPv4
	case gsoTCPv6:
		o.GSOType = frame.GSOTCPv6
	case gsoUDP:
		o.GSOType = frame.GSOUDP
		field = udpField
	default:
		return frame.Offload{}, ErrGSO
	}
	badFamily := o.GSOType == frame.GSOTCPv4 && etherType != 0x0800 ||
		o.GSOType == frame.GSOTCPv6 && etherType != 0x86dd
	if size == 0 || o.ChecksumOffset != field || o.HeaderLen == 0 || badFamily {
		return frame.Offload{}, ErrGSO
	}
	if len(data)-int(o.HeaderLen) <= int(size) {
		o.GSOType = frame.GSONone
		return o, nil
	}
	o.GSOSize = size
	o.ECN = kind&gsoECN != 0
	return o, nil
}

// headerLen is the length of all headers, taken from where the transport header
// starts and, for TCP, its data offset; 0 where they do not fit the frame or
// the transport is unknown.
func headerLen(data []byte, start int, field uint16) uint16 {
	n := 0
	switch field {
	case tcpField:
		n = int(data[start+12]>>4) * 4
		if n < 20 {
			return 0
		}
	case udpField:
		n = 8
	default:
		return 0
	}
	if start+n > len(data) {
		return 0
	}
	return uint16(start + n)
}
