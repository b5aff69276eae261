package lab

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The mark of sockets inside that stand for clients, and the table by which the
// answers come back to them.
const (
	insideMark  = 0x5b58
	insideTable = 0x5b58
)

// AllowInside sets up the sandbox so that Inside works, called inside it: what
// answers a marked packet has the mark, too, and comes back if it is from one of the
// sandbox's addresses. Everything else that has it goes nowhere.
func AllowInside() error {
	for _, name := range []string{"ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for family, servers := range map[int][]string{
		unix.AF_INET: {Sandbox4 + "/32", "127.0.0.0/8"}, unix.AF_INET6: {Sandbox6 + "/128", "::1/128"},
	} {
		all := &net.IPNet{IP: make(net.IP, net.IPv4len), Mask: make(net.IPMask, net.IPv4len)}
		if family == unix.AF_INET6 {
			all = &net.IPNet{IP: make(net.IP, net.IPv6len), Mask: make(net.IPMask, net.IPv6len)}
		}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: insideTable}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add route %s: %w", all, err)
		}
		for _, from := range servers {
			_, src, err := net.ParseCIDR(from)
			if err != nil {
				return err
			}
			if err := addRule(family, 100, func(r *netlink.Rule) { r.Src, r.Table = src, insideTable }); err != nil {
				return err
			}
		}
		if err := addRule(family, 101, func(r *netlink.Rule) { r.Type = unix.RTN_UNREACHABLE }); err != nil {
			return err
		}
	}
	return nil
}

func addRule(family, priority int, also func(*netlink.Rule)) error {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Priority = family, insideMark, priority
	also(r)
	if err := netlink.RuleAdd(r); err != nil {
		return fmt.Errorf("add rule %d: %w", priority, err)
	}
	return nil
}

// ForbidInside takes the rules away, called inside: nothing comes back.
func ForbidInside() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Mark == insideMark {
				if err := netlink.RuleDel(&r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Inside makes sockets that can stand for clients, as userns.Sandbox.Sockets does.
func (th *Thread) Inside(v6 bool, n int) (files []*os.File, err error) {
	for range n {
		var f *os.File
		if th.Do(func() { f, err = insideSocket(v6) }); err != nil {
			break
		}
		files = append(files, f)
	}
	return files, err
}

func insideSocket(v6 bool) (*os.File, error) {
	family, level, transparent := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
	if v6 {
		family, level, transparent = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for _, o := range [][3]int{
		{level, transparent, 1}, {unix.SOL_SOCKET, unix.SO_MARK, insideMark},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), "socket inside"), nil
}
