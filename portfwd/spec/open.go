package spec

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The kernel cuts it down to net.core.somaxconn.
const backlog = 65535

// open returns a socket bound to an address of s, listening if it is TCP, and the
// address that it got.
func (s Spec) open(at netip.AddrPort) (fd int, local netip.AddrPort, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if s.Protocol == UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, local, os.NewSyscallError("socket", err)
	}
	if local, err = s.prepare(fd, at); err != nil {
		unix.Close(fd)
		return -1, netip.AddrPort{}, err
	}
	return fd, local, nil
}

const bindToDevice = "setsockopt SO_BINDTODEVICE"

func (s Spec) prepare(fd int, at netip.AddrPort) (local netip.AddrPort, err error) {
	if err := s.setOptions(fd, at.Addr()); err != nil {
		return local, err
	}
	if s.Interface != "" {
		if err := unix.BindToDevice(fd, s.Interface); err != nil {
			return local, os.NewSyscallError(bindToDevice, err)
		}
	}
	sa, err := sockaddr(at)
	if err != nil {
		return local, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return local, os.NewSyscallError("bind", err)
	}
	if s.Protocol == TCP {
		// Two sockets with SO_REUSEADDR may both bind; the second to listen
		// fails, with the same EADDRINUSE.
		if err := unix.Listen(fd, backlog); err != nil {
			return local, os.NewSyscallError("listen", err)
		}
	}
	return boundTo(fd, at.Addr())
}

func (s Spec) setOptions(fd int, a netip.Addr) error {
	type option struct {
		name            string
		level, opt, val int
	}
	var options []option
	if a.Is6() {
		options = append(options, option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	switch {
	case s.Protocol == TCP:
		// For connections of an earlier run that are in TIME-WAIT. Never for
		// UDP, where it would let two sockets share a port.
		options = append(options, option{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	case a.Is6():
		options = append(options, option{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1})
	default:
		options = append(options, option{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1})
	}
	switch {
	case !s.Freebind:
	case a.Is6():
		options = append(options, option{"IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1})
	default:
		options = append(options, option{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, 1})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	return nil
}

func sockaddr(at netip.AddrPort) (unix.Sockaddr, error) {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if zone := at.Addr().Zone(); zone != "" {
		index, err := zoneIndex(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = index
	}
	return sa, nil
}

// zoneIndex is the index of the interface that a zone names, by name or number
// (RFC 4007 §11.2).
func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("no network interface %s: write one that this host has after the %%", shown(zone))
	}
	return uint32(i.Index), nil
}

// boundTo asks the socket for its port; the address, with its zone as the user
// wrote it, is known.
func boundTo(fd int, a netip.Addr) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(a, uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(a, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getsockname: unexpected address %T", sa)
}
