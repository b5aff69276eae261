package frame

// GSOType says how a frame that is larger than the link's MTU is to be cut.
type GSOType uint8

// The kinds of segmentation a link may be asked for. They name the same work
// as VIRTIO_NET_HDR_GSO_* in linux/virtio_net.h, with one value for UDP in
// either family (VIRTIO_NET_HDR_GSO_UDP_L4).
const (
	GSONone GSOType = iota
	GSOTCPv4
	GSOTCPv6
	GSOUDP
)

// Offload is the work on a frame that its sender left to the link (output),
// or that the link left undone or vouches for (input). The zero value means a
// complete frame about which nothing is known. All offsets are in bytes from
// the start of the Ethernet header.
type Offload struct {
	// NeedsChecksum: the checksum field at ChecksumStart+ChecksumOffset holds
	// the folded pseudo-header sum, not complemented, and the sum from
	// ChecksumStart to the end of the frame is still to be added. On input
	// this comes from the local kernel and means that the payload is good.
	NeedsChecksum bool
	// ChecksumValid is set on input only: the link has verified the transport
	// checksum, so the stack does not.
	ChecksumValid bool
	// ECN marks a TCP super-segment whose first segment alone carries CWR.
	ECN     bool
	GSOType GSOType
	// ChecksumStart is where the transport header begins.
	ChecksumStart uint16
	// ChecksumOffset is the checksum field's place from ChecksumStart: 16 for
	// TCP, 6 for UDP.
	ChecksumOffset uint16
	// GSOSize is the payload in each cut segment, in bytes.
	GSOSize uint16
	// HeaderLen is the length of all headers, Ethernet through transport. It
	// is set on every output frame with a transport header, GSO or not: the
	// kernel allocates a frame better when it knows (see docs/architecture.md).
	HeaderLen uint16
}

// Capabilities is what a link does for its frames, fixed when it is opened.
// What is missing here the stack does itself (segmentation) or the link does
// in software (checksums are always left to the link).
type Capabilities struct {
	// TSO4, TSO6 and USO: the link takes super-segments of this kind on
	// output, whether the kernel or the link's own software cuts them.
	TSO4, TSO6, USO bool
	// MaxFrame is the largest frame the link takes or delivers, in bytes,
	// Ethernet header included: MTU+14, or 65535+14 with segmentation.
	MaxFrame int
}

// Frame is one frame on its way out: Header, then Payload[0], then Payload[1].
// Header belongs to the batch that made it, Payload to whoever put it there.
type Frame struct {
	Header  []byte
	Payload [2][]byte
	Offload
}

// Len is the frame's length in bytes, Ethernet header included.
func (f *Frame) Len() int {
	return len(f.Header) + len(f.Payload[0]) + len(f.Payload[1])
}

// AppendTo appends the frame's bytes to b, for links that need them in one
// piece, for captures and for tests.
func (f *Frame) AppendTo(b []byte) []byte {
	b = append(b, f.Header...)
	b = append(b, f.Payload[0]...)
	return append(b, f.Payload[1]...)
}
