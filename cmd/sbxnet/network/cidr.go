package network

import (
	"fmt"
	"net/netip"

	"sbxnet/cmd/sbxnet/console"
)

// Bounds of the prefix lengths that --cidr and --cidr6 take. An IPv4 block must
// hold three different host addresses, and an IPv6 block is one link's, so /64
// or less.
const (
	minBits4, maxBits4 = 8, 29
	minBits6, maxBits6 = 64, 124
)

// The blocks that a sandbox has where nothing speaks against them.
var (
	DefaultCIDR4 = netip.MustParsePrefix("10.0.2.0/24")
	DefaultCIDR6 = netip.MustParsePrefix("fd00::/64")
)

// ParseCIDR reads the value of --cidr or --cidr6.
func ParseCIDR(flag, value string, v6 bool) (netip.Prefix, error) {
	example, low, high := DefaultCIDR4, minBits4, maxBits4
	if v6 {
		example, low, high = DefaultCIDR6, minBits6, maxBits6
	}
	p, err := netip.ParsePrefix(value)
	if err != nil || p.Addr().Is4() == v6 || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s %s: not an %s block; write it like %s", flag, console.Shown(value), familyName(v6), example)
	}
	if p.Bits() < low || p.Bits() > high {
		return netip.Prefix{}, fmt.Errorf("%s %s: prefix length outside %d..%d; write it like %s", flag, value, low, high, example)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("%s %s: not a network address; did you mean %s?", flag, value, m)
	}
	if what := special(p); what != "" {
		return netip.Prefix{}, fmt.Errorf("%s %s: %s addresses cannot be a sandbox's; use a private block such as %s", flag, value, what, example)
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
