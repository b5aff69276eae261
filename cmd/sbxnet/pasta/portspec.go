package pasta

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sbxnet/cmd/sbxnet/console"
)

// ports are what the values of -t, or of -u, say together.
type ports struct {
	// said: some value was given. With none at all it is auto.
	said bool
	// Auto publishes what listens in the sandbox, now and later.
	Auto bool
	// All publishes every port that is free on the host, to AllTo.
	All   bool
	AllTo netip.Addr
	// Except are ports that Auto and All leave out, on the host.
	Except []portRange
	// Forwards are the ports that were named.
	Forwards []forward
}

// A portRange is its first and last port.
type portRange struct{ First, Last uint16 }

func (r portRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }

func (r portRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// A forward is a range of host ports that lead to as many in the sandbox.
type forward struct {
	// Host is the address to listen on; zero: every address of both families.
	Host netip.Addr
	// Interface that clients come in by; empty: any.
	Interface string
	portRange
	// Freebind listens on Host whether it is there or not.
	Freebind bool
	// To is the address in the sandbox; zero: wherever the server is.
	To netip.Addr
	// ToFirst is where First leads to.
	ToFirst uint16
}

// String is the forward as -t takes it.
func (f forward) String() string {
	var b strings.Builder
	if f.Host.IsValid() {
		b.WriteString(f.Host.WithZone("").String()) // a zone is the interface
	}
	if f.Interface != "" {
		b.WriteString("%" + f.Interface)
	}
	if b.Len() > 0 {
		b.WriteByte('/')
	}
	b.WriteString(f.portRange.String())
	to := portRange{f.ToFirst, f.ToFirst + (f.Last - f.First)}
	switch {
	case f.To.Is6():
		fmt.Fprintf(&b, ":[%s]/%s", f.To, to)
	case f.To.IsValid():
		fmt.Fprintf(&b, ":%s/%s", f.To, to)
	case to != f.portRange:
		fmt.Fprintf(&b, ":%s", to)
	}
	return b.String()
}

// add takes one value more. A mode replaces what was said before it; ports add
// to a mode, but to "none".
func (p *ports) add(value string) error {
	bad := refusef("Invalid port specifier %s", console.Shown(value))
	p.said = true
	switch value {
	case "none":
		*p = ports{said: true}
		return nil
	case "auto":
		*p = ports{said: true, Auto: true}
		return nil
	}
	if rest, ok := strings.CutPrefix(value, "all"); ok && (rest == "" || rest[0] == ':') {
		to := netip.Addr{}
		if rest != "" {
			if to, ok = parseTarget(rest[1:]); !ok {
				return bad
			}
		}
		*p = ports{said: true, All: true, AllTo: to}
		return nil
	}
	s, ok := parseSpec(value)
	if !ok {
		return bad
	}
	if s.Auto || s.All || len(s.Forwards) == 0 {
		// Exclusions alone are from all that is bound in the sandbox.
		*p = ports{said: true, Auto: !s.All, All: s.All, Except: s.Except}
		return nil
	}
	p.Forwards = append(p.Forwards, s.Forwards...)
	return nil
}

// settle is called when all values have been added. It sorts Forwards, leaves out
// what was said twice, and refuses a host port that would lead to two places.
func (p *ports) settle() error {
	if !p.said {
		p.Auto = true
	}
	slices.SortFunc(p.Forwards, compareForwards)
	p.Forwards = slices.Compact(p.Forwards)
	for i := 1; i < len(p.Forwards); i++ {
		// Sorted by their first ports, two that overlap have one between them
		// that does, or are neighbours.
		f, g := p.Forwards[i-1], p.Forwards[i]
		if f.sameHost(g) && g.First <= f.Last {
			return refusef("Invalid port specifier %s: port %d is forwarded by %s already", g, g.First, f)
		}
	}
	return nil
}

// bindFreely makes ports on addresses of the host good for those that may come
// later.
func (p *ports) bindFreely() {
	for i := range p.Forwards {
		p.Forwards[i].Freebind = p.Forwards[i].Host.IsValid()
	}
}

// excepts reports a host port that Auto and All leave alone.
func (p *ports) excepts(port uint16) bool {
	return slices.ContainsFunc(p.Except, func(r portRange) bool { return r.contains(port) })
}

// parseSpec reads [ADDR[%IF]/]LIST, whose elements are ranges, exclusions and,
// in front of exclusions, a mode.
func parseSpec(value string) (p ports, ok bool) {
	host, device, list := cutAddress(value)
	if list == "" {
		return ports{}, false
	}
	var ranges []forward
	for _, element := range strings.Split(list, ",") {
		if excluded, found := strings.CutPrefix(element, "~"); found {
			r, ok := parseRange(excluded)
			if !ok {
				return ports{}, false
			}
			p.Except = append(p.Except, r)
			continue
		}
		if list == value && !p.Auto && !p.All && (element == "auto" || element == "all") {
			p.Auto, p.All = element == "auto", element == "all"
			continue
		}
		f, ok := parseForward(element)
		if !ok {
			return ports{}, false
		}
		f.Host, f.Interface = host, device
		ranges = append(ranges, f)
	}
	mode := p.Auto || p.All
	if mode && len(ranges) > 0 || len(ranges) == 0 && list != value {
		return ports{}, false
	}
	for _, f := range ranges {
		p.Forwards = append(p.Forwards, f.without(p.Except)...)
	}
	if len(ranges) > 0 && len(p.Forwards) == 0 {
		return ports{}, false // everything is excluded
	}
	return p, true
}

// cutAddress takes what stands before the first slash off a spec, where that is
// an address, an interface, or both. An IPv6 address may stand in brackets.
func cutAddress(value string) (host netip.Addr, device, list string) {
	text, rest, found := strings.Cut(value, "/")
	if !found {
		return netip.Addr{}, "", value
	}
	address, device, hasDevice := strings.Cut(text, "%")
	if inner, ok := strings.CutPrefix(address, "["); ok {
		// The interface may be in the brackets, as a zone, or behind them.
		if address, ok = strings.CutSuffix(inner, "]"); !ok {
			if device, ok = strings.CutSuffix(device, "]"); !ok {
				return netip.Addr{}, "", ""
			}
			address = inner
		}
		if strings.IndexByte(address, ':') < 0 {
			return netip.Addr{}, "", ""
		}
	}
	if hasDevice && checkInterfaceName(device) != nil {
		return netip.Addr{}, "", ""
	}
	if address == "" && hasDevice {
		return netip.Addr{}, device, rest
	}
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil && !hasDevice:
		return netip.Addr{}, "", value // a slash before a target, perhaps
	case err != nil, a.Is4In6(), a.IsMulticast():
		return netip.Addr{}, "", ""
	}
	if a.IsLinkLocalUnicast() && a.Is6() && device != "" {
		a = a.WithZone(device)
	}
	return a, device, rest
}

