package portfwd

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// What else there is to reach from the namespace that plays the host is routes
// that fail in a known way.
const (
	unreachable4_ = "203.0.113.1"     // connect: EHOSTUNREACH
	prohibited4   = "203.0.113.129"   // connect: EACCES
	noRoute4      = "192.0.2.1"       // connect: ENETUNREACH
	noRoute6      = "2001:db8:ffff::" //
)

// The host has these as well: a neighbour's, to a sandbox that shares outside4
// and outside6, and an interface that leads nowhere.
const (
	neighbor4, neighbor6 = "198.51.100.7", "2001:db8:1::7"
	nowhere              = "nowhere0"
)

func TestMain(m *testing.M) { lab.Main(m, addRoutes) }

func addRoutes() error {
	for dst, kind := range map[string]int{unreachable4_ + "/32": unix.RTN_UNREACHABLE, prohibited4 + "/32": unix.RTN_PROHIBIT} {
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: prefix, Type: kind}); err != nil {
			return fmt.Errorf("add route to %s: %w", dst, err)
		}
	}
	if err := addNeighbor(); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
}

func addNeighbor() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range []string{neighbor4 + "/32", neighbor6 + "/128"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nowhere}, PeerName: "nowhere1"}
	if err := lab.AwaitAddress(neighbor6); err != nil {
		return err
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s: %w", nowhere, err)
	}
	return netlink.LinkSetUp(veth)
}

// deleteLink removes an interface of the namespace it is called in.
func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}
