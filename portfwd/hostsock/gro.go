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
// rule at once, as those of IPv4 do in every kernel. Those of IPv6 do from Linux
// 6.9 on, and before that only after several retransmissions.
func RoutesAnew(v6 bool) bool { return !v6 || rulesFlush6() }

var rulesFlush6 = sync.OnceValue(func() bool { return kernelAtLeast(6, 9) })

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && releaseAtLeast(unix.ByteSliceToString(u.Release[:]), major, minor)
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
