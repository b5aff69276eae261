package pasta

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// A rule is a forward of one protocol.
type rule struct {
	Protocol spec.Protocol
	forward
}

// rulesOf are the named ports of the options.
func rulesOf(o *options) []rule {
	var rules []rule
	for _, f := range o.TCP.Forwards {
		rules = append(rules, rule{spec.TCP, f})
	}
	for _, f := range o.UDP.Forwards {
		rules = append(rules, rule{spec.UDP, f})
	}
	return rules
}

// String is the rule as an option.
func (r rule) String() string {
	if r.Protocol == spec.UDP {
		return "-u " + r.forward.String()
	}
	return "-t " + r.forward.String()
}

// The addresses that no address stands for.
var (
	everyIPv4 = netip.IPv4Unspecified()
	everyIPv6 = netip.IPv6Unspecified()
)

// specs are the host sockets of a rule. Without an address it has one in each
// family that the host, and the sandbox, have.
func (r rule) specs(wildcards []netip.Addr) []spec.Spec {
	hosts := wildcards
	if r.Host.IsValid() {
		hosts = []netip.Addr{r.Host}
	}
	var out []spec.Spec
	for _, h := range hosts {
		out = append(out, spec.Spec{
			Protocol: r.Protocol, HostIP: h, HostPort: r.First, Port: r.ToFirst,
			Count: int(r.Last-r.First) + 1, Child: r.To, Interface: r.Interface, Freebind: r.Freebind,
		})
	}
	return out
}

// wildcardsFor are the addresses to listen on for every address of the host.
func wildcardsFor(o *options) []netip.Addr {
	var all []netip.Addr
	if !o.V4.Off {
		all = append(all, everyIPv4)
	}
	if !o.V6.Off && hasIPv6() {
		all = append(all, everyIPv6)
	}
	return all
}

// hasIPv6 reports whether the host's kernel can listen on ::.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{}) == nil
}

// bindRules opens the host sockets of the options, before anything else is
// made: that a port is taken is then an error with nothing to clean up.
func bindRules(o *options, wildcards []netip.Addr) ([]spec.Bound, error) {
	var specs []spec.Spec
	for _, r := range rulesOf(o) {
		specs = append(specs, r.specs(wildcards)...)
	}
	bound, err := spec.Bind(specs)
	if err != nil {
		return nil, err
	}
	for _, all := range []struct {
		protocol spec.Protocol
		ports    *ports
	}{{spec.TCP, &o.TCP}, {spec.UDP, &o.UDP}} {
		if !all.ports.All {
			continue
		}
		more, err := bindAll(all.protocol, all.ports.AllTo, all.ports.allPorts(ephemeralPorts()), wildcards)
		if err != nil {
			spec.CloseAll(bound)
			return nil, err
		}
		bound = append(bound, more...)
	}
	return bound, nil
}

// bindAll opens those of the wanted ports that are free and ours to have, at
// least one. That some are not is no failure of "all".
func bindAll(protocol spec.Protocol, to netip.Addr, wanted []uint16, wildcards []netip.Addr) ([]spec.Bound, error) {
	if room := descriptors(); room < len(wildcards)*len(wanted) {
		return nil, fmt.Errorf("all %s ports are %d sockets, and only %d more files may be open: raise the limit with ulimit -n, or name the ports",
			protocol, len(wildcards)*len(wanted), room)
	}
	var bound []spec.Bound
	for _, port := range wanted {
		r := rule{protocol, forward{portRange: portRange{port, port}, To: to, ToFirst: port}}
		for _, s := range r.specs(wildcards) {
			b, err := spec.Bind([]spec.Spec{s})
			if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EACCES) {
				continue
			}
			if err != nil {
				spec.CloseAll(bound)
				return nil, err
			}
			bound = append(bound, b...)
		}
	}
	if len(bound) == 0 {
		return nil, refusef("Failed to bind any port for '%s all', exiting", map[spec.Protocol]string{spec.TCP: "-t", spec.UDP: "-u"}[protocol])
	}
	return bound, nil
}

// allPorts are what All stands for: not the ports that are led elsewhere, nor those
// that programs get as clients.
func (p *ports) allPorts(ephemeral portRange) []uint16 {
	var all []uint16
	for port := 1; port <= 65535; port++ {
		if n := uint16(port); !p.names(n) && !p.excepts(n) && !ephemeral.contains(n) {
			all = append(all, n)
		}
	}
	return all
}

// descriptors are how many more files may be open, roughly.
func descriptors() int {
	const others = 256
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return others
	}
	return int(min(limit.Max, 1<<30)) - others
}