// parseForward reads FIRST[-LAST][:[TARGET/]FIRST[-LAST]].
func parseForward(text string) (f forward, ok bool) {
	from, target, mapped := strings.Cut(text, ":")
	if f.portRange, ok = parseRange(from); !ok {
		return f, false
	}
	f.ToFirst = f.First
	if !mapped {
		return f, true
	}
	if i := strings.LastIndexByte(target, '/'); i >= 0 {
		if f.To, ok = parseTarget(target[:i]); !ok {
			return f, false
		}
		if target = target[i+1:]; target == "" {
			return f, true // the same ports there
		}
	}
	to, ok := parseRange(target)
	if !ok {
		return f, false
	}
	f.ToFirst = to.First
	// One port stands for a range that begins there.
	single := to.First == to.Last && int(to.First)+int(f.Last-f.First) <= 65535 && !strings.Contains(target, "-")
	return f, single || to.Last-to.First == f.Last-f.First
}

// parseTarget reads an address in the sandbox.
func parseTarget(text string) (netip.Addr, bool) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil && !unusual(a)
}

// parseRange reads FIRST[-LAST].
func parseRange(text string) (r portRange, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if r.First, ok = parsePort(first); !ok {
		return r, false
	}
	if r.Last = r.First; isRange {
		r.Last, ok = parsePort(last)
	}
	return r, ok && r.First <= r.Last
}

// parsePort reads 1 to 65535, in digits only.
func parsePort(text string) (uint16, bool) {
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n != 0
}

// without is what is left of f when ports are taken out of it.
func (f forward) without(except []portRange) []forward {
	left := []forward{f}
	for _, e := range except {
		var next []forward
		for _, f := range left {
			if e.Last < f.First || f.Last < e.First {
				next = append(next, f)
				continue
			}
			if e.First > f.First {
				next = append(next, f.part(f.First, e.First-1))
			}
			if e.Last < f.Last {
				next = append(next, f.part(e.Last+1, f.Last))
			}
		}
		left = next
	}
	return left
}

// part is f for some of its ports.
func (f forward) part(first, last uint16) forward {
	f.ToFirst += first - f.First
	f.First, f.Last = first, last
	return f
}

// sameHost reports whether two forwards listen at the same place.
func (f forward) sameHost(g forward) bool { return f.Host == g.Host && f.Interface == g.Interface }

func compareForwards(f, g forward) int {
	return cmp.Or(f.Host.Compare(g.Host), strings.Compare(f.Interface, g.Interface),
		cmp.Compare(f.First, g.First), cmp.Compare(f.Last, g.Last),
		cmp.Compare(f.ToFirst, g.ToFirst), f.To.Compare(g.To))
}
