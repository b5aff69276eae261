package userns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Found is what is on an interface.
type Found struct {
	// Addresses with the length of their subnets, IPv4 first; no link-local
	// ones of IPv6, which the kernel makes for itself.
	Addresses []netip.Prefix
	// Gateways are next hops of default routes over the interface, at most one
	// of each family.
	Gateways []netip.Addr
	// HardwareAddr of the interface: the destination of frames to the sandbox.
	HardwareAddr net.HardwareAddr
	// MTU in bytes, without the Ethernet header.
	MTU int
	// Up: the interface has been brought up.
	Up bool
}

func (f Found) equal(g Found) bool {
	return slices.Equal(f.Addresses, g.Addresses) && slices.Equal(f.Gateways, g.Gateways) &&
		slices.Equal(f.HardwareAddr, g.HardwareAddr) && f.MTU == g.MTU && f.Up == g.Up
}

// maxFound bounds the addresses reported of an interface.
const maxFound = 256

// learn reads what is on an interface of the current network namespace.
func learn(name string) (Found, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Found{}, fmt.Errorf("find %s: %w", name, err)
	}
	a := link.Attrs()
	f := Found{HardwareAddr: a.HardwareAddr, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0}
	for _, v := range families {
		list, err := netlink.AddrList(link, v.family)
		if err != nil {
			return Found{}, fmt.Errorf("list %s addresses of %s: %w", v.name, name, err)
		}
		f.Addresses = append(f.Addresses, foundAddresses(list)...)
		routes, err := defaultRoutes(v.family)
		if err != nil {
			return Found{}, fmt.Errorf("list %s routes: %w", v.name, err)
		}
		for _, r := range routes {
			if r.device == name && r.gateway.IsValid() {
				f.Gateways = append(f.Gateways, r.gateway)
				break
			}
		}
	}
	f.Addresses = f.Addresses[:min(len(f.Addresses), maxFound)]
	return f, nil
}

func foundAddresses(list []netlink.Addr) []netip.Prefix {
	var found []netip.Prefix
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		if !ok || addr.Is6() && addr.IsLinkLocalUnicast() {
			continue
		}
		bits, _ := a.Mask.Size()
		found = append(found, netip.PrefixFrom(addr, bits))
	}
	return found
}

// families are those of the addresses that we know.
var families = []struct {
	family, number int
	name           string
}{{netlink.FAMILY_V4, 4, "IPv4"}, {netlink.FAMILY_V6, 6, "IPv6"}}

// gatewayOf picks the gateway of a family.
func gatewayOf(list []netip.Addr, family int) (netip.Addr, bool) {
	for _, a := range list {
		if a.Is4() == (family == netlink.FAMILY_V4) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// hop is one way out of a default route; without a gateway, straight over the
// device.
type hop struct {
	gateway netip.Addr
	device  string
}

func (h hop) String() string {
	if !h.gateway.IsValid() {
		return "dev " + h.device
	}
	return "via " + h.gateway.String() + " dev " + h.device
}

// defaultRoutes lists the next hops of the default routes of a family.
func defaultRoutes(family int) ([]hop, error) {
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	var hops []hop
	add := func(index int, gw net.IP) {
		addr, _ := netip.AddrFromSlice(gw)
		if _, ok := names[index]; !ok {
			names[index] = deviceName(index)
		}
		if names[index] != "" {
			hops = append(hops, hop{addr.Unmap(), names[index]})
		}
	}
	for _, r := range routes {
		if !isDefault(r.Dst) || r.Type != unix.RTN_UNICAST {
			continue
		}
		if len(r.MultiPath) == 0 {
			add(r.LinkIndex, r.Gw)
		}
		for _, n := range r.MultiPath {
			add(n.LinkIndex, n.Gw)
		}
	}
	return hops, nil
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}

// deviceName is the name of a device; empty if it has gone, as its routes then have.
func deviceName(index int) string {
	link, err := netlink.LinkByIndex(index)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		return ""
	case err != nil:
		return fmt.Sprintf("#%d", index)
	}
	return link.Attrs().Name
}

// subscribe returns a channel that is readable when something about
// interfaces, addresses or routes has changed; nil if that cannot be had.
func (p *attachProcess) subscribe() <-chan struct{} {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		p.note("addresses that are added later will not be seen: %v", err)
		return nil
	}
	changes := make(chan struct{}, 1)
	go func() {
		for {
			// What is said does not matter, nor that something was lost
			// (ENOBUFS): everything is read anew.
			if _, _, err := s.Receive(); err != nil && err != unix.ENOBUFS && err != unix.EINTR {
				s.Close()
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes
}
