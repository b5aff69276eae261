package hostsock

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Report is an entry of a socket's error queue (IP_RECVERR): why a datagram
// that was sent did not arrive.
type Report struct {
	Errno unix.Errno
	// Origin is SO_EE_ORIGIN_ICMP, _ICMP6 or _LOCAL.
	Origin     uint8
	Type, Code uint8 // of the ICMP message
	// Info is the path MTU for EMSGSIZE.
	Info uint32
	// Offender is who sent the ICMP message, the zero Addr for a local error.
	Offender netip.Addr
	// To is where the datagram was going.
	To netip.AddrPort
	// Payload is what the error quoted of the datagram's payload, and
	// PayloadLen its length before it was cut to fit here. Payload is good
	// until the next call.
	Payload    []byte
	PayloadLen int
}

// ErrorQueue is the memory that reports are read with; a shard has one.
type ErrorQueue struct {
	payload [512]byte
	control [256]byte
	name    Address
	iov     unix.Iovec
	msg     unix.Msghdr
}

// Next takes the oldest report from fd's error queue. That also clears the
// error pending on the socket, if nothing is left.
func (q *ErrorQueue) Next(fd int) (Report, bool) {
	q.iov.Base = &q.payload[0]
	q.iov.SetLen(len(q.payload))
	q.msg = unix.Msghdr{Name: q.name.pointer(), Namelen: unix.SizeofSockaddrInet6, Iov: &q.iov, Control: &q.control[0]}
	q.msg.SetIovlen(1)
	q.msg.SetControllen(len(q.control))
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&q.msg)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return Report{}, false
		}
		return q.report(int(n)), true
	}
}

func (q *ErrorQueue) report(n int) Report {
	q.name.length = q.msg.Namelen
	r := Report{Payload: q.payload[:min(n, len(q.payload))], PayloadLen: n, To: q.name.AddrPort()}
	control := q.control[:min(int(q.msg.Controllen), len(q.control))]
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR || h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR {
			r.extended(data)
		}
		control = rest
	}
	return r
}

// extended reads a struct sock_extended_err and the address that follows it
// (SO_EE_OFFENDER).
func (r *Report) extended(data []byte) {
	const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
	if len(data) < size {
		return
	}
	e := (*unix.SockExtendedErr)(unsafe.Pointer(&data[0]))
	r.Errno, r.Origin, r.Type, r.Code, r.Info = unix.Errno(e.Errno), e.Origin, e.Type, e.Code, e.Info
	if r.Origin == unix.SO_EE_ORIGIN_LOCAL {
		return
	}
	var a Address
	rest := data[size:]
	a.length = uint32(copy((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&a.raw))[:], rest))
	r.Offender = a.AddrPort().Addr()
}