// ephemeralPorts are those that the host gives to clients.
func ephemeralPorts() portRange {
	usual := portRange{32768, 60999}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return usual
	}
	first, err1 := strconv.ParseUint(fields[0], 10, 16)
	last, err2 := strconv.ParseUint(fields[1], 10, 16)
	if err1 != nil || err2 != nil || first > last {
		return usual
	}
	return portRange{uint16(first), uint16(last)}
}

// portSet is *network.Ports.
type portSet interface {
	Add([]spec.Spec) ([]network.Entry, error)
	Remove(...int) error
	List() []network.Entry
}

// A table changes what is published by rules. Its methods may be called from any
// goroutine.
type table struct {
	mu        sync.Mutex
	ports     portSet
	wildcards []netip.Addr
	freebind  bool // for what pesto adds
}

// add publishes rules, all of them or none; those that are published already
// stay.
func (t *table) add(rules []rule) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(nil, rules)
}

// remove withdraws rules. Their host ports are free when it returns.
func (t *table) remove(rules []rule) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(rules, nil)
}

// change removes and adds, or changes nothing and says why. What is to be removed
// and is not there is no error.
func (t *table) change(remove, add []rule) error {
	gone, rest := t.split(t.allSpecs(remove))
	fresh := t.allSpecs(add)
	// What is removed and added again need not be touched.
	var ids []int
	var back []spec.Spec
	for _, e := range gone {
		ids = append(ids, e.ID)
		back = append(back, e.Specs...)
	}
	if err := t.ports.Remove(ids...); err != nil {
		return err
	}
	if _, err := t.ports.Add(append(rest, fresh...)); err != nil {
		if _, again := t.ports.Add(back); again != nil {
			err = fmt.Errorf("%w; and what was published before is not any more: %w", err, again)
		}
		return err
	}
	return nil
}

// replace makes rules all that is published of a protocol.
func (t *table) replace(protocol spec.Protocol, rules []rule) (remove []rule) {
	var keep []spec.Spec
	for _, r := range rules {
		keep = append(keep, r.specs(t.wildcards)...)
	}
	for _, e := range t.ports.List() {
		for _, s := range e.Specs {
			if s.Protocol == protocol && !slices.Contains(keep, s) {
				remove = append(remove, ruleOf(s))
			}
		}
	}
	return remove
}

func (t *table) allSpecs(rules []rule) []spec.Spec {
	var out []spec.Spec
	for _, r := range rules {
		out = append(out, r.specs(t.wildcards)...)
	}
	return out
}

// split finds the entries that have a port of specs, leading where specs say,
// and what is to be published again of them.
func (t *table) split(specs []spec.Spec) (gone []network.Entry, rest []spec.Spec) {
	for _, e := range t.ports.List() {
		var left []spec.Spec
		hit := false
		for _, published := range e.Specs {
			parts := []forward{ruleOf(published).forward}
			for _, s := range specs {
				parts = subtract(parts, published, s)
			}
			for _, f := range parts {
				left = append(left, rule{published.Protocol, f}.specs(nil)...)
			}
			hit = hit || len(parts) != 1 || parts[0] != ruleOf(published).forward
		}
		if hit {
			gone = append(gone, e)
			rest = append(rest, left...)
		}
	}
	return gone, rest
}

// subtract takes the ports of s out of parts of published, if they lead to the
// same place.
func subtract(parts []forward, published, s spec.Spec) []forward {
	same := published.Protocol == s.Protocol && published.HostIP == s.HostIP && published.Interface == s.Interface &&
		published.Child == s.Child && published.Port-published.HostPort == s.Port-s.HostPort
	if !same {
		return parts
	}
	var left []forward
	for _, f := range parts {
		left = append(left, f.without([]portRange{{s.HostPort, s.HostPort + uint16(s.Count-1)}})...)
	}
	return left
}

// ruleOf is the rule that has just this host socket.
func ruleOf(s spec.Spec) rule {
	return rule{s.Protocol, forward{
		Host: s.HostIP, Interface: s.Interface, Freebind: s.Freebind, portRange: portRange{s.HostPort, s.HostPort + uint16(s.Count-1)},
		To: s.Child, ToFirst: s.Port,
	}}
}

// lines are what is published now, one rule each, as options.
func (t *table) lines() []string {
	var out []string
	for _, e := range t.ports.List() {
		for _, s := range e.Specs {
			out = append(out, ruleOf(s).String())
		}
	}
	return out
}
