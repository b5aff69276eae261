package userns

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// # Steering
//
// What a server answers to a socket of Sockets is addressed to the client, whose
// address is not the sandbox's: it would be routed to the link. Three things bring
// it to the socket instead.
//
//   - The answers bear the mark of what they answer: those of an accepted
//     connection by net.ipv4.tcp_fwmark_accept, a RST to who was not accepted by
//     fwmark_reflect. Only packets that are marked already are concerned.
//   - Rules for that mark, before all rules but the one for local addresses: from
//     addresses of the sandbox, with loopback ones, look up a table of our own;
//     everything else that bears it is unreachable.
//   - In the table is one route: to everywhere is local, on lo.
//
// Only who answers has a source address of the sandbox's; who asks has the
// client's. So when a firewall of the sandbox's translates the destination of
// what is asked to that of a container, it does not come to lo, where another
// server may have that port, nor can a socket be connected to anywhere outside.

// steering is how packets with SocketMark are routed in the current network
// namespace.
type steering struct {
	// addresses returns what the sandbox has, and the next hops from it.
	addresses func() ([]netip.Prefix, []netip.Addr, error)
	// link is the interface of the link.
	link string
	// families that were asked for, and the former values of sysctls.
	families map[*steeredFamily]bool
	former   map[string]string
	// diverted are the connections with a rule of Divert's and the priorities of
	// these; diverting is that of new ones, where there is the route as well.
	diverted  map[flow]int
	diverting map[*steeredFamily]int
	// notAccepted: the link took no packets from addresses of ours before there was
	// one that is diverted.
	notAccepted bool
}

// steeredFamily is what differs from one family to the other.
type steeredFamily struct {
	name     string
	family   int
	bits     int
	loopback netip.Prefix
	// outside are for documentation (RFC 5737, RFC 3849): nobody's, but for a sandbox
	// that has one all the same.
	outside [2]netip.Addr
	sysctls []string // to be 1
}

var steeredFamilies = [2]steeredFamily{
	{"IPv4", netlink.FAMILY_V4, 32, netip.MustParsePrefix("127.0.0.0/8"),
		[2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")},
		[]string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect"}},
	{"IPv6", netlink.FAMILY_V6, 128, netip.MustParsePrefix("::1/128"),
		[2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::1")},
		[]string{"net/ipv4/tcp_fwmark_accept", "net/ipv6/fwmark_reflect"}},
}

func familyOf(v6 bool) *steeredFamily {
	if v6 {
		return &steeredFamilies[1]
	}
	return &steeredFamilies[0]
}

// maxSteered bounds the rules of a family.
const maxSteered = 16

// firstPriority is that of our rules where nobody has rules before it.
const firstPriority = 100

// The priorities of our rules: the first, and those after it.
const (
	elsewherePriority = 1 // whatever else has SocketMark
	divertPriority    = 2 // Divert's
	priorities        = 3
)

// ensure sees to it that answers from every address of the family's are steered.
// If they cannot be, nothing has changed.
func (s *steering) ensure(f *steeredFamily) error {
	sources, gateway, err := s.sources(f)
	if err != nil {
		return err
	}
	var done changes
	former, err := f.setSysctls(&done)
	if err == nil && f.check(sources, gateway) != nil {
		err = f.install(sources, gateway, &done)
	}
	if err != nil {
		done.undo()
		return fmt.Errorf("route %s answers to lo: %w", f.name, err)
	}
	if s.families == nil {
		s.families, s.former = map[*steeredFamily]bool{}, map[string]string{}
	}
	s.families[f] = true
	maps.Copy(s.former, former)
	return nil
}

// takeBack undoes everything, for who leaves before the namespace goes.
func (s *steering) takeBack() {
	for c := range s.diverted {
		_ = s.undivert(c)
	}
	for f := range s.diverting {
		if route, err := f.route(); err == nil {
			_ = netlink.RouteDel(route)
		}
	}
	for f := range s.families {
		if ours, _, err := f.rules(); err == nil {
			remove(ours)
		}
		if route, err := f.route(); err == nil {
			_ = netlink.RouteDel(route)
		}
	}
	for key, value := range s.former {
		_ = setSysctl(key, value)
	}
	*s = steering{addresses: s.addresses, link: s.link}
}

// changes are how to undo what was done, in the order in which that was.
type changes []func()

func (c changes) undo() {
	for _, undo := range slices.Backward(c) {
		undo()
	}
}

// remove removes rules, those that others came before last.
func remove(rules []netlink.Rule) {
	for _, r := range slices.Backward(rules) {
		_ = netlink.RuleDel(&r)
	}
}

// sources returns the addresses that servers answer from, and the most common
// one of clients, which may be none.
func (s *steering) sources(f *steeredFamily) (sources []netip.Prefix, gateway netip.Addr, err error) {
	all, gateways, err := s.addresses()
	if err != nil {
		return nil, netip.Addr{}, err
	}
	for _, p := range all {
		if p.Addr().BitLen() == f.bits && len(sources) < maxSteered {
			sources = append(sources, netip.PrefixFrom(p.Addr(), f.bits))
		}
	}
	if len(sources) == 0 {
		return nil, netip.Addr{}, fmt.Errorf("there is no %s address", f.name)
	}
	gateway, _ = gatewayOf(gateways, f.family)
	return append(sources, f.loopback), gateway, nil
}

// setSysctls has answers bear the mark of what they answer, and returns the values
// of sysctls that were others.
func (f *steeredFamily) setSysctls(done *changes) (map[string]string, error) {
	changed := map[string]string{}
	for _, key := range f.sysctls {
		b, err := os.ReadFile(filepath.Join("/proc/sys", key))
		if err != nil {
			return nil, err
		}
		former := strings.TrimSpace(string(b))
		if former == "1" {
			continue
		}
		if err := setSysctl(key, "1"); err != nil {
			return nil, err
		}
		changed[key] = former
		*done = append(*done, func() { _ = setSysctl(key, former) })
	}
	return changed, nil
}

// check asks the kernel where it would send answers, and what else is marked.
func (f *steeredFamily) check(sources []netip.Prefix, gateway netip.Addr) error {
	outside := f.outside[0]
	if slices.Contains(sources, netip.PrefixFrom(outside, f.bits)) {
		outside = f.outside[1]
	}
	for _, to := range []netip.Addr{gateway, outside} {
		for _, from := range sources {
			if !to.IsValid() {
				continue
			}
			from := from.Addr()
			if from == f.loopback.Addr() && from.Is4() {
				from = from.Next() // 127.0.0.1
			}
			routes, err := netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice(), Mark: SocketMark})
			if err != nil {
				return fmt.Errorf("from %s to %s: %w", from, to, err)
			}
			if len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
				return fmt.Errorf("from %s to %s another rule comes before ours", from, to)
			}
		}
	}
	if _, err := netlink.RouteGetWithOptions(outside.AsSlice(), &netlink.RouteGetOptions{Mark: SocketMark}); err == nil {
		return fmt.Errorf("to %s another rule comes before ours", outside)
	}
	return nil
}

