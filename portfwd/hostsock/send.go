package hostsock

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mostPieces is how many datagrams a Sender collects, and no more than the
// kernel cuts out of one send (UDP_MAX_SEGMENTS, 64 before Linux 6.9).
const mostPieces = 64

// mostBytes is what one send with UDP_SEGMENT may carry, headers excluded.
const mostBytes = 65000

// Sender collects datagrams for one socket and sends them in as few system
// calls as it can: one with UDP_SEGMENT if they are of one size, one sendmmsg
// if not. It points to the payloads and does not copy them.
type Sender struct {
	iovs  [mostPieces]unix.Iovec
	msgs  [mostPieces]mmsghdr
	n     int // pieces collected
	bytes int
	size  int // of every piece so far but the last; meaningful while uniform
	even  bool

	// NoGSO is set for good when the kernel or a network card below it does
	// not do UDP_SEGMENT.
	NoGSO bool

	name       *byte
	nameLen    uint32
	segment    [32]byte // control message: UDP_SEGMENT
	packetInfo [64]byte // control message: the address to send from
	infoLen    int
}

// To makes the sender send from and to these addresses, for a socket that is
// not connected. to must stay until Send. Without To, or after To(nil, …), the
// socket's own are used.
func (s *Sender) To(to *Address, from Local) {
	s.name, s.nameLen, s.infoLen = nil, 0, 0
	if to == nil {
		return
	}
	s.name, s.nameLen = to.pointer(), to.length
	if !from.Addr.IsValid() {
		return
	}
	if from.Addr.Is4() {
		data := putControl(s.packetInfo[:], unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		clear(data)
		a := from.Addr.As4()
		copy(data[4:8], a[:])
		s.infoLen = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
		return
	}
	data := putControl(s.packetInfo[:], unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := from.Addr.As16()
	copy(data, a[:])
	index := uint32(0)
	if from.Addr.IsLinkLocalUnicast() {
		index = from.Index
	}
	binary.NativeEndian.PutUint32(data[16:], index)
	s.infoLen = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// Len is the number of datagrams collected.
func (s *Sender) Len() int { return s.n }

// Add collects one datagram. It reports false, and leaves it out, when there is
// no room: Send first.
func (s *Sender) Add(p []byte) bool {
	if s.n == mostPieces {
		return false
	}
	switch {
	case s.n == 0:
		s.size, s.even = len(p), len(p) > 0
	case s.bytes != s.n*s.size || len(p) > s.size || len(p) == 0:
		s.even = false // a shorter one came before, or this is longer
	}
	v := &s.iovs[s.n]
	v.Base = nil
	if len(p) > 0 {
		v.Base = &p[0]
	}
	v.SetLen(len(p))
	s.n++
	s.bytes += len(p)
	return true
}

// AddSegments collects the datagrams of size bytes that p consists of, the last
// one perhaps shorter, as far as there is room, and returns what is left of p.
func (s *Sender) AddSegments(p []byte, size int) []byte {
	for len(p) > 0 {
		n := min(size, len(p))
		if !s.Add(p[:n]) {
			break
		}
		p = p[n:]
	}
	return p
}

// Drop forgets what is collected.
func (s *Sender) Drop() {
	clear(s.iovs[:s.n])
	s.n, s.bytes = 0, 0
}

// Send sends what is collected, in order. It returns how many datagrams the
// socket took, and why it took no more; what is collected stays until Drop or
// Retry.
func (s *Sender) Send(fd int) (sent int, errno unix.Errno) {
	if s.n > 1 && s.even && !s.NoGSO && s.bytes <= mostBytes {
		errno = s.sendSegmented(fd)
		switch errno {
		case 0:
			return s.n, 0
		case unix.EIO, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
			// EIO: no checksum offload below us. The others: no such option.
			s.NoGSO = true
		case unix.EINVAL, unix.EMSGSIZE:
			// Segments longer than the path's MTU can only be sent one by one,
			// in fragments.
		default:
			return 0, errno
		}
	}
	return s.sendEach(fd)
}

// Retry drops the first sent datagrams and keeps the rest for another Send. It
// reports whether there is a rest.
func (s *Sender) Retry(sent int) bool {
	for i := range s.iovs[:sent] {
		s.bytes -= int(s.iovs[i].Len)
	}
	copy(s.iovs[:], s.iovs[sent:s.n])
	clear(s.iovs[s.n-sent : s.n])
	s.n -= sent
	return s.n > 0
}

func (s *Sender) sendSegmented(fd int) unix.Errno {
	h := &s.msgs[0].hdr
	*h = unix.Msghdr{Name: s.name, Namelen: s.nameLen, Iov: &s.iovs[0]}
	h.SetIovlen(s.n)
	data := putControl(s.segment[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(s.size))
	if s.infoLen > 0 {
		// Both in one buffer: the segment size after the packet info.
		n := copy(s.packetInfo[s.infoLen:], s.segment[:unix.CmsgSpace(2)])
		h.Control = &s.packetInfo[0]
		h.SetControllen(s.infoLen + n)
	} else {
		h.Control = &s.segment[0]
		h.SetControllen(unix.CmsgSpace(2))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno
		}
	}
}

func (s *Sender) sendEach(fd int) (sent int, errno unix.Errno) {
	for i := range s.msgs[:s.n] {
		h := &s.msgs[i].hdr
		*h = unix.Msghdr{Name: s.name, Namelen: s.nameLen, Iov: &s.iovs[i]}
		h.SetIovlen(1)
		if s.infoLen > 0 {
			h.Control = &s.packetInfo[0]
			h.SetControllen(s.infoLen)
		}
	}
	for sent < s.n {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msgs[sent])),
			uintptr(s.n-sent), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return sent, errno
		}
		sent += int(n)
	}
	return sent, 0
}

// putControl writes a control message's header and returns the place for its
// data. CmsgSpace(n) bytes of b are used.
func putControl(b []byte, level, kind, n int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(n))
	return b[unix.CmsgLen(0):unix.CmsgLen(n)]
}
