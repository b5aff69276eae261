package userns

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// awaitSteps are how often await looks at its clock, at least: what it is stopped for
// counts as one of them at most. Restarted, ppoll(2) goes by what was left, but a signal
// that is caught, such as SIGCONT, ends it.
const awaitSteps = 20

// await returns when what is polled for has happened, or the other end is gone, or
// os.ErrDeadlineExceeded; time for which the job is stopped does not count. A deadline
// of a connection's, or a timer, would wake a process that has been idle since: the
// runtime keeps one that was stopped until it is due.
func await(c syscall.Conn, events int16, most time.Duration) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	step := max(most/awaitSteps, time.Millisecond)
	e := raw.Control(func(fd uintptr) {
		for left := most; ; {
			began, n := time.Now(), 0
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(min(left, step)/time.Millisecond))
			if n > 0 || err != nil && err != unix.EINTR {
				return
			}
			if left <= 0 {
				err = os.ErrDeadlineExceeded
				return
			}
			left = max(left-max(min(time.Since(began), step), time.Microsecond), 0)
		}
	})
	return errors.Join(e, err)
}

// sendWithin is sendMessage to who may not read. What is sent then has room, as a
// message is far smaller than what the kernel calls writable.
func sendWithin(c *net.UnixConn, most time.Duration, m message, files ...*os.File) error {
	if err := await(c, unix.POLLOUT, most); err != nil {
		return err
	}
	return sendMessage(c, m, files...)
}

// endedBy reports whether an error of a control socket says that an end of it is gone.
func endedBy(err error) bool {
	for _, e := range []error{io.EOF, net.ErrClosed, os.ErrClosed, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
