package hostsock

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// JoinDatagrams has the kernel hand over the datagrams of one flow joined
// (UDP_GRO), where it does so safely: before Linux 5.12 a joined datagram could
// reach a socket that had not asked for it (net/ipv4/udp_offload.c).
func JoinDatagrams(fd int) {
	if groIsSafe() {
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}
}

var groIsSafe = sync.OnceValue(func() bool { return kernelAtLeast(5, 12) })

// RoutesAnew reports whether the packets of a live connection follow a new routing
// rule for just that one, at once.
func RoutesAnew(v6 bool) bool {
	if v6 {
		return rulesFor6()
	}
	return rulesFor4()
}

var (
	rulesFor4 = sync.OnceValue(func() bool { return routesAnew(release(), false) })
	rulesFor6 = sync.OnceValue(func() bool { return routesAnew(release(), true) })
)

// routesAnew: rules know ports since Linux 4.17; before, the kernel takes the rest of
// one, and says nothing, and it is for everything between two addresses. Live
// connections of IPv6 follow from Linux 6.9 on; before, only after several
// retransmissions.
func routesAnew(release string, v6 bool) bool {
	if v6 {
		return releaseAtLeast(release, 6, 9)
	}
	return releaseAtLeast(release, 4, 17)
}

func kernelAtLeast(major, minor int) bool { return releaseAtLeast(release(), major, minor) }

// release is the kernel's, or empty.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// releaseAtLeast compares a kernel release such as 6.1.0-18-amd64 with a
// version. A release that it cannot read is none.
func releaseAtLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
