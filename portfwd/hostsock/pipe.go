package hostsock

import "golang.org/x/sys/unix"

// Pipe is where splice(2) keeps what it has taken from one socket and not yet
// given to another. It holds references to the kernel's buffers, not copies. The
// zero Pipe is none.
type Pipe struct{ read, write int }

// pipeSlots is what an ordinary pipe has room for: each slot takes up to a
// fragment of one of the kernel's buffers. A user who has many pipes gets smaller
// ones (pipe-user-pages-soft, pipe(7)).
const pipeSlots = 16

// OpenPipe makes a pipe with room for size bytes in pages, or for an ordinary
// one's 64 KiB where size is 0 or this user may not have more.
func OpenPipe(size int) (Pipe, unix.Errno) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return Pipe{}, errnoOf(err)
	}
	p := Pipe{fds[0], fds[1]}
	if size > 0 {
		unix.FcntlInt(uintptr(p.write), unix.F_SETPIPE_SZ, size)
	}
	n, err := unix.FcntlInt(uintptr(p.write), unix.F_GETPIPE_SZ, 0)
	if err == nil && n < pipeSlots*unix.Getpagesize() {
		err = unix.ENOSPC
	}
	if err != nil {
		p.Close()
		return Pipe{}, errnoOf(err)
	}
	return p, 0
}

// Open reports whether there is a pipe.
func (p Pipe) Open() bool { return p != Pipe{} }

// Close closes the pipe, and what is in it is lost.
func (p Pipe) Close() {
	unix.Close(p.read)
	unix.Close(p.write)
}

// Fill takes up to n bytes from a socket. 0 with errno 0 is the end of its stream.
// EAGAIN says that the socket has nothing, if the pipe is empty, and else nothing
// at all. Where an urgent byte comes next both may also mean that.
func (p Pipe) Fill(fd, n int) (int, unix.Errno) { return splice(fd, p.write, n) }

// Drain gives up to n bytes to a socket.
func (p Pipe) Drain(fd, n int) (int, unix.Errno) { return splice(p.read, fd, n) }

// Keep puts b into an empty pipe, which has room for 64 KiB, and returns how much of
// it is there: less than all where the kernel has no memory.
func (p Pipe) Keep(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	n, _ := unix.Write(p.write, b)
	return max(n, 0)
}

// splice does not wait: the flag is for the pipe, and the socket is non-blocking.
// But who else has a descriptor of that may take it back, so the runtime is told of
// the call: it would wait with it, before its next collection.
//
// It has no MSG_NOSIGNAL: to write to a socket that is reset raises SIGPIPE, which
// the Go runtime ignores for all but standard output and error.
func splice(from, to, n int) (int, unix.Errno) {
	for {
		k, _, errno := unix.Syscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if errno == 0 {
			return int(k), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
