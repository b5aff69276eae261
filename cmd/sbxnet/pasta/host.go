package pasta

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/console"
)

// A hostFamily is how the host itself reaches the world in one address family.
// The zero value: it does not.
type hostFamily struct {
	// Interface is the one of the default route.
	Interface string
	// Address is the host's on it, with the length of its subnet.
	Address netip.Prefix
	// Gateway is the default route's next hop; zero on links that need none.
	Gateway netip.Addr
}

// on reports whether there is anything to copy.
func (h hostFamily) on() bool { return h.Address.IsValid() }

// readHost looks at this network namespace. A name makes that interface the
// family's, whether a default route leads over it or not.
func readHost(family int, name string) (hostFamily, error) {
	if name != "" {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return hostFamily{}, refusef("Invalid interface name %s: %s", console.Shown(name), noDevice(err))
		}
		return onLink(family, link)
	}
	route, err := defaultRoute(family)
	if err != nil || route == nil {
		return hostFamily{}, err
	}
	link, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return hostFamily{}, fmt.Errorf("find the interface of the default route: %w", err)
	}
	h := hostFamily{Interface: link.Attrs().Name, Gateway: toAddr(route.Gw)}
	h.Address, err = addressOf(family, link, h.Gateway, toAddr(route.Src))
	return h, err
}

func noDevice(err error) error {
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return unix.ENODEV
	}
	return err
}

// onLink is what an interface that was named has: its address, and the gateway
// of its own default route.
func onLink(family int, link netlink.Link) (hostFamily, error) {
	h := hostFamily{Interface: link.Attrs().Name}
	var src netip.Addr
	routes, err := defaultRoutes(family)
	if err != nil {
		return h, err
	}
	for _, r := range routes {
		if r.LinkIndex == link.Attrs().Index {
			h.Gateway, src = toAddr(r.Gw), toAddr(r.Src)
			break
		}
	}
	h.Address, err = addressOf(family, link, h.Gateway, src)
	return h, err
}

// somewhere are addresses that only a default route leads to. Nothing is sent
// there: the kernel is asked which way it would go.
var somewhere = map[int]net.IP{
	unix.AF_INET:  net.IPv4(1, 1, 1, 1).To4(),
	unix.AF_INET6: net.ParseIP("2606:4700:4700::1111"),
}

// defaultRoute is the main table's default route of the lowest metric, else the
// route that policy or the halves of a VPN lead the world over; nil for none.
func defaultRoute(family int) (*netlink.Route, error) {
	routes, err := defaultRoutes(family)
	if err != nil {
		return nil, err
	}
	if len(routes) > 0 {
		return &routes[0], nil
	}
	routes, err = netlink.RouteGet(somewhere[family])
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return nil, nil // that there is no way is no failure
	}
	return &routes[0], nil
}

// defaultRoutes are the usable default routes of the main table, best first. Of
// one with several next hops it is the first.
func defaultRoutes(family int) ([]netlink.Route, error) {
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		if family == unix.AF_INET6 {
			return nil, nil // a kernel without IPv6
		}
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var found []netlink.Route
	for _, r := range list {
		if !isDefault(r.Dst) || r.Type != unix.RTN_UNICAST {
			continue
		}
		if len(r.MultiPath) > 0 {
			r.LinkIndex, r.Gw = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
		}
		if r.LinkIndex != 0 {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	return found, nil
}

func isDefault(n *net.IPNet) bool {
	if n == nil {
		return true
	}
	ones, _ := n.Mask.Size()
	return ones == 0 && n.IP.IsUnspecified()
}

// addressOf chooses among an interface's addresses: the route's source, else one
// whose subnet has the gateway in it, else the first that others can reach.
func addressOf(family int, link netlink.Link, gateway, src netip.Addr) (netip.Prefix, error) {
	list, err := netlink.AddrList(link, family)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	var first, near netip.Prefix
	for _, a := range list {
		p, ok := usable(a)
		switch {
		case !ok:
		case p.Addr() == src:
			return p, nil
		case !first.IsValid():
			first = p
		}
		if ok && !near.IsValid() && gateway.IsValid() && p.Contains(gateway) {
			near = p
		}
	}
	if near.IsValid() {
		return near, nil
	}
	return first, nil
}

// usable reports an address that the sandbox can have too.
func usable(a netlink.Addr) (netip.Prefix, bool) {
	const dying = unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	addr := toAddr(a.IP)
	if !addr.IsValid() || !acceptableSandbox(addr) || addr.Is6() && a.Flags&dying != 0 {
		return netip.Prefix{}, false
	}
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(addr, ones), ones > 0
}

// toAddr is the zero Addr for no IP.
func toAddr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}
