package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Where the parts of the sandbox's network sit in its block, as offsets from
// the network address. They are slirp's, which every tool of this family kept.
const (
	gatewayOffset  = 2
	dnsOffset      = 3
	sandboxOffset4 = 100
	sandboxOffset6 = 0x100
)

// Bounds of the prefix lengths that --cidr and --cidr6 take. An IPv4 block must
// hold three different host addresses, and an IPv6 block is one link's, so /64
// or less.
const (
	minBits4, maxBits4 = 8, 29
	minBits6, maxBits6 = 64, 124
)

var (
	defaultCIDR4 = netip.MustParsePrefix("10.0.2.0/24")
	defaultCIDR6 = netip.MustParsePrefix("fd00::/64")
)

// A family is the sandbox's network in one address family. The zero value
// means that the sandbox has none.
type family struct {
	Prefix                netip.Prefix
	Gateway, DNS, Sandbox netip.Addr
}

// on reports whether the sandbox has the family at all.
func (f family) on() bool { return f.Prefix.IsValid() }

// A plan is the addresses of one sandbox.
type plan struct {
	V4, V6 family
	// Notices tell the user, one line each, where a default was moved out of
	// the host's way.
	Notices []string
}

// families are those that the sandbox has, IPv4 first.
func (p plan) families() []family {
	var on []family
	for _, f := range []family{p.V4, p.V6} {
		if f.on() {
			on = append(on, f)
		}
	}
	return on
}

// A planRequest is what the user asked for. A prefix that is not valid means
// the default, which may be moved; a valid one is taken as it is or refused.
type planRequest struct {
	CIDR4, CIDR6 netip.Prefix
	IPv6         bool
}

// A hostPrefix is a block of addresses that the host already knows a way to.
type hostPrefix struct {
	netip.Prefix
	// What names the route or interface for a message, such as "eth0".
	What string
}

// planAddresses chooses the sandbox's blocks, so that none hides a network
// that the host reaches: the sandbox could not get there. An error is about a
// block that the user named.
func planAddresses(req planRequest, host []hostPrefix) (plan, error) {
	var p plan
	v4, notice, err := chooseBlock("--cidr", req.CIDR4, candidates4, host)
	if err != nil {
		return plan{}, err
	}
	p.V4 = layout(v4, sandboxOffset4)
	p.Notices = appendNotice(p.Notices, notice)
	if !req.IPv6 {
		return p, nil
	}
	v6, notice, err := chooseBlock("--cidr6", req.CIDR6, candidates6, host)
	if err != nil {
		return plan{}, err
	}
	p.V6 = layout(v6, sandboxOffset6)
	p.Notices = appendNotice(p.Notices, notice)
	return p, nil
}

func appendNotice(notices []string, notice string) []string {
	if notice == "" {
		return notices
	}
	return append(notices, notice)
}

// chooseBlock returns asked where it is valid and free, and the first free
// candidate where the user asked for nothing. If the host has a route to every
// candidate, the first is taken all the same: a sandbox that cannot see part of
// the host's networks is better than none.
func chooseBlock(flag string, asked netip.Prefix, candidates func() func() (netip.Prefix, bool), host []hostPrefix) (netip.Prefix, string, error) {
	if asked.IsValid() {
		if h, hit := collision(asked, host); hit {
			return netip.Prefix{}, "", usagef("%s %s: collides with the host's %s (%s); choose a block that `ip route` does not list", flag, asked, h.Prefix, h.What)
		}
		return asked, "", nil
	}
	next := candidates()
	first, _ := next()
	taken, hit := collision(first, host)
	if !hit {
		return first, "", nil
	}
	for block, ok := next(); ok; block, ok = next() {
		if _, hit := collision(block, host); !hit {
			return block, fmt.Sprintf("%s is the host's (%s): the sandbox uses %s; %s chooses another", taken.Prefix, taken.What, block, flag), nil
		}
	}
	return first, fmt.Sprintf("%s hides the host's %s (%s) from the sandbox, and no other private block is free; %s chooses one", first, taken.Prefix, taken.What, flag), nil
}

// collision finds a host prefix that overlaps block. Routes so wide that they
// stand for the whole internet (a default route, or the halves that VPN
// clients put in its place) do not count.
func collision(block netip.Prefix, host []hostPrefix) (hostPrefix, bool) {
	for _, h := range host {
		if !standsForDefault(h.Prefix) && h.Overlaps(block) {
			return h, true
		}
	}
	return hostPrefix{}, false
}

