package portfwd

import (
	"net/netip"

	"sbxnet/netstack/tcp"
)

// policy decides where the sandbox's flows may go.
type policy struct {
	ipv4, ipv6   Addresses
	hostLoopback bool
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
	family, loopback := &p.ipv4, loopback4
	if !a.Is4() {
		family, loopback = &p.ipv6, loopback6
	}
	switch {
	case !a.IsValid() || a.IsMulticast() || !family.enabled():
		return netip.AddrPort{}, drop
	case a == family.Gateway:
		if p.hostLoopback {
			return netip.AddrPortFrom(loopback, want.Port()), allow
		}
		return netip.AddrPort{}, refuse
	case a == family.DNS:
		// What the name server does not serve.
		return netip.AddrPort{}, refuse
	case isBroadcast(a, family.Prefix):
		return netip.AddrPort{}, drop
	case family.Prefix.Contains(a):
		return netip.AddrPort{}, noHost
	case neverRouted(a):
		return netip.AddrPort{}, noHost
	}
	return want, allow
}

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
	family := &p.ipv4
	if !target.Is4() {
		family = &p.ipv6
	}
	switch {
	case client.Is4() != target.Is4(),
		client.IsLoopback(), client.IsUnspecified(), client.IsMulticast(),
		neverRouted(client),
		family.Prefix.Contains(client):
		return family.Gateway
	}
	return client
}

// targets appends the places in the sandbox where a server for port may be
// bound, in the order in which a client of that family tries them.
func (p *policy) targets(to []netip.AddrPort, ipv4 bool, port uint16) []netip.AddrPort {
	first, second := p.ipv6.Sandbox, p.ipv4.Sandbox
	if ipv4 {
		first, second = second, first
	}
	for _, a := range [2]netip.Addr{first, second} {
		if a.IsValid() {
			to = append(to, netip.AddrPortFrom(a, port))
		}
	}
	if p.ipv4.enabled() { // by way of the sandbox's route_localnet
		to = append(to, netip.AddrPortFrom(loopback4, port))
	}
	return to
}
