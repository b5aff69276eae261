package hostsock

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Source is where a socket's packets leave the host from: an address of the
// host's, an interface, both, or with the zero Source whatever the kernel
// chooses.
type Source struct {
	Addr      netip.Addr
	Interface string
}

// Bind binds a socket of a's family that is not connected yet. The port is left
// to connect, which then needs one that is free for its destination only
// (IP_BIND_ADDRESS_NO_PORT, ip(7)).
func (s *Source) Bind(fd int, of netip.Addr) unix.Errno {
	if s.Interface != "" {
		if err := unix.BindToDevice(fd, s.Interface); err != nil {
			return errnoOf(err)
		}
	}
	if !s.Addr.IsValid() {
		return 0
	}
	if s.Addr.Is4() != of.Is4() {
		return unix.EADDRNOTAVAIL
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	return bindTo(fd, netip.AddrPortFrom(s.Addr, 0))
}

// Probe says whether a socket of a's family can be bound to s.
func Probe(of netip.Addr, s *Source) unix.Errno {
	fd, errno := socket(of, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return s.Bind(fd, of)
}

// BindTo binds a socket to an address and port, which for a transparent one need
// not be the host's.
func BindTo(fd int, at netip.AddrPort) unix.Errno { return bindTo(fd, at) }
