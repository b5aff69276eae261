package hostsock

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// DialUDP makes a UDP socket connected to to, from src, with the error queue on, and
// datagrams joined where the kernel does that well.
func DialUDP(to netip.AddrPort, src *Source) (fd int, errno unix.Errno) {
	fd, errno = socket(to.Addr(), unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if errno != 0 {
		return -1, errno
	}
	ReportErrors(fd, to.Addr())
	JoinDatagrams(fd)
	// A sandbox that may reach a broadcast address by unicast routes is still
	// not to send broadcasts: SO_BROADCAST stays off and connect says EACCES.
	if errno = src.Bind(fd, to.Addr()); errno == 0 {
		errno = ConnectTo(fd, to)
	}
	if errno != 0 {
		unix.Close(fd)
		return -1, errno
	}
	return fd, 0
}

// ReportErrors turns the error queue of a socket on (IP_RECVERR).
func ReportErrors(fd int, of netip.Addr) { setErrorQueue(fd, of, 1) }

// IgnoreErrors turns it off again.
func IgnoreErrors(fd int, of netip.Addr) { setErrorQueue(fd, of, 0) }

func setErrorQueue(fd int, of netip.Addr, on int) {
	if of.Is4() {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, on)
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, on)
}

// SetTTL sets the TTL or hop limit of what fd sends from now on.
func SetTTL(fd int, of netip.Addr, ttl uint8) {
	if ttl == 0 { // 0 is not a TTL that a host may send with
		return
	}
	if of.Is4() {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, int(ttl))
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, int(ttl))
}
