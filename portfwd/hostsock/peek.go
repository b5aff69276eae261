package hostsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receive copies what a stream socket has to p, which is not empty. 0 with errno 0
// is the end of the stream.
func Receive(fd int, p []byte) (int, unix.Errno) { return receive(fd, p, 0) }

// Peek is Receive that leaves what it copies in the socket.
func Peek(fd int, p []byte) (int, unix.Errno) { return receive(fd, p, unix.MSG_PEEK) }

func receive(fd int, p []byte, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Discard takes up to n bytes from a stream socket and copies them nowhere
// (MSG_TRUNC, tcp(7)). Bytes that were seen by Peek are all there.
func Discard(fd, n int) (int, unix.Errno) {
	for {
		k, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(k), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
