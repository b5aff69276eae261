package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/reassembly"
	"sbxnet/netstack/tcp"
)

// MinMTU is the smallest MTU for IPv4 (RFC 791 §3.1: every host takes 576
// bytes), MinMTU6 that for IPv6 (RFC 8200 §5), MaxMTU the largest IP packet.
const (
	MinMTU  = 576
	MinMTU6 = 1280
	MaxMTU  = 65535
)

// Config is what a [Stack] is made with.
type Config struct {
	// HardwareAddr is the stack's own Ethernet address.
	HardwareAddr header.MAC
	// Addresses are answered for: each is one of the stack's own addresses
	// with the prefix that is on the link. The first of each family is the
	// gateway, from which ICMP errors come. The link-local IPv6 address that
	// HardwareAddr gives is added by itself if there is any IPv6 address.
	Addresses []netip.Prefix
	// OnLink are prefixes on the link besides those of Addresses. Hosts are told
	// of the first IPv6 one.
	OnLink []netip.Prefix
	// AnswerAll has the stack stand for all the world, as a router with proxy
	// ARP does: it answers ARP and neighbour discovery for every address but
	// those of NextHop4, NextHop6 and Neighbors, link-local IPv6 ones and what
	// somebody asks for to take it himself; and flows to addresses on the link
	// are the Handler's, too.
	AnswerAll bool
	// NoEcho leaves echo requests without an answer, also those to the stack's
	// own addresses.
	NoEcho bool
	// NextHop4 and NextHop6 are where destinations go that are not on the
	// link: the sandbox's own addresses. Invalid: such packets are dropped.
	NextHop4, NextHop6 netip.Addr
	// Neighbors are known from the start and never change.
	Neighbors []Neighbor
	// MTU of the link's IP layer, in bytes; default 1500.
	MTU int
	// Caps is what the link does for output frames.
	Caps frame.Capabilities
	// Output receives all frames. It belongs to the caller, who resets it.
	Output *frame.Batch
	// Seed is the source of all randomness and must be unpredictable, but in
	// tests.
	Seed [32]byte
	// TCP configures the engine. MTU, Caps, Secret and Rand are set by New.
	TCP tcp.Config
	// Handler takes the flows that nothing in the stack takes. With nil they
	// are refused.
	Handler Handler
	// RouterAdvertisement says what IPv6 hosts on the link are told.
	RouterAdvertisement RouterAdvertisement
	// Limits bound what the stack holds and sends. Zero fields take defaults.
	Limits Limits
	// NoDuplicateDetection leaves out the question whether another station has
	// one of the stack's IPv6 addresses (RFC 4862 §5.4), which otherwise goes out
	// once, when the first frame comes in.
	NoDuplicateDetection bool
	// AddressConflict, unless nil, is called when another station uses one of
	// the stack's addresses, or probes for an IPv6 one to use it: as often as
	// that is seen. The stack goes on with the address. It is called from Input.
	AddressConflict func(a netip.Addr, station header.MAC)
}

// Neighbor is a station on the link that need not be asked for.
type Neighbor struct {
	Addr netip.Addr
	MAC  header.MAC
}

// Handler takes the flows that no listener, connection or endpoint of the stack
// takes. It is called from Input and must not keep what it is given.
type Handler interface {
	// OpenTCP is called with a held connection: see tcp.Engine.SetOpenHandler.
	OpenTCP(c *tcp.Conn)
	// Datagram is called with a UDP datagram, or a train of them.
	Datagram(d *Datagram)
	// Echo is called with an ICMP or ICMPv6 echo request to an address that
	// is not the stack's own.
	Echo(e *Echo)
	// Unreachable is called when the sandbox reports that a datagram of a
	// flow that is no endpoint's did not arrive.
	Unreachable(u *Unreachable)
}

// Limits bound what a hostile sandbox can make the stack hold or send. TCP has
// limits of its own in tcp.Config.
type Limits struct {
	Neighbors  neighbor.Limits   // for each family
	Reassembly reassembly.Limits // for each family
	// ICMPErrors is how many ICMP errors are sent per second, in the long run,
	// and ICMPBurst how many at once.
	ICMPErrors, ICMPBurst int
}

