package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/dns"
)

// What the demo's page shows of the sandbox is read inside it, from the kernel
// and its files, not handed in: the page shows what a program there would see.

// surroundings are what the checks try to reach.
type surroundings struct {
	gateways    []netip.Addr
	nameservers []netip.AddrPort
}

type shownAddress struct{ Interface, Address string }

func addresses() []shownAddress {
	var out []shownAddress
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			out = append(out, shownAddress{i.Name, a.String()})
		}
	}
	return out
}

type shownRoute struct{ To, Via string }

func routes() []shownRoute {
	var out []shownRoute
	for _, r := range kernelRoutes() {
		to := "default"
		if !isDefault(r) {
			to = r.Dst.String()
		}
		via := ""
		if r.Gw != nil {
			via = "via " + r.Gw.String() + " "
		}
		if l, err := net.InterfaceByIndex(r.LinkIndex); err == nil {
			via += "dev " + l.Name
		}
		out = append(out, shownRoute{to, via})
	}
	return out
}

// gateways are the next hops of the default routes: the stack's own addresses.
func gateways() []netip.Addr {
	var out []netip.Addr
	for _, r := range kernelRoutes() {
		if a, ok := netip.AddrFromSlice(r.Gw); ok && isDefault(r) {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func kernelRoutes() []netlink.Route {
	var all []netlink.Route
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.RouteList(nil, fam)
		if err != nil {
			continue // a kernel without the family
		}
		all = append(all, list...)
	}
	return all
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// nameservers are those of the sandbox's resolv.conf.
func nameservers() []netip.AddrPort {
	conf, err := dns.ReadConf(network.ResolvConf)
	if err != nil {
		return nil
	}
	return conf.Nameservers
}

func resolverText() string {
	text, err := os.ReadFile(network.ResolvConf)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// linkText says what the sandbox's interface is. Its kernel driver tells a TAP
// from the end of a veth pair.
func linkText() string {
	l, err := netlink.LinkByName(interfaceName)
	if err != nil {
		return ""
	}
	kind := "a packet link (veth)"
	if l.Type() == "tuntap" {
		kind = "a TAP device"
	}
	return fmt.Sprintf("%s is %s, MTU %d", interfaceName, kind, l.Attrs().MTU)
}
