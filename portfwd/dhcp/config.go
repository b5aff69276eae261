package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sbxnet/netstack/header"
)

// Ports (RFC 2131 §4.1, RFC 8415 §7.2) and the group that DHCPv6 clients speak
// to (RFC 8415 §7.1).
const (
	ServerPort4, ClientPort4 = 67, 68
	ServerPort6, ClientPort6 = 547, 546
)

var (
	// Servers6 is All_DHCP_Relay_Agents_and_Servers, ff02::1:2.
	Servers6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 13: 1, 15: 2})
	// Broadcast4 is the limited broadcast address.
	Broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// Bounds and defaults.
const (
	MaxLeases    = 1024 // addresses that one family gives out
	MaxMessage   = 1500 // bytes of a request that is read at all, and of a DHCPv4 reply
	DefaultLease = 24 * time.Hour

	defaultRange = 100              // addresses
	offerTime    = time.Minute      // an offer stands
	declineTime  = 10 * time.Minute // an address that somebody else had is left alone
)

// Config is what a [Server] is made with.
type Config struct {
	// IPv4 and IPv6 are what is given out. A family without Prefix is not
	// served.
	IPv4, IPv6 Family
	// HardwareAddr is the server's Ethernet address. Its DUID is made of it.
	HardwareAddr header.MAC
	// Owner is the station that gets Family.Sandbox. Zero: the first to ask.
	Owner header.MAC
	// MTU of the link, in bytes.
	MTU int
	// Hostname of the owner; empty: not told.
	Hostname string
	// Domain is the client's own, Search the domains in which it looks for
	// names.
	Domain string
	Search []string
	// Lease is how long an address is given for; default [DefaultLease].
	Lease time.Duration
}

// Family is the addresses of one family.
type Family struct {
	// Prefix is what is on the link.
	Prefix netip.Prefix
	// Gateway is the router. In DHCPv4 it is the server's address as well.
	Gateway netip.Addr
	// Sandbox is the owner's address. Without it the owner is a client like
	// any other.
	Sandbox netip.Addr
	// DNS are the resolvers, at most eight.
	DNS []netip.Addr
	// Range is where everyone else's addresses come from; by default a hundred
	// that follow Sandbox. If it is given and Sandbox is not in it, Sandbox is
	// not given out.
	Range Range
}

// Range is the addresses from First to Last, both included.
type Range struct{ First, Last netip.Addr }

const maxServers = 8

func (c *Config) setDefaults() {
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	c.IPv4.setDefaults()
	c.IPv6.setDefaults()
}

func (f *Family) setDefaults() {
	if f.Range != (Range{}) {
		if f.Sandbox.IsValid() && (f.Sandbox.Less(f.Range.First) || f.Range.Last.Less(f.Sandbox)) {
			f.Sandbox = netip.Addr{}
		}
		return
	}
	if !f.served() || !f.Sandbox.IsValid() {
		return
	}
	f.Range.First = f.Sandbox
	f.Range.Last = f.Sandbox
	for range defaultRange {
		next := f.Range.Last.Next()
		if !f.Prefix.Contains(next) {
			break
		}
		f.Range.Last = next
	}
}

func (f *Family) served() bool { return f.Prefix.IsValid() }

func (c *Config) check() error {
	if c.Lease < 2*time.Second || c.Lease >= 1<<32*time.Second {
		return fmt.Errorf("dhcp: lease of %v is not in 2 s … 136 years", c.Lease)
	}
	if c.IPv6.served() && !c.HardwareAddr.IsUnicast() {
		return fmt.Errorf("dhcp: hardware address %v is not a station's", c.HardwareAddr)
	}
	if c.IPv4.served() && (c.MTU < 68 || c.MTU > 65535) { // RFC 2132 §5.1
		return fmt.Errorf("dhcp: MTU %d is not in 68…65535", c.MTU)
	}
	if len(c.Hostname) > 63 {
		return errors.New("dhcp: host name is longer than 63 bytes")
	}
	if c.Domain != "" {
		if err := checkDomain(c.Domain); err != nil {
			return err
		}
	}
	for _, name := range c.Search {
		if err := checkDomain(name); err != nil {
			return err
		}
	}
	if err := c.IPv4.check(true); err != nil {
		return err
	}
	return c.IPv6.check(false)
}

func (f *Family) check(ipv4 bool) error {
	if !f.served() {
		return nil
	}
	for _, a := range []netip.Addr{f.Gateway, f.Range.First, f.Range.Last} {
		if a.Is4() != ipv4 || !f.Prefix.Contains(a) {
			return fmt.Errorf("dhcp: address %v is not in %v", a, f.Prefix)
		}
	}
	if f.Sandbox.IsValid() && !f.Prefix.Contains(f.Sandbox) {
		return fmt.Errorf("dhcp: address %v is not in %v", f.Sandbox, f.Prefix)
	}
	if f.Range.Last.Less(f.Range.First) {
		return fmt.Errorf("dhcp: range %v–%v is empty", f.Range.First, f.Range.Last)
	}
	if len(f.DNS) > maxServers {
		return fmt.Errorf("dhcp: %d resolvers, more than %d", len(f.DNS), maxServers)
	}
	for _, a := range f.DNS {
		if a.Is4() != ipv4 || a.Is4In6() || !a.IsValid() {
			return fmt.Errorf("dhcp: resolver %v is of another family", a)
		}
	}
	return nil
}

// isHost reports whether a can be a client's: on the link, and neither ours
// nor, in IPv4, a broadcast address.
func (f *Family) isHost(a netip.Addr) bool {
	if !f.Prefix.Contains(a) || a == f.Gateway {
		return false
	}
	for _, d := range f.DNS {
		if a == d {
			return false
		}
	}
	if a.Is4() && f.Prefix.Bits() <= 30 {
		return a != f.Prefix.Masked().Addr() && a != lastAddr(f.Prefix)
	}
	return true
}

// lastAddr is the highest address in an IPv4 prefix, its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// checkDomain reports whether a name can be written as RFC 1035 §3.1 has it,
// for RFC 3397 and RFC 3646 alike. The library that writes it does not ask.
func checkDomain(name string) error {
	length := 1 // of the root
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if len(label) == 0 || len(label) > 63 {
			return fmt.Errorf("dhcp: domain %q has a label of %d bytes", name, len(label))
		}
		length += 1 + len(label)
	}
	if length > 255 {
		return fmt.Errorf("dhcp: domain %q is longer than 255 bytes", name)
	}
	return nil
}
