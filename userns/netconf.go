package userns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// bringUpLoopback is all the network that a sandbox without one has.
func bringUpLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// tuneNamespace sets what holds for the whole network namespace.
func tuneNamespace(note func(string, ...any)) {
	if gids, err := readMap("/proc/self/gid_map"); err == nil {
		low, high := pingGroups(gids)
		if err := setSysctl("net/ipv4/ping_group_range", fmt.Sprintf("%d %d", low, high)); err != nil {
			note("ping in the sandbox needs CAP_NET_RAW: %v", err)
		}
	}
	// Every server may take its usual port: ports of the sandbox are nobody
	// else's.
	if err := setSysctl("net/ipv4/ip_unprivileged_port_start", "0"); err != nil {
		note("ports below 1024 in the sandbox are for its root: %v", err)
	}
	// The strictest of this and an interface's own holds, and the host's value
	// was inherited. Clients keep their own addresses, whatever they are.
	_ = setSysctl("net/ipv4/conf/all/rp_filter", "0")
}

// maxPingGroup is the kernel's limit (GID_T_MAX, include/net/ping.h).
const maxPingGroup = 1<<31 - 1

// pingGroups picks the group IDs, as seen inside, that may open ping sockets:
// as many as one range can hold, group 0 in any case. The kernel compares
// group IDs as they are outside (ping_init_sock, net/ipv4/ping.c), and takes a
// range that is reversed there for an empty one.
func pingGroups(m []extent) (low, high uint32) {
	var first, last extent // by outside ID
	zero := extent{}
	for i, e := range m {
		if i == 0 || e.outside < first.outside {
			first = e
		}
		if i == 0 || e.outside > last.outside {
			last = e
		}
		if e.inside == 0 {
			zero = e
		}
	}
	low, high = first.inside, min(last.inside+last.size-1, maxPingGroup)
	if low > high {
		// Ranges below the caller's own ID: its own block, at least.
		return 0, min(max(zero.size, 1)-1, maxPingGroup)
	}
	return low, high
}

// configureLink gives the link its addresses, sets it up, and routes everything
// over it.
func configureLink(s *setup, note func(string, ...any)) error {
	name := s.Link.Name
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	hasV6 := tuneLink(name, wantsIPv6(s.Addresses), note)
	for _, p := range s.Addresses {
		if p.Addr().Is6() && !hasV6 {
			continue
		}
		if err := netlink.AddrReplace(link, linkAddress(p)); err != nil {
			return fmt.Errorf("address %s on %s: %w", p, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, gw := range s.Gateways {
		if gw.Is6() && !hasV6 {
			continue
		}
		if err := netlink.RouteReplace(defaultRoute(link, gw)); err != nil {
			return fmt.Errorf("default route by %s on %s: %w", gw, name, err)
		}
	}
	if hasV6 {
		awaitDelivery(s.Addresses)
	}
	return nil
}

// deliveryWait is far beyond what the kernel's work queue takes, a millisecond
// or two on a machine at rest.
const deliveryWait = time.Second

// awaitDelivery waits until packets to our IPv6 addresses arrive. Without
// duplicate address detection too the kernel installs their local routes from a
// work queue (addrconf_dad_work, net/ipv6/addrconf.c), and drops what comes
// before; the command's first datagrams would get no answer.
func awaitDelivery(addresses []netip.Prefix) {
	deadline := time.Now().Add(deliveryWait)
	for _, p := range addresses {
		for p.Addr().Is6() && !delivered(p.Addr()) && time.Now().Before(deadline) {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// delivered reports whether the routing table has a as an address of ours.
func delivered(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// leaveToNamespace makes a TAP device persistent. It then goes with its network
// namespace, in the background, and not with its last descriptor, whose close
// would take the 10 to 40 ms that the kernel needs to unregister a device
// (__tun_detach, drivers/net/tun.c): longer than all else that sbxnet does.
func leaveToNamespace(info tapdev.Info, files []*os.File) {
	if info.Kind != tapdev.TAP || len(files) == 0 {
		return
	}
	if raw, err := files[0].SyscallConn(); err == nil {
		// Should it fail, closing is slow again, and nothing worse.
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	}
}

// tuneLink sets the sysctls of the link, before it comes up, and reports
// whether IPv6 is there.
func tuneLink(name string, wantV6 bool, note func(string, ...any)) (hasV6 bool) {
	v4 := filepath.Join("net/ipv4/conf", name)
	_ = setSysctl(filepath.Join(v4, "rp_filter"), "0")
	// So that a server bound to 127.0.0.1 can be published.
	if err := setSysctl(filepath.Join(v4, "route_localnet"), "1"); err != nil {
		note("servers on 127.0.0.1 of the sandbox cannot be published: %v", err)
	}
	v6 := filepath.Join("net/ipv6/conf", name)
	if _, err := os.Stat(filepath.Join("/proc/sys", v6)); err != nil {
		if wantV6 {
			note("the sandbox has no IPv6: the kernel has none")
		}
		return false
	}
	if !wantV6 {
		_ = setSysctl(filepath.Join(v6, "disable_ipv6"), "1")
		return false
	}
	// What we configure holds, at once: no router advertisement adds to it and
	// no duplicate detection, on a link with two ends, delays it.
	for key, value := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0", "dad_transmits": "0"} {
		_ = setSysctl(filepath.Join(v6, key), value)
	}
	if err := setSysctl(filepath.Join(v6, "disable_ipv6"), "0"); err != nil {
		note("the sandbox may have no IPv6: %v", err)
	}
	return true
}

func wantsIPv6(addresses []netip.Prefix) bool {
	for _, p := range addresses {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

func linkAddress(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func defaultRoute(link netlink.Link, gw netip.Addr) *netlink.Route {
	bits := gw.BitLen()
	return &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
		Gw:        gw.AsSlice(),
	}
}

// setSysctl writes a file below /proc/sys; those below net are the ones of the
// writer's own network namespace.
func setSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", key)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", path, strconv.Quote(value), err)
	}
	return nil
}
