package pasta

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/netstack/header"
	"sbxnet/portfwd"
	"sbxnet/tapdev"
)

// A plan is everything about a sandbox's network but its ports.
type plan struct {
	Interface string
	MTU       int
	// MAC is the sandbox's, GatewayMAC that of our end of the link.
	MAC, GatewayMAC net.HardwareAddr
	V4, V6          network.Family
	// host4 and host6 are the host's own addresses, if it has any.
	host4, host6 netip.Addr
	// copied: a family has the host's own address.
	copied bool
}

// fallbackInterface is the name inside where the host has none to copy.
const fallbackInterface = "tap0"

// planFor reads the host and puts what the options say over it.
func planFor(o *options) (*plan, error) {
	host4, host6, err := readFamilies(o)
	if err != nil {
		return nil, err
	}
	p := &plan{MTU: o.MTU, MAC: o.MAC, GatewayMAC: o.GatewayMAC, host4: host4.Address.Addr(), host6: host6.Address.Addr()}
	if p.MTU == 0 {
		p.MTU = 1500
	}
	if p.MAC == nil {
		p.MAC = net.HardwareAddr(network.SandboxMAC[:])
	}
	if p.GatewayMAC == nil {
		p.GatewayMAC = net.HardwareAddr(network.GatewayMAC[:])
	}
	if bytes.Equal(p.MAC, p.GatewayMAC) {
		return nil, refusef("Invalid MAC address: %s is that of both ends of the link: give another with --mac-addr or --ns-mac-addr", p.MAC)
	}
	p.Interface = o.NSInterface
	for _, name := range []string{host4.Interface, host6.Interface, fallbackInterface} {
		if p.Interface == "" && name != "lo" {
			p.Interface = name
		}
	}
	p.fill(o, host4, host6)
	if !p.V4.On() && !p.V6.On() {
		if err := p.fallBack(o); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readFamilies reads what there is to copy.
func readFamilies(o *options) (host4, host6 hostFamily, err error) {
	for _, f := range []struct {
		to     *hostFamily
		family int
		say    *familyOptions
	}{{&host4, unix.AF_INET, &o.V4}, {&host6, unix.AF_INET6, &o.V6}} {
		if f.say.Off {
			continue
		}
		name := o.Interface
		if name == "" {
			name = f.say.OutboundInterface
		}
		if *f.to, err = readHost(f.family, name); err != nil {
			return host4, host6, err
		}
	}
	return host4, host6, nil
}

// fill chooses each family's addresses.
func (p *plan) fill(o *options, host4, host6 hostFamily) {
	var copied4, copied6 bool
	p.V4, copied4 = familyFor(&o.V4, host4, classBits)
	p.V6, copied6 = familyFor(&o.V6, host6, func(netip.Addr) int { return 64 })
	p.copied = copied4 || copied6
}

// familyFor is one family's addresses: the options', else the host's. A family
// that has neither is off.
func familyFor(say *familyOptions, host hostFamily, bitsOf func(netip.Addr) int) (f network.Family, copied bool) {
	if say.Off || !say.Address.IsValid() && !host.on() {
		return network.Family{}, false
	}
	own := host.Address
	if say.Address.IsValid() {
		own = netip.PrefixFrom(say.Address, bitsOf(say.Address))
		if say.Address == host.Address.Addr() {
			own = host.Address
		}
	}
	if say.Bits != 0 {
		own = netip.PrefixFrom(own.Addr(), say.Bits)
	}
	copied = own.Addr() == host.Address.Addr()
	gateway := say.Gateway
	if !gateway.IsValid() && copied {
		gateway = host.Gateway
	}
	own, gateway = reachable(own, gateway)
	return network.Family{Prefix: own.Masked(), Gateway: gateway, Sandbox: own.Addr()}, copied
}

// classBits is the length of a network that nobody told the length of (RFC 791
// §3.2), as the original has it.
func classBits(a netip.Addr) int {
	switch b := a.As4()[0]; {
	case b < 128:
		return 8
	case b < 192:
		return 16
	}
	return 24
}

// reachable widens the sandbox's subnet until its gateway is in it, and chooses a
// gateway where there is none: the stack answers for every address on the link,
// so it does no harm that the host's subnet is smaller. A link-local gateway is
// on every link.
func reachable(own netip.Prefix, gateway netip.Addr) (netip.Prefix, netip.Addr) {
	if gateway.IsValid() && (gateway.Is6() && gateway.IsLinkLocalUnicast() || own.Contains(gateway)) && gateway != own.Addr() {
		return own, gateway
	}
	for bits := own.Bits(); bits > 0; bits-- {
		wider := netip.PrefixFrom(own.Addr(), bits)
		if !usableHost(wider) {
			continue
		}
		if gateway.IsValid() && gateway != own.Addr() {
			if wider.Contains(gateway) && usableHost(netip.PrefixFrom(gateway, bits)) {
				return wider, gateway
			}
			continue
		}
		if other, ok := neighbour(wider); ok {
			return wider, other
		}
	}
	return own, gateway // portfwd says what is wrong with it
}

// neighbour is another host's address in the subnet of p.
func neighbour(p netip.Prefix) (netip.Addr, bool) {
	a := p.Masked().Addr()
	for range 4 {
		if a.IsValid() && p.Contains(a) && a != p.Addr() && !a.IsUnspecified() && usableHost(netip.PrefixFrom(a, p.Bits())) {
			if a.Is4() || a != p.Masked().Addr() { // not the routers' anycast address (RFC 4291 §2.6.1)
				return a, true
			}
		}
		a = a.Next()
	}
	return netip.Addr{}, false
}

// fallBack gives the sandbox of a host without a network the addresses that
// other sandboxes of ours have.
func (p *plan) fallBack(o *options) error {
	prefixes, err := network.HostPrefixes()
	if err != nil {
		return err
	}
	chosen, err := network.PlanAddresses(network.PlanRequest{IPv6: !o.V6.Off}, prefixes)
	if err != nil {
		return err
	}
	if !o.V4.Off {
		p.V4 = chosen.V4
	}
	if !o.V6.Off {
		p.V6 = chosen.V6
	}
	p.V4.DNS, p.V6.DNS = netip.Addr{}, netip.Addr{}
	return nil
}

// families are those that are on.
func (p *plan) families() []network.Family {
	return network.Plan{V4: p.V4, V6: p.V6}.Families()
}

// link is what is opened inside.
func (p *plan) link() tapdev.Options {
	l := network.LinkOptions(tapdev.Auto, 0)
	l.Name, l.MTU, l.HardwareAddr = p.Interface, p.MTU, p.MAC
	return l
}

// inside are the addresses and gateways to configure.
func (p *plan) inside() (addresses []netip.Prefix, gateways []netip.Addr) {
	for _, f := range p.families() {
		addresses = append(addresses, netip.PrefixFrom(f.Sandbox, f.Prefix.Bits()))
		gateways = append(gateways, f.Gateway)
	}
	return addresses, gateways
}

// network is the configuration of what runs on the link, without its
// descriptors.
func (p *plan) network(o *options) network.Config {
	c := network.Config{
		Plan:         network.Plan{V4: p.V4, V6: p.V6},
		MTU:          p.MTU,
		PCAP:         o.PCAP,
		HardwareAddr: header.MAC(p.MAC), GatewayHardwareAddr: header.MAC(p.GatewayMAC),
	}
	c.Forward = portfwd.Config{
		AnswerAll: p.copied, LoopbackFirst: o.LoopbackFirst,
		HostMappings: p.mappings(o),
		Outbound4:    portfwd.Outbound{Addr: o.V4.Outbound, Interface: o.V4.OutboundInterface},
		Outbound6:    portfwd.Outbound{Addr: o.V6.Outbound, Interface: o.V6.OutboundInterface},
		NoTCP:        o.NoTCP, NoUDP: o.NoUDP, NoICMP: o.NoICMP,
		Autoconf: portfwd.Autoconf{
			NoDHCPv4: o.NoDHCPv4, NoDHCPv6: o.NoDHCPv6, NoAdvertisements: o.NoAdvertisements,
			Hostname: o.Hostname, Domain: o.Domain,
			FormAddresses: true, // as the original's prefix is autonomous
		},
	}
	if o.DHCPSearch {
		c.Forward.Autoconf.Search = o.Search
	}
	if f := &c.Plan.V4; f.On() && !usableHost(netip.PrefixFrom(f.Sandbox, f.Prefix.Bits())) {
		// The stack, unlike the sandbox's kernel, takes the address of all zeroes
		// for a broadcast address, where it knows the subnet.
		f.Prefix, c.Forward.AnswerAll = netip.PrefixFrom(f.Sandbox, 32), true
	}
	p.names(o, &c)
	return c
}

// names sets where DNS queries are answered and who is asked.
func (p *plan) names(o *options, c *network.Config) {
	const dnsPort = 53
	if o.DNSHost.IsValid() {
		c.DNS.Upstream = netip.AddrPortFrom(o.DNSHost, dnsPort)
	}
	for _, f := range []struct {
		say    *familyOptions
		family *network.Family
	}{{&o.V4, &c.Plan.V4}, {&o.V6, &c.Plan.V6}} {
		if !f.family.On() {
			continue
		}
		tell := f.say.DNSForward
		if tell.IsValid() {
			c.Forward.DNSAddresses = append(c.Forward.DNSAddresses, tell)
		}
		if !tell.IsValid() && !o.V4.DNSForward.IsValid() && !o.V6.DNSForward.IsValid() {
			// A server that guests are told of is answered for, by asking it.
			if tell = firstOf(o.DNS, f.family.Sandbox.Is4()); tell.IsValid() && o.DHCPDNS && !c.DNS.Upstream.IsValid() {
				c.DNS.Upstream = netip.AddrPortFrom(tell, dnsPort)
			}
		}
		if o.DHCPDNS {
			f.family.DNS = tell
		}
	}
	c.DNS.None = len(c.Forward.DNSAddresses) == 0 && !c.Plan.V4.DNS.IsValid() && !c.Plan.V6.DNS.IsValid()
}

func firstOf(list []netip.Addr, ipv4 bool) netip.Addr {
	for _, a := range list {
		if a.Is4() == ipv4 {
			return a
		}
	}
	return netip.Addr{}
}

// mappings are the addresses inside that lead to the host.
func (p *plan) mappings(o *options) []portfwd.HostMapping {
	var m []portfwd.HostMapping
	for _, f := range []struct {
		family         network.Family
		say            *familyOptions
		loopback, host netip.Addr
	}{
		{p.V4, &o.V4, netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.host4},
		{p.V6, &o.V6, netip.IPv6Loopback(), p.host6},
	} {
		if !f.family.On() {
			continue
		}
		switch {
		case f.say.LoopbackAt.IsValid():
			m = append(m, portfwd.HostMapping{Sandbox: f.say.LoopbackAt, Host: f.loopback})
		case !o.NoMapGateway && !f.say.NoLoopbackAt:
			m = append(m, portfwd.HostMapping{Sandbox: f.family.Gateway, Host: f.loopback})
		}
		if f.say.GuestAt.IsValid() && f.host.IsValid() {
			m = append(m, portfwd.HostMapping{Sandbox: f.say.GuestAt, Host: f.host})
		}
	}
	return m
}

// describe is the plan in words, for the log.
func (p *plan) describe() string {
	s := fmt.Sprintf("%s, MTU %d", p.Interface, p.MTU)
	for _, f := range p.families() {
		s += fmt.Sprintf(", %s by %s", netip.PrefixFrom(f.Sandbox, f.Prefix.Bits()), f.Gateway)
	}
	return s
}