func standsForDefault(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 7 // fc00::/7, all private IPv6, does count
}

// candidates4 yields the /24 blocks to try in turn: slirp's own, its
// neighbours, then the other private ranges and last the carrier's
// (RFC 1918, RFC 6598).
func candidates4() func() (netip.Prefix, bool) {
	ranges := []struct{ from, to uint32 }{
		{0x0a000200, 0x0affff00}, // 10.0.2.0 .. 10.255.255.0
		{0xac100000, 0xac1fff00}, // 172.16.0.0/12
		{0xc0a80000, 0xc0a8ff00}, // 192.168.0.0/16
		{0x64400000, 0x647fff00}, // 100.64.0.0/10
	}
	at := ranges[0].from
	return func() (netip.Prefix, bool) {
		if len(ranges) == 0 {
			return netip.Prefix{}, false
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], at)
		if at += 0x100; at > ranges[0].to {
			if ranges = ranges[1:]; len(ranges) > 0 {
				at = ranges[0].from
			}
		}
		return netip.PrefixFrom(netip.AddrFrom4(b), 24), true
	}
}

// candidates6 yields fd00::/64, fd00:0:0:1::/64 and so on, then one /64 in each
// of fd01::/16 to fdff::/16 for a host with a route to all of fd00::/16.
func candidates6() func() (netip.Prefix, bool) {
	const inFD00 = 1 << 12
	n := 0
	return func() (netip.Prefix, bool) {
		b := [16]byte{0: 0xfd}
		switch {
		case n < inFD00:
			binary.BigEndian.PutUint16(b[6:], uint16(n))
		case n < inFD00+0xff:
			b[1] = byte(n - inFD00 + 1)
		default:
			return netip.Prefix{}, false
		}
		n++
		return netip.PrefixFrom(netip.AddrFrom16(b), 64), true
	}
}

// layout puts gateway, DNS and sandbox into a block. In a block too small for
// the sandbox's usual offset it gets the last host address.
func layout(block netip.Prefix, sandboxOffset uint64) family {
	hostBits := block.Addr().BitLen() - block.Bits()
	if last := uint64(1)<<min(hostBits, 63) - 2; sandboxOffset > last {
		sandboxOffset = last
	}
	return family{
		Prefix:  block,
		Gateway: offset(block, gatewayOffset),
		DNS:     offset(block, dnsOffset),
		Sandbox: offset(block, sandboxOffset),
	}
}

// offset returns the n-th address of a block.
func offset(block netip.Prefix, n uint64) netip.Addr {
	if block.Addr().Is4() {
		b := block.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := block.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// parseCIDR reads the value of --cidr or --cidr6.
func parseCIDR(flag, value string, v6 bool) (netip.Prefix, error) {
	example, low, high := defaultCIDR4, minBits4, maxBits4
	if v6 {
		example, low, high = defaultCIDR6, minBits6, maxBits6
	}
	p, err := netip.ParsePrefix(value)
	if err != nil || p.Addr().Is4() == v6 || p.Addr().Is4In6() {
		return netip.Prefix{}, usagef("%s %s: not an %s block; write it like %s", flag, shown(value), familyName(v6), example)
	}
	if p.Bits() < low || p.Bits() > high {
		return netip.Prefix{}, usagef("%s %s: prefix length outside %d..%d; write it like %s", flag, value, low, high, example)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, usagef("%s %s: not a network address; did you mean %s?", flag, value, m)
	}
	if what := special(p); what != "" {
		return netip.Prefix{}, usagef("%s %s: %s addresses cannot be a sandbox's; use a private block such as %s", flag, value, what, example)
	}
	return p, nil
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// special names the reserved range that a block lies in, or returns "".
func special(p netip.Prefix) string {
	for _, r := range []struct{ prefix, what string }{
		{"0.0.0.0/8", "unspecified"}, {"127.0.0.0/8", "loopback"}, {"169.254.0.0/16", "link-local"},
		{"224.0.0.0/4", "multicast"}, {"240.0.0.0/4", "reserved"},
		{"::/8", "reserved"}, {"64:ff9b::/32", "translated IPv4"}, {"fe80::/10", "link-local"}, {"ff00::/8", "multicast"},
	} {
		if netip.MustParsePrefix(r.prefix).Overlaps(p) {
			return r.what
		}
	}
	return ""
}
