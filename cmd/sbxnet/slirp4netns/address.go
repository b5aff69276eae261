package slirp4netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd"
)

// Offsets in --cidr of what the sandbox sees, and the range that DHCP gives
// out. They are slirp's, and callers compute with them.
const (
	gatewayOffset   = 2
	dnsOffset       = 3
	dhcpFirstOffset = 15
	dhcpLastOffset  = 30
	sandboxOffset   = 100
)

// Bounds of the prefix length of --cidr: the sandbox's offset must fit.
const minBits, maxBits = 1, 25

var (
	defaultCIDR = netip.MustParsePrefix("10.0.2.0/24")

	// The IPv6 block has no option of its own.
	cidr6    = netip.MustParsePrefix("fd00::/64")
	gateway6 = netip.MustParseAddr("fd00::2")
	dns6     = netip.MustParseAddr("fd00::3")
	sandbox6 = netip.MustParseAddr("fd00::100")
)

// plan is the addresses on the link.
func (o *options) plan() network.Plan {
	p := network.Plan{V4: network.Family{
		Prefix:  o.CIDR,
		Gateway: at(o.CIDR, gatewayOffset),
		DNS:     at(o.CIDR, dnsOffset),
		Sandbox: at(o.CIDR, sandboxOffset),
	}}
	if o.IPv6 {
		p.V6 = network.Family{Prefix: cidr6, Gateway: gateway6, DNS: dns6, Sandbox: sandbox6}
	}
	return p
}

// mappings lead from the gateway to the host's loopback. The outbound address
// is the source there, too.
func (o *options) mappings() []portfwd.HostMapping {
	if !o.HostLoopback {
		return nil
	}
	var m []portfwd.HostMapping
	for _, f := range o.plan().Families() {
		to, from := netip.AddrFrom4([4]byte{127, 0, 0, 1}), o.Outbound4
		if f.Gateway.Is6() {
			to, from = netip.IPv6Loopback(), o.Outbound6
		}
		m = append(m, portfwd.HostMapping{Sandbox: f.Gateway, Host: to, From: portfwd.Outbound{Addr: from}})
	}
	return m
}

// silent are the name server's addresses where there is none. Attempts to reach
// it time out: to the original, it is then any address of the world, and most
// hosts' networks know nobody there.
func (o *options) silent() []netip.Addr {
	if o.DNS {
		return nil
	}
	var a []netip.Addr
	for _, f := range o.plan().Families() {
		a = append(a, f.DNS)
	}
	return a
}

// at is the n-th address of an IPv4 block.
func at(block netip.Prefix, n uint32) netip.Addr {
	b := block.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

func parseCIDR(value string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil || !p.Addr().Is4():
		return p, fmt.Errorf("--cidr %s: invalid CIDR; write it like %s", console.Shown(value), defaultCIDR)
	case p.Bits() < minBits || p.Bits() > maxBits:
		return p, fmt.Errorf("--cidr %s: prefix length needs to be %d-%d", value, minBits, maxBits)
	case p.Masked() != p:
		return p, fmt.Errorf("CIDR needs to be a network address like %s, not like %s", p.Masked(), p)
	}
	a := at(p, sandboxOffset)
	if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return p, fmt.Errorf("--cidr %s: no sandbox can have these addresses; use a private block such as %s", value, defaultCIDR)
	}
	return p, nil
}

// parseOutbound reads an address of the host's, or the name of an interface and
// takes its first one.
func parseOutbound(flag, value string, v6 bool) (netip.Addr, error) {
	if a, err := netip.ParseAddr(value); err == nil {
		if a.Is4() == v6 || a.Is4In6() || a.Zone() != "" {
			return netip.Addr{}, fmt.Errorf("%s %s: not an %s address", flag, console.Shown(value), familyName(v6))
		}
		if a.IsUnspecified() {
			a = netip.Addr{} // the kernel's choice
		}
		return a, nil
	}
	iface, err := net.InterfaceByName(value)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %s: neither an %s address nor the name of an interface; `ip address` lists both",
			flag, console.Shown(value), familyName(v6))
	}
	addresses, err := iface.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %s: read the interface's addresses: %w", flag, value, err)
	}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() != v6 && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s %s: the interface has no %s address; name an address of the host's", flag, value, familyName(v6))
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func parseHardwareAddr(value string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(value)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return nil, fmt.Errorf("--macaddress %s: not the address of one station; write it like 02:00:00:00:00:01", console.Shown(value))
	}
	return mac, nil
}
