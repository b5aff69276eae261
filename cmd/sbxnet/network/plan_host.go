package network

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HostPrefixes reads the destinations of all routes of this network namespace,
// every table, the local one with the host's own addresses included. Routes
// that only say no (unreachable, blackhole, prohibit) are left out: there is
// nothing behind them to hide.
func HostPrefixes() ([]HostPrefix, error) {
	links := map[int]string{}
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the host's interfaces: %w", err)
	}
	for _, l := range list {
		links[l.Attrs().Index] = l.Attrs().Name
	}
	var out []HostPrefix
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		// Table 0 with the filter bit set means all of them.
		routes, err := netlink.RouteListFiltered(fam, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			if fam == unix.AF_INET6 {
				continue // a kernel without IPv6 has no routes to collide with
			}
			return nil, fmt.Errorf("list the host's routes: %w", err)
		}
		for _, r := range routes {
			if p, ok := destination(r); ok {
				out = append(out, HostPrefix{Prefix: p, What: routeName(r, links)})
			}
		}
	}
	return out, nil
}

// destination is the block that a usable route leads to.
func destination(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	switch r.Type {
	case unix.RTN_UNICAST, unix.RTN_LOCAL:
	default:
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	bits, size := r.Dst.Mask.Size()
	if size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}

func routeName(r netlink.Route, links map[int]string) string {
	if name, ok := links[r.LinkIndex]; ok {
		return name
	}
	if r.Table != unix.RT_TABLE_MAIN && r.Table != 0 {
		return fmt.Sprintf("routing table %d", r.Table)
	}
	return "a route"
}