// install adds the table and the rules, before the first rule that is not ours,
// and only then removes rules of ours that are elsewhere: connections that there
// are lose none.
func (f *steeredFamily) install(sources []netip.Prefix, gateway netip.Addr, done *changes) error {
	old, priority, err := f.rules()
	if err != nil {
		return err
	}
	if err := f.addRoute(done); err != nil {
		return err
	}
	if err := f.addRules(sources, priority, done); err != nil {
		return err
	}
	if err := f.check(sources, gateway); err != nil {
		return err
	}
	remove(slices.DeleteFunc(old, func(r netlink.Rule) bool {
		return r.Priority == priority || r.Priority == priority+elsewherePriority
	}))
	return nil
}

// addRules adds those for sources at a priority, and after it the one for all else.
func (f *steeredFamily) addRules(sources []netip.Prefix, priority int, done *changes) error {
	var wanted []*netlink.Rule
	for _, from := range sources {
		r := f.rule(priority)
		r.Table, r.Src = SocketMark, ipNet(from)
		wanted = append(wanted, r)
	}
	rest := f.rule(priority + elsewherePriority)
	rest.Type = unix.RTN_UNREACHABLE
	for _, r := range append(wanted, rest) {
		err := netlink.RuleAdd(r)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("add a rule for mark %#x at %d: %w", SocketMark, r.Priority, err)
		}
		*done = append(*done, func() { _ = netlink.RuleDel(r) })
	}
	return nil
}

// rules lists the rules for SocketMark, and finds the priority that ours should have.
func (f *steeredFamily) rules() (ours []netlink.Rule, priority int, err error) {
	all, err := netlink.RuleList(f.family)
	if err != nil {
		return nil, 0, fmt.Errorf("list rules: %w", err)
	}
	priority = firstPriority
	for _, r := range all {
		switch {
		case r.Mark == SocketMark:
			ours = append(ours, r)
		case r.Table == SocketMark: // Divert's
		case r.Priority > 0: // that of 0 is for local addresses
			priority = min(priority, r.Priority-priorities)
		}
	}
	if priority < 1 {
		return nil, 0, fmt.Errorf("there is a rule of priority %d: ours is to come before it", priority+priorities)
	}
	return ours, priority, nil
}

// rule is one for all that is marked.
func (f *steeredFamily) rule(priority int) *netlink.Rule {
	mask := uint32(1<<32 - 1)
	r := netlink.NewRule()
	r.Family, r.Priority, r.Mark, r.Mask = f.family, priority, SocketMark, &mask
	return r
}

// route is what is in the table.
func (f *steeredFamily) route() (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: SocketMark, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		Dst: ipNet(netip.PrefixFrom(f.loopback.Addr(), 0).Masked()),
	}, nil
}

// addRoute fills the table.
func (f *steeredFamily) addRoute(done *changes) error {
	route, err := f.route()
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local default route on lo: %w", err)
	}
	*done = append(*done, func() { _ = netlink.RouteDel(route) })
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
