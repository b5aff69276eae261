package slirp4netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// inherit takes a descriptor that the caller left open for us and keeps it from
// the processes that we start. flag names it in errors.
//
// The runtime has opened descriptors of its own by now, and closed ones of a
// caller may have gone to it. Those are close-on-exec and so cannot have been
// inherited.
func inherit(flag string, fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return fmt.Errorf("%s %d: the caller left no such descriptor open; open it, without close-on-exec", flag, fd)
	}
	unix.CloseOnExec(fd)
	return nil
}

// announce writes "1" to ready-fd and closes it: the namespace has its network.
func announce(fd int) error {
	if fd == noFD {
		return nil
	}
	_, err := unix.Write(fd, []byte("1"))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("--ready-fd %d: tell the caller: %w", fd, err)
	}
	return nil
}

// hangUp returns a channel that is closed when all writers of exit-fd have
// closed it; with noFD it never is. What they write is not read.
func hangUp(fd int) <-chan struct{} {
	gone := make(chan struct{})
	if fd == noFD {
		return gone
	}
	go func() {
		watched := []unix.PollFd{{Fd: int32(fd)}} // a hang-up is always reported
		for {
			_, err := unix.Poll(watched, -1)
			if err == nil && watched[0].Revents != 0 {
				close(gone)
				return
			}
			if err != nil && err != unix.EINTR {
				return
			}
		}
	}()
	return gone
}
