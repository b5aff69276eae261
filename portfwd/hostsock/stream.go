package hostsock

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Connect makes a TCP socket and starts to connect it, from src. An errno of 0 means that
// it is connected already, EINPROGRESS that the reactor will report it writable
// when it is known; fd is good in these two cases only. Unless ttl is 0, the
// socket sends with it, and has the error queue on until [IgnoreErrors].
func Connect(to netip.AddrPort, src *Source, ttl uint8) (fd int, errno unix.Errno) {
	fd, errno = socket(to.Addr(), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if errno != 0 {
		return -1, errno
	}
	TuneStream(fd)
	if ttl != 0 {
		SetTTL(fd, to.Addr(), ttl)
		ReportErrors(fd, to.Addr())
	}
	if errno = src.Bind(fd, to.Addr()); errno == 0 {
		errno = ConnectTo(fd, to)
	}
	if errno != 0 && errno != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, errno
	}
	return fd, errno
}

// TuneStream sets what every relayed TCP socket has: no Nagle delay, since the
// sandbox's kernel has already decided how to cut the stream, and keepalive, so
// that a peer that vanished is noticed (tcp(7), 2 h by default). Urgent bytes are
// read like others, as the stack takes them (RFC 6093 §5).
func TuneStream(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
}

// Unacked is how many bytes the kernel holds of a stream that the peer has not
// acknowledged (SIOCOUTQ, tcp(7)); 0 if it can't say.
func Unacked(fd int) uint64 {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n < 0 {
		return 0
	}
	return uint64(n)
}

// ConnectTo connects a socket of any type, without waiting. As of splice, the runtime
// is told of the call.
func ConnectTo(fd int, to netip.AddrPort) unix.Errno {
	a := MakeAddress(to)
	for {
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.length))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// socket makes a non-blocking socket of addr's family.
func socket(addr netip.Addr, kind, protocol int) (int, unix.Errno) {
	family := unix.AF_INET6
	if addr.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, errnoOf(err)
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			unix.Close(fd)
			return -1, errnoOf(err)
		}
	}
	return fd, 0
}

// Outcome tells how a connect ended that was in progress, 0 for a connection.
// over is false while there is no outcome: the socket may have been reported
// ready all the same, and will be again. Linux (6.18) shows an ICMP error that
// another core is working off in poll before SO_ERROR has it.
func Outcome(fd int) (errno unix.Errno, over bool) {
	if errno := PendingError(fd); errno != 0 {
		return errno, true
	}
	_, err := unix.Getpeername(fd)
	return 0, err == nil
}

// PendingError takes the error that is pending on a socket, or 0.
func PendingError(fd int) unix.Errno {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return errnoOf(err)
	}
	return unix.Errno(v)
}

// Accept takes a connection from a listening socket.
func Accept(listener int) (fd int, from netip.AddrPort, errno unix.Errno) {
	var a Address
	for {
		a.length = unix.SizeofSockaddrInet6
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&a.raw)),
			uintptr(unsafe.Pointer(&a.length)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(n), a.AddrPort(), 0
		case unix.EINTR, unix.ECONNABORTED: // the client went away while it queued
		default:
			return -1, netip.AddrPort{}, errno
		}
	}
}

// StopListening frees a listening socket's port, even if somebody else still has
// a descriptor of it, such as a process that is being started. What waits in its
// queue is reset.
func StopListening(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) }

// Send writes as much of p as the socket takes.
func Send(fd int, p []byte) (int, unix.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// pieces is how many buffers one call gathers or scatters.
const pieces = 4

// Vector is the memory that gathering and scattering calls need; a shard has one.
type Vector struct {
	iov [pieces]unix.Iovec
	msg unix.Msghdr
}

func (v *Vector) set(bufs [][]byte) (n int) {
	for _, b := range bufs {
		if len(b) > 0 && n < pieces {
			v.iov[n].Base = &b[0]
			v.iov[n].SetLen(len(b))
			n++
		}
	}
	return n
}

// Read fills bufs, in order, with what the socket has. 0 with errno 0 is the end
// of the stream. At most four buffers are used.
func (v *Vector) Read(fd int, bufs [][]byte) (int, unix.Errno) {
	n := v.set(bufs)
	return v.retry(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&v.iov)), uintptr(n))
}

// Write sends bufs, in order, as far as the socket takes them. At most four
// buffers are used.
func (v *Vector) Write(fd int, bufs [][]byte) (int, unix.Errno) {
	n := v.set(bufs)
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(n)
	return v.retry(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&v.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// retry makes the call again when a signal interrupted it. Its pointers are to
// the Vector itself, which its callers hold.
func (v *Vector) retry(call uintptr, fd int, a, b uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), a, b)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// ShutdownWrite sends the end of our stream after what was written.
func ShutdownWrite(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }

// Reset closes a TCP socket with a RST, whatever it still holds.
func Reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	unix.Close(fd)
}

// SetReceiveBuffer bounds what a socket receives ahead of its reader, in bytes, by
// no more than net.core.rmem_max. The kernel leaves it alone from then on.
func SetReceiveBuffer(fd, n int) { unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n) }

// Close closes a socket; a TCP socket says goodbye in good order.
func Close(fd int) { unix.Close(fd) }

// CloseForeign is Close for a socket that others have had in their hands: with
// SO_LINGER, close would wait for a peer that may be them (socket(7)).
func CloseForeign(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	unix.Close(fd)
}

func errnoOf(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	return unix.EIO
}
