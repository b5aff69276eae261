package portfwd

import (
	"net/netip"
	"slices"

	"sbxnet/netstack/tcp"
	"sbxnet/portfwd/hostsock"
)

// policy decides where the sandbox's flows may go.
type policy struct {
	ipv4, ipv6           Addresses
	mappings             []HostMapping // walked for each flow: there are a handful
	nameservers, silent  []netip.Addr
	answerAll            bool
	loopbackFirst        bool
	gateway              verdict // of the gateway, where no mapping leads on
	outbound4, outbound6 hostsock.Source
}

func newPolicy(c *Config) policy {
	p := policy{
		ipv4: c.IPv4, ipv6: c.IPv6, mappings: c.mappings(), nameservers: c.nameservers(), silent: c.Silent, answerAll: c.AnswerAll, loopbackFirst: c.LoopbackFirst,
		gateway: refuse, outbound4: hostsock.Source(c.Outbound4), outbound6: hostsock.Source(c.Outbound6),
	}
	if c.GatewayUnreachable {
		p.gateway = noNet
	}
	return p
}

// verdict says what becomes of a flow.
type verdict uint8

const (
	// allow: connect a host socket to the address that comes with it.
	allow verdict = iota
	// refuse: there is a host and nobody listens. RST, port unreachable.
	refuse
	// noHost: nobody is there. ICMP host unreachable.
	noHost
	// noNet: there is no way there. ICMP net unreachable.
	noNet
	// drop: no answer at all, as for what is not unicast.
	drop
)

// refusal is how a TCP connection with that verdict is turned down.
func (v verdict) refusal() tcp.Refusal {
	switch v {
	case refuse:
		return tcp.Reset
	case noHost:
		return tcp.HostUnreachable
	case noNet:
		return tcp.NetUnreachable
	}
	return tcp.Silent
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
	// thisHost is 0.0.0.0/8 (RFC 1122 §3.2.1.3): Linux connects 0.0.0.0 to its
	// own loopback.
	thisHost = netip.MustParsePrefix("0.0.0.0/8")
	// reserved is 240.0.0.0/4, with the limited broadcast (RFC 1112 §4).
	reserved = netip.MustParsePrefix("240.0.0.0/4")
	// compatible is ::/96, with :: and ::1: IPv4-compatible addresses are
	// deprecated (RFC 4291 §2.5.5.1), but routes for them may exist.
	compatible = netip.MustParsePrefix("::/96")
	// translated is ::ffff:0:0:0/96, IPv4-translated (RFC 2765 §2.1).
	translated = netip.MustParsePrefix("::ffff:0:0:0/96")
)

// destination maps the address that the sandbox wants to that which a host
// socket connects to, good only with allow.
func (p *policy) destination(want netip.AddrPort) (netip.AddrPort, verdict) {
	a := want.Addr()
	family := p.family(a)
	if !a.IsValid() || a.IsMulticast() || !family.enabled() {
		return netip.AddrPort{}, drop
	}
	for i := range p.mappings {
		if m := &p.mappings[i]; m.Sandbox == a {
			return netip.AddrPortFrom(m.Host, want.Port()), allow
		}
	}
	switch {
	case isBroadcast(a, family.Prefix), slices.Contains(p.silent, a):
		return netip.AddrPort{}, drop
	case a == family.Sandbox:
		return netip.AddrPort{}, noHost
	case p.answerAll && !neverRouted(a):
		return want, allow
	case a == family.Gateway:
		return netip.AddrPort{}, p.gateway
	case slices.Contains(p.nameservers, a):
		// What the name server does not serve.
		return netip.AddrPort{}, refuse
	case family.Prefix.Contains(a):
		return netip.AddrPort{}, noHost
	case neverRouted(a):
		return netip.AddrPort{}, noHost
	}
	return want, allow
}

// family is the link's addresses of a's family.
func (p *policy) family(a netip.Addr) *Addresses {
	if a.Is4() {
		return &p.ipv4
	}
	return &p.ipv6
}

// from is the source of a flow that wants one address and goes to another, as
// destination says, or to the same. What leads to the host itself does not leave
// it, and has the mapping's.
func (p *policy) from(want, to netip.Addr) *hostsock.Source {
	switch {
	case want != to:
		return p.mappedFrom(want)
	case to.Is4():
		return &p.outbound4
	}
	return &p.outbound6
}

func (p *policy) mappedFrom(want netip.Addr) *hostsock.Source {
	for i := range p.mappings {
		if m := &p.mappings[i]; m.Sandbox == want {
			return (*hostsock.Source)(&m.From)
		}
	}
	return &anySource
}

var anySource hostsock.Source

// neverRouted reports addresses that a router does not forward, or that the
// host's kernel would take for itself.
func neverRouted(a netip.Addr) bool {
	if a.Is4() {
		return a.IsLoopback() || a.IsLinkLocalUnicast() || thisHost.Contains(a) || reserved.Contains(a)
	}
	return a.Is4In6() || a.IsLinkLocalUnicast() || compatible.Contains(a) || translated.Contains(a)
}

// isBroadcast reports the broadcast addresses: 255.255.255.255, and that of the
// link (RFC 1122 §3.2.1.3).
func isBroadcast(a netip.Addr, link netip.Prefix) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	if b == [4]byte{255, 255, 255, 255} {
		return true
	}
	if !link.Contains(a) || link.Bits() >= 31 {
		return false
	}
	host := uint32(1)<<(32-link.Bits()) - 1
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return v&host == host
}

// source is the address under which a client on the host's side appears in the
// sandbox, to a server at target: its own, unless the answer would not find
// back through the link.
func (p *policy) source(client, target netip.Addr) netip.Addr {
	family := p.family(target)
	switch {
	case client.Is4() != target.Is4(),
		client.IsLoopback(), client.IsUnspecified(), client.IsMulticast(),
		neverRouted(client),
		client == family.Sandbox, // the host itself, whose address the sandbox shares
		family.Prefix.Contains(client) && !p.answerAll,
		isBroadcast(client, family.Prefix):
		return family.Gateway
	}
	return client
}

// targets appends the places in the sandbox where a server for port may be
// bound, in the order in which that client tries them. child says
// where, if it is valid. If that is 127.0.0.0/8, the sandbox's own address comes
// next; if it is ::1, where no packet from a link arrives (RFC 4291 §2.5.3), all
// places that IPv6 clients try.
func (p *policy) targets(to []netip.AddrPort, child, client netip.Addr, port uint16) []netip.AddrPort {
	ipv4 := client.Is4()
	inner := p.ipv4.enabled() // 127.0.0.1, by way of the sandbox's route_localnet
	switch {
	case !child.IsValid():
		if inner && p.loopbackFirst && client.IsLoopback() {
			to, inner = append(to, netip.AddrPortFrom(loopback4, port)), false
		}
	case child == loopback6:
		ipv4 = false
	case child.IsLoopback():
		return append(to, netip.AddrPortFrom(child, port), netip.AddrPortFrom(p.ipv4.Sandbox, port))
	default:
		return append(to, netip.AddrPortFrom(child, port))
	}
	first, second := p.ipv6.Sandbox, p.ipv4.Sandbox
	if ipv4 {
		first, second = second, first
	}
	for _, a := range [2]netip.Addr{first, second} {
		if a.IsValid() {
			to = append(to, netip.AddrPortFrom(a, port))
		}
	}
	if inner {
		to = append(to, netip.AddrPortFrom(loopback4, port))
	}
	return to
}
