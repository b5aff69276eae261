package network

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

// A Family is the sandbox's network in one address family. The zero value
// means that the sandbox has none.
type Family struct {
	Prefix                netip.Prefix
	Gateway, DNS, Sandbox netip.Addr
}

// On reports whether the sandbox has the family at all.
func (f Family) On() bool { return f.Prefix.IsValid() }

// A Plan is the addresses of one sandbox.
type Plan struct {
	V4, V6 Family
	// Notices tell the user, one line each, where a default was moved out of
	// the host's way.
	Notices []string
}

// Families are those that the sandbox has, IPv4 first.
func (p Plan) Families() []Family {
	var on []Family
	for _, f := range []Family{p.V4, p.V6} {
		if f.On() {
			on = append(on, f)
		}
	}
	return on
}

// A PlanRequest is what the user asked for. A prefix that is not valid means
// the default, which may be moved; a valid one is taken as it is or refused.
type PlanRequest struct {
	CIDR4, CIDR6 netip.Prefix
	IPv6         bool
}

// A HostPrefix is a block of addresses that the host already knows a way to.
type HostPrefix struct {
	netip.Prefix
	// What names the route or interface for a message, such as "eth0".
	What string
}

// PlanAddresses chooses the sandbox's blocks, so that none hides a network
// that the host reaches: the sandbox could not get there. An error is about a
// block that the user named.
func PlanAddresses(req PlanRequest, host []HostPrefix) (Plan, error) {
	var p Plan
	v4, notice, err := chooseBlock("--cidr", req.CIDR4, candidates4, host)
	if err != nil {
		return Plan{}, err
	}
	p.V4 = Layout(v4)
	p.Notices = appendNotice(p.Notices, notice)
	if !req.IPv6 {
		return p, nil
	}
	v6, notice, err := chooseBlock("--cidr6", req.CIDR6, candidates6, host)
	if err != nil {
		return Plan{}, err
	}
	p.V6 = Layout(v6)
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
func chooseBlock(flag string, asked netip.Prefix, candidates func() func() (netip.Prefix, bool), host []HostPrefix) (netip.Prefix, string, error) {
	if asked.IsValid() {
		if h, hit := collision(asked, host); hit {
			return netip.Prefix{}, "", fmt.Errorf("%s %s: collides with the host's %s (%s); choose a block that `ip route` does not list", flag, asked, h.Prefix, h.What)
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
func collision(block netip.Prefix, host []HostPrefix) (HostPrefix, bool) {
	for _, h := range host {
		if !standsForDefault(h.Prefix) && h.Overlaps(block) {
			return h, true
		}
	}
	return HostPrefix{}, false
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

// Layout puts gateway, DNS and sandbox into a block. In a block too small for
// the sandbox's usual offset it gets the last host address.
func Layout(block netip.Prefix) Family {
	sandboxOffset := uint64(sandboxOffset4)
	if block.Addr().Is6() {
		sandboxOffset = sandboxOffset6
	}
	hostBits := block.Addr().BitLen() - block.Bits()
	if last := uint64(1)<<min(hostBits, 63) - 2; sandboxOffset > last {
		sandboxOffset = last
	}
	return Family{
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
