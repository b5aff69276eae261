package portfwd

import (
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
)

// reserve is a descriptor kept for the moment when there are no others: with it
// a client can be taken from a listening socket's queue and turned away, where
// else it would wait there unanswered.
type reserve struct{ fd int }

func (r *reserve) open() {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		fd = -1
	}
	r.fd = fd
}

func (r *reserve) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}

// refuse resets the client that has waited longest on listener, and reports
// whether it could.
func (r *reserve) refuse(listener int) bool {
	if r.fd < 0 {
		r.open() // perhaps there is one again
	}
	if r.fd < 0 {
		return false
	}
	r.close()
	fd, _, errno := hostsock.Accept(listener)
	if errno == 0 {
		hostsock.Reset(fd)
	}
	r.open()
	return errno == 0
}
