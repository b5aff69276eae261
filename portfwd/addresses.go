package portfwd

import (
	"fmt"
	"net/netip"
	"slices"

	"sbxnet/netstack/header"
)

// Addresses are those of one family.
type Addresses struct {
	// Gateway and DNS are the stack's own, Sandbox the guest's. The gateway need
	// not be within Prefix: an IPv6 router's is often link-local.
	Gateway, DNS, Sandbox netip.Addr
	// Prefix is what is on the link.
	Prefix netip.Prefix
}

func (a Addresses) enabled() bool { return a.Sandbox.IsValid() }

// own is one of the stack's own addresses with the prefix that it is in.
func (a Addresses) own(x netip.Addr) netip.Prefix {
	if a.Prefix.Contains(x) {
		return netip.PrefixFrom(x, a.Prefix.Bits())
	}
	return netip.PrefixFrom(x, x.BitLen())
}

func (a Addresses) check() error {
	if !a.enabled() {
		return nil
	}
	if !a.Prefix.Contains(a.Sandbox) {
		return fmt.Errorf("portfwd: address %v is not in %v", a.Sandbox, a.Prefix)
	}
	for _, x := range []netip.Addr{a.Gateway, a.DNS} {
		if x == a.DNS && !x.IsValid() {
			continue
		}
		if x.Is4() != a.Sandbox.Is4() || header.IsMartianSource(x) || x == a.Sandbox || x.Zone() != "" {
			return fmt.Errorf("portfwd: address %v cannot be the gateway's or the name server's of %v", x, a.Sandbox)
		}
	}
	return nil
}

// HostMapping is an address that leads out of the sandbox to one of the host's:
// connections, datagrams and echo requests to Sandbox go to Host, port for port.
// Without any, nothing in the sandbox leads to the host's loopback.
type HostMapping struct {
	// Sandbox is what processes in the sandbox connect to, such as the gateway's
	// address, or any other that its routes lead to the link.
	Sandbox netip.Addr
	// Host is of the same family.
	Host netip.Addr
	// From is what the host's servers see as the source; zero: the kernel's
	// choice, which for Host's own loopback is that.
	From Outbound
}

func (m HostMapping) check(c *Config) error {
	switch {
	case !m.Sandbox.IsValid() || !m.Host.IsValid() || m.Sandbox.Is4() != m.Host.Is4():
		return fmt.Errorf("portfwd: %v cannot lead to %v: two addresses of one family are needed", m.Sandbox, m.Host)
	case header.IsMartianSource(m.Sandbox) || m.Sandbox == c.IPv4.Sandbox || m.Sandbox == c.IPv6.Sandbox || m.Sandbox.Zone() != "":
		return fmt.Errorf("portfwd: %v cannot lead to the host: it is no other machine's address in the sandbox", m.Sandbox)
	case m.Host.IsUnspecified() || m.Host.IsMulticast() || m.Host.Is4In6() || m.Host.Zone() != "":
		return fmt.Errorf("portfwd: %v cannot lead to %v: that is no address of a host", m.Sandbox, m.Host)
	}
	return m.From.check(m.Host.Is4())
}

// mappings are HostMappings with those that HostLoopback stands for.
func (c *Config) mappings() []HostMapping {
	m := slices.Clone(c.HostMappings)
	if !c.HostLoopback {
		return m
	}
	if c.IPv4.enabled() {
		m = append(m, HostMapping{Sandbox: c.IPv4.Gateway, Host: loopback4})
	}
	if c.IPv6.enabled() {
		m = append(m, HostMapping{Sandbox: c.IPv6.Gateway, Host: loopback6})
	}
	return m
}

// stoodFor are the addresses besides gateway and DNS that the stack answers at.
func (c *Config) stoodFor() []netip.Addr {
	all := slices.Concat(c.DNSAddresses, c.Silent)
	for _, m := range c.HostMappings {
		all = append(all, m.Sandbox)
	}
	return all
}

// nameservers are all addresses that the name server answers at, each once.
func (c *Config) nameservers() []netip.Addr {
	var all []netip.Addr
	for _, a := range append([]netip.Addr{c.IPv4.DNS, c.IPv6.DNS}, c.DNSAddresses...) {
		if a.IsValid() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