// The defaults of [Limits], as Linux's net.ipv4.icmp_msgs_per_sec and
// icmp_msgs_burst.
const (
	DefaultICMPErrors = 1000
	DefaultICMPBurst  = 50
)

// RouterAdvertisement configures what is sent in answer to router
// solicitations (RFC 4861 §6.2), if the stack has an IPv6 address. The prefixes
// are those of Config.Addresses, and always on-link.
type RouterAdvertisement struct {
	// Disabled leaves router solicitations unanswered.
	Disabled bool
	// Autonomous lets hosts form addresses of their own from the prefixes
	// (RFC 4862). It needs prefixes of 64 bits.
	Autonomous bool
	// Managed says that addresses are to be had by DHCPv6, and Other that all
	// else is (RFC 4861 §4.2).
	Managed, Other bool
	// DNS are the resolvers to announce (RFC 8106), usually one.
	DNS []netip.Addr
	// Lifetime of the default route and of all else that is announced; zero
	// means 1800 s.
	Lifetime time.Duration
	// Interval between advertisements that nobody asked for, at most; it is
	// brought into 4 s … 1800 s (RFC 4861 §6.2.1), and Lifetime to no less than
	// three times as long. With zero there are none until a host solicits:
	// from then on, what it was told is renewed every third of Lifetime.
	Interval time.Duration
}

const defaultRouterLifetime = 1800 * time.Second

func (c *Config) setDefaults() {
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Limits.ICMPErrors <= 0 {
		c.Limits.ICMPErrors = DefaultICMPErrors
	}
	if c.Limits.ICMPBurst <= 0 {
		c.Limits.ICMPBurst = DefaultICMPBurst
	}
	if c.Caps.MaxFrame == 0 {
		c.Caps.MaxFrame = c.MTU + header.EthernetLen
	}
	if c.RouterAdvertisement.Lifetime == 0 {
		c.RouterAdvertisement.Lifetime = defaultRouterLifetime
	}
	c.RouterAdvertisement.bound()
}

// bound brings the times into their bounds.
func (c *RouterAdvertisement) bound() {
	if c.Interval > 0 {
		c.Interval = min(max(c.Interval, minRAIntervalMax), maxRAIntervalMax)
		c.Lifetime = max(c.Lifetime, 3*c.Interval)
	}
}

// check reports what in c cannot work, after setDefaults.
func (c *Config) check() error {
	if !c.HardwareAddr.IsUnicast() {
		return fmt.Errorf("netstack: hardware address %v is not a station's", c.HardwareAddr)
	}
	if c.Output == nil {
		return errors.New("netstack: no output batch")
	}
	if c.MTU < MinMTU || c.MTU > MaxMTU {
		return fmt.Errorf("netstack: MTU %d is not in %d…%d", c.MTU, MinMTU, MaxMTU)
	}
	for _, p := range c.Addresses {
		if err := c.checkAddress(p); err != nil {
			return err
		}
	}
	for _, p := range c.OnLink {
		if !p.IsValid() {
			return fmt.Errorf("netstack: prefix %v is none", p)
		}
	}
	if c.NextHop4.IsValid() && !c.NextHop4.Is4() {
		return fmt.Errorf("netstack: next hop %v is not IPv4", c.NextHop4)
	}
	if c.NextHop6.IsValid() && (!c.NextHop6.Is6() || c.NextHop6.Is4In6()) {
		return fmt.Errorf("netstack: next hop %v is not IPv6", c.NextHop6)
	}
	for _, n := range c.Neighbors {
		if !n.Addr.IsValid() || !n.MAC.IsUnicast() {
			return fmt.Errorf("netstack: neighbor %v at %v is not a station", n.Addr, n.MAC)
		}
	}
	return nil
}

func (c *Config) checkAddress(p netip.Prefix) error {
	a := p.Addr()
	if !p.IsValid() || header.IsMartianSource(a) {
		return fmt.Errorf("netstack: address %v cannot be a host's", p)
	}
	if a.Is6() && c.MTU < MinMTU6 {
		return fmt.Errorf("netstack: IPv6 address %v needs an MTU of at least %d, not %d", a, MinMTU6, c.MTU)
	}
	return nil
}
