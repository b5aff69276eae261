package tapdev

import (
	"net"

	"sbxnet/netstack/frame"
)

// Kind names a way to reach the sandbox's network namespace.
type Kind string

// The kinds of link. Auto takes TAP where /dev/net/tun can be opened and the
// packet link where not.
const (
	Auto   Kind = "auto"
	TAP    Kind = "tap"
	Packet Kind = "packet"
)

// Options says what device to open and what work to leave to the kernel. It
// crosses from sbxnet to the sandbox's first process as JSON.
type Options struct {
	Kind Kind
	// Name of the sandbox's interface, such as tap0.
	Name string
	// MTU of the sandbox's interface, in bytes, without the Ethernet header.
	MTU int
	// Queues is the number of channels, each with a descriptor of its own; 0 is
	// [DefaultQueues].
	Queues int
	// HardwareAddr of the sandbox's interface.
	HardwareAddr net.HardwareAddr
	// GSO lets the kernel cut and build super-segments, both ways. Each way
	// needs its checksums left out too: towards the sandbox TXChecksum, from it
	// RXChecksum.
	GSO bool
	// SoftwareGSO lets the link cut them itself where the kernel does not.
	SoftwareGSO bool
	// GRO coalesces small segments of a flow before they are written, for as
	// long as the kernel takes the result.
	GRO bool
	// TXChecksum leaves the checksums of frames towards the sandbox to the
	// kernel; otherwise the link completes them, and cuts super-segments
	// itself, since each segment has a checksum. RXChecksum lets the sandbox's
	// kernel leave them out; otherwise that cuts its own segments, since TSO
	// needs checksum offload.
	TXChecksum, RXChecksum bool
	// QDisc is what holds frames that the device does not take at once: "none"
	// drops them, "fifo" keeps a bounded queue in front of the device.
	QDisc string
}

// Info is what was opened, as the opener tells the process that will use it.
// It crosses as JSON beside the descriptors.
type Info struct {
	Options
	// Kind is TAP or Packet, never Auto.
	Kind Kind
	// VnetHeader: frames carry a virtio header (IFF_VNET_HDR,
	// PACKET_VNET_HDR).
	VnetHeader bool
	// KernelTSO and KernelUSO: the sandbox's kernel takes TCP and UDP
	// super-segments from us and builds them for us.
	KernelTSO, KernelUSO bool
	// ReceiveBuffer is how many bytes of frames the kernel surely holds for us
	// between two reads, in each queue; 0 means that no byte limit applies (a
	// TAP counts frames). The TCP windows advertised to the sandbox must fit in
	// it together, as far as their flows share a queue. Attach may get more
	// than Open did: ask [ReceiveBuffer] of the link.
	ReceiveBuffer int
	// Notes are degradations worth a log line each, such as "kernel has no USO".
	Notes []string
}

// Received is one frame that a queue delivered. Data starts at the Ethernet
// header and belongs to the queue; it is good until the next Read.
type Received struct {
	Data []byte
	frame.Offload
}

// Queue is one channel of a link. One goroutine uses it at a time.
type Queue interface {
	// FD is the descriptor to wait on with epoll, readable when Read has
	// something to return.
	FD() int
	// Read fills in with frames, as many as are there and fit, and returns
	// their number; 0 with a nil error means that there is none now. Frames
	// that are malformed below Ethernet (a bad virtio header) are counted and
	// left out.
	Read(in []Received) (int, error)
	// Write sends the frames in order and does not keep them. A frame that the
	// device cannot take is queued or dropped as Options.QDisc says, and
	// counted; an error means that the link is gone.
	Write(out []frame.Frame) error
	// Flush tries again to send what a full device made Write keep, and
	// reports whether anything is still kept. Its owner calls it when FD
	// becomes writable.
	Flush() (pending bool, err error)
}

// Link is a device with one or more queues, seen from outside the sandbox.
type Link interface {
	Queues() []Queue
	// Capabilities of the link now; a capability never comes back once lost.
	Capabilities() frame.Capabilities
	// Stats adds up the counters of all queues.
	Stats() Stats
	// Close closes every queue. The device goes with it.
	Close() error
}

// Stats counts what went over a link since it was opened.
type Stats struct {
	RxFrames, RxBytes, RxMalformed uint64
	TxFrames, TxBytes, TxDropped   uint64
}
