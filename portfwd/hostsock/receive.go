package hostsock

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slotSize holds the largest datagram, or what UDP_GRO makes of several.
const slotSize = 1 << 16

// controlSize holds a UDP_GRO size and packet info of either family.
const controlSize = 128

// perCall is how many datagrams one system call takes.
const perCall = 16

// mmsghdr is struct mmsghdr of recvmmsg(2); Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// Message is one datagram, or several of one flow that UDP_GRO joined. All of
// it lies in the Receiver until its Reset.
type Message struct {
	Payload []byte
	// SegmentSize is the length of each joined datagram but perhaps the last,
	// or 0 for a datagram that came alone.
	SegmentSize int
	// From is the sender, for sockets that are not connected.
	From *Address
	// Local says where it arrived, on sockets that ask (IP_PKTINFO).
	Local Local
}

// Local is the address that a datagram was sent to, and the interface, as
// packet info tells. Answers carry it, so that they leave from there.
type Local struct {
	Addr  netip.Addr // the zero Addr: the socket does not ask for it
	Index uint32     // of the interface, for addresses that mean nothing without
}

// Receiver is the memory that datagrams are read into. What was read stays
// until Reset, so that frames on their way to the link may point into it.
type Receiver struct {
	slots    [][]byte // those that have memory
	msgs     []mmsghdr
	iovs     []unix.Iovec
	names    []Address
	controls [][controlSize]byte
	used     int
}

// NewReceiver makes one with room for n datagrams between two calls of Reset.
// Slots get memory when there is something to read into them: 64 KiB each count
// as used by the Go heap also where nobody has touched them, and with those of
// all shards a collection would come during every start.
func NewReceiver(n int) *Receiver {
	r := &Receiver{
		slots: make([][]byte, 0, n), msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n),
		names: make([]Address, n), controls: make([][controlSize]byte, n),
	}
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Name = r.names[i].pointer()
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
	}
	return r
}

// firstSlots is how many slots get memory first; each time, it doubles.
const firstSlots = 4

// grow gives more slots memory. What the others hold stays where it is.
func (r *Receiver) grow() {
	more := min(max(len(r.slots), firstSlots), len(r.msgs)-len(r.slots))
	memory := make([]byte, more*slotSize)
	for ; len(memory) > 0; memory = memory[slotSize:] {
		iov := &r.iovs[len(r.slots)]
		iov.Base = &memory[0]
		iov.SetLen(slotSize)
		r.slots = append(r.slots, memory[:slotSize:slotSize])
	}
}

// Reset gives all memory back: no frame points into it any more.
func (r *Receiver) Reset() { r.used = 0 }

// Full reports whether there is no memory left until Reset.
func (r *Receiver) Full() bool { return r.used == len(r.msgs) }

// Receive reads up to most datagrams from fd, as far as memory and one system
// call go, and returns the range of indices for Message. drained means that the
// socket has no more, so that the reactor will report what comes next.
func (r *Receiver) Receive(fd, most int) (first, end int, drained bool, errno unix.Errno) {
	first = r.used
	if first == len(r.slots) && !r.Full() {
		r.grow()
	}
	n := min(most, perCall, len(r.slots)-first)
	if n <= 0 {
		return first, first, false, 0
	}
	for i := first; i < first+n; i++ {
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	for {
		got, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msgs[first])),
			uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.used += int(got)
			return first, first + int(got), int(got) < n, 0
		case unix.EINTR:
		case unix.EAGAIN:
			return first, first, true, 0
		default:
			return first, first, false, e
		}
	}
}

// Message is the datagram with that index.
func (r *Receiver) Message(i int) Message {
	m := &r.msgs[i]
	r.names[i].length = m.hdr.Namelen
	out := Message{Payload: r.slots[i][:m.n], From: &r.names[i]}
	control := r.controls[i][:min(int(m.hdr.Controllen), controlSize)]
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		out.control(h, data)
		control = rest
	}
	return out
}

func (m *Message) control(h unix.Cmsghdr, data []byte) {
	switch {
	case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
		if n := int(int32(binary.NativeEndian.Uint32(data))); n > 0 && n < len(m.Payload) {
			m.SegmentSize = n
		}
	case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// ipi_spec_dst: the address to answer from, also for a broadcast.
		m.Local = Local{netip.AddrFrom4([4]byte(data[4:8])), binary.NativeEndian.Uint32(data)}
	case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		m.Local = Local{netip.AddrFrom16([16]byte(data[:16])), binary.NativeEndian.Uint32(data[16:])}
	}
}
