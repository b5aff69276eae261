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

var groIsSafe = sync.OnceValue(func() bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && releaseAtLeast(unix.ByteSliceToString(u.Release[:]), 5, 12)
})

// releaseAtLeast compares a kernel release such as 6.1.0-18-amd64 with a
// version. A release that it cannot read is none.
func releaseAtLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
