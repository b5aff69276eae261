package portfwd

import (
	"net/netip"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/portfwd/dhcp"
)

// Autoconf says what guests that configure themselves are told, and how: by
// DHCPv4, DHCPv6 and router advertisements, which agree.
type Autoconf struct {
	// NoDHCPv4, NoDHCPv6 and NoAdvertisements each turn one off.
	NoDHCPv4, NoDHCPv6, NoAdvertisements bool
	// IPv4 and IPv6 are the addresses for clients other than the sandbox's own
	// station; zero: those that follow its address. If the sandbox's address is
	// not among them, it is not given out.
	IPv4, IPv6 dhcp.Range
	// Lease is how long an address is given for; 0: [dhcp.DefaultLease].
	Lease time.Duration
	// Hostname is told to the sandbox's own station, Domain and Search to all.
	Hostname, Domain string
	Search           []string
	// FormAddresses lets guests form IPv6 addresses of their own from a prefix
	// of 64 bits (RFC 4862).
	FormAddresses bool
	// AdvertiseEvery is the longest time between router advertisements; the
	// first is sent at once. 0: only guests that solicit are told.
	AdvertiseEvery time.Duration
}

// serves4 and serves6 report whether DHCP is on for a family.
// Of a gateway that is not on its network, DHCPv4 cannot tell.
func (c *Config) serves4() bool {
	return c.IPv4.enabled() && !c.Autoconf.NoDHCPv4 && c.IPv4.Prefix.Contains(c.IPv4.Gateway)
}
func (c *Config) serves6() bool { return c.IPv6.enabled() && !c.Autoconf.NoDHCPv6 }

// routerAdvertisement sends guests to DHCPv6 if there is one.
func (c *Config) routerAdvertisement() netstack.RouterAdvertisement {
	a := netstack.RouterAdvertisement{
		Disabled: c.Autoconf.NoAdvertisements, Managed: c.serves6(), Other: c.serves6(),
		Autonomous: c.Autoconf.FormAddresses && c.IPv6.Prefix.Bits() == 64, Interval: c.Autoconf.AdvertiseEvery,
	}
	if c.IPv6.DNS.IsValid() {
		a.DNS = []netip.Addr{c.IPv6.DNS}
	}
	return a
}

// dhcpServer makes the server of all shards, or nil if there is nobody to
// serve.
func (c *Config) dhcpServer() (*dhcp.Server, error) {
	if !c.serves4() && !c.serves6() {
		return nil, nil
	}
	d := dhcp.Config{
		HardwareAddr: c.HardwareAddr, Owner: c.SandboxHardwareAddr, MTU: c.MTU, Lease: c.Autoconf.Lease,
		Hostname: c.Autoconf.Hostname, Domain: c.Autoconf.Domain, Search: c.Autoconf.Search,
	}
	if c.serves4() {
		d.IPv4 = c.IPv4.dhcp(c.Autoconf.IPv4)
	}
	if c.serves6() {
		d.IPv6 = c.IPv6.dhcp(c.Autoconf.IPv6)
	}
	return dhcp.New(d)
}

func (a Addresses) dhcp(r dhcp.Range) dhcp.Family {
	f := dhcp.Family{Prefix: a.Prefix, Gateway: a.Gateway, Sandbox: a.Sandbox, Range: r}
	if !a.Prefix.Contains(a.Gateway) { // of DHCPv6, which names no router
		f.Gateway = a.Prefix.Masked().Addr()
	}
	if a.DNS.IsValid() {
		f.DNS = []netip.Addr{a.DNS}
	}
	return f
}

// serveDHCP has a shard's stack take in what DHCP clients send. A client that
// renews may be any shard's, so every shard answers.
func (s *shard) serveDHCP() error {
	if s.cfg.serves4() {
		for _, a := range []netip.Addr{dhcp.Broadcast4, s.cfg.IPv4.Gateway} {
			if _, err := s.stack.BindUDP(netip.AddrPortFrom(a, dhcp.ServerPort4), s.dhcpv4); err != nil {
				return err
			}
		}
	}
	if s.cfg.serves6() {
		if _, err := s.stack.BindUDP(netip.AddrPortFrom(dhcp.Servers6, dhcp.ServerPort6), s.dhcpv6); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) dhcpv4(d *netstack.Datagram) {
	if r, ok := s.dhcp.Respond4(d.Payload, s.loop.Now()); ok {
		s.sendDHCP(&r)
	}
}

func (s *shard) dhcpv6(d *netstack.Datagram) {
	r, ok := s.dhcp.Respond6(d.Payload, d.Src.Addr(), d.Station, s.loop.Now())
	if !ok {
		return
	}
	r.From = netip.AddrPortFrom(header.LinkLocalAddress(s.cfg.HardwareAddr), r.From.Port())
	r.Station = d.Station
	s.sendDHCP(&r)
}

func (s *shard) sendDHCP(r *dhcp.Reply) {
	if r.Station.IsZero() {
		s.stack.SendUDP(r.From, r.To, r.Payload, 0)
		return
	}
	s.stack.SendUDPTo(r.Station, r.From, r.To, r.Payload)
}
