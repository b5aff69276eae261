package portfwd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
)

// Config is what a [Forwarder] is made with.
type Config struct {
	// Link reaches the sandbox. The forwarder uses it from Start to Close and
	// does not close it.
	Link tapdev.Link
	// MTU of the link's IP layer, in bytes; default 1500.
	MTU int
	// IPv4 and IPv6 are the addresses on the link. A family whose Sandbox is
	// invalid is off.
	IPv4, IPv6 Addresses
	// HardwareAddr is the gateway's, SandboxHardwareAddr the sandbox's.
	HardwareAddr, SandboxHardwareAddr header.MAC
	// HostLoopback lets the sandbox reach the host's loopback through the
	// gateway's addresses.
	HostLoopback bool
	// Published are bound host sockets. New takes them over, also when it
	// fails, and Close closes them.
	Published []spec.Bound
	// Nameserver serves port 53 of the DNS addresses, in every shard's stack,
	// from Start until Close. It stays the caller's to close. With nil the port
	// is refused like any other.
	Nameserver Nameserver
	// Autoconf is for guests that configure themselves. It costs nothing when
	// there are none.
	Autoconf Autoconf
	// SendBuffer and ReceiveBuffer bound what one TCP connection holds for
	// the sandbox and from it, in bytes; 0: chosen for the link.
	SendBuffer, ReceiveBuffer int
	// Congestion control towards the sandbox: "cubic" (default) or "newreno".
	Congestion string
	Limits     Limits
	Timeouts   Timeouts
	// Logger receives flows at debug level and what the user can mend at warn
	// level. nil discards.
	Logger *slog.Logger
}

// Addresses are those of one family.
type Addresses struct {
	// Gateway and DNS are the stack's own, Sandbox the guest's.
	Gateway, DNS, Sandbox netip.Addr
	// Prefix is what is on the link.
	Prefix netip.Prefix
}

func (a Addresses) enabled() bool { return a.Sandbox.IsValid() }

// Timeouts are idle times. Zero fields take defaults, those of nf_conntrack
// (nf_conntrack_proto_tcp.c, _udp.c, _icmp.c). Those of TCP count from the last
// payload that moved, either way, and do not run while there is payload, or an
// end of stream towards the host, that has not been acknowledged: what TCP sends
// again and again is not idle, and ends by TCP's own limits.
type Timeouts struct {
	TCPConnect     time.Duration // until both ends are connected; SYN_SENT, 120 s
	TCPEstablished time.Duration // both directions open; 5 days
	TCPFinWait     time.Duration // the host's end of stream passed on, unacknowledged; 120 s
	TCPCloseWait   time.Duration // one direction ended; 60 s
	TCPLastAck     time.Duration // both ended, the last FIN unacknowledged; 30 s
	UDPUnreplied   time.Duration // datagrams one way only; 30 s
	UDPStream      time.Duration // datagrams both ways; 120 s
	Echo           time.Duration // 30 s
}

// packetWindow is the smallest TCP window that is of use, whatever the link's
// receive buffer.
const packetWindow = 64 << 10

// bufferSize is what one connection may hold, without a word from the user.
const bufferSize = 1 << 20

func (c *Config) setDefaults() {
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits.setDefaults()
	setDefault(&c.Timeouts.TCPConnect, 120*time.Second)
	setDefault(&c.Timeouts.TCPEstablished, 5*24*time.Hour)
	setDefault(&c.Timeouts.TCPFinWait, 120*time.Second)
	setDefault(&c.Timeouts.TCPCloseWait, 60*time.Second)
	setDefault(&c.Timeouts.TCPLastAck, 30*time.Second)
	setDefault(&c.Timeouts.UDPUnreplied, 30*time.Second)
	setDefault(&c.Timeouts.UDPStream, 120*time.Second)
	setDefault(&c.Timeouts.Echo, 30*time.Second)
	setDefault(&c.SendBuffer, bufferSize)
	if c.ReceiveBuffer <= 0 {
		c.ReceiveBuffer = receiveWindow(c.Link)
	}
}

// receiveWindow is how much the sandbox may send on one connection before we
// have read it: what the kernel holds between two reads. A packet socket counts
// the memory that frames occupy, so it has to be well below its buffer.
func receiveWindow(l tapdev.Link) int {
	held := tapdev.ReceiveBuffer(l)
	if held <= 0 {
		return bufferSize
	}
	return min(max(held/2, packetWindow), bufferSize)
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (c *Config) check() error {
	if c.Link == nil || len(c.Link.Queues()) == 0 {
		return errors.New("portfwd: no link")
	}
	if !c.IPv4.enabled() && !c.IPv6.enabled() {
		return errors.New("portfwd: the sandbox has no address")
	}
	for _, a := range []Addresses{c.IPv4, c.IPv6} {
		if !a.enabled() {
			continue
		}
		for _, x := range []netip.Addr{a.Gateway, a.Sandbox} {
			if !a.Prefix.Contains(x) {
				return fmt.Errorf("portfwd: address %v is not in %v", x, a.Prefix)
			}
		}
	}
	return nil
}

// stack is the configuration of one shard's stack.
func (c *Config) stack(seed [32]byte) netstack.Config {
	n := netstack.Config{
		HardwareAddr: c.HardwareAddr,
		MTU:          c.MTU,
		Caps:         c.Link.Capabilities(),
		Seed:         seed,
		TCP: tcp.Config{
			SendBuffer: c.SendBuffer, ReceiveBuffer: c.ReceiveBuffer, Congestion: c.Congestion,
			Limits: c.Limits.Engine,
		},
		Limits: c.Limits.Stack,
	}
	for _, a := range []Addresses{c.IPv4, c.IPv6} {
		if !a.enabled() {
			continue
		}
		n.Addresses = append(n.Addresses, netip.PrefixFrom(a.Gateway, a.Prefix.Bits()))
		if a.DNS.IsValid() {
			n.Addresses = append(n.Addresses, netip.PrefixFrom(a.DNS, a.Prefix.Bits()))
		}
		// The sandbox's address is known: nobody has to be asked, on any shard.
		n.Neighbors = append(n.Neighbors, netstack.Neighbor{Addr: a.Sandbox, MAC: c.SandboxHardwareAddr})
	}
	n.NextHop4, n.NextHop6 = c.IPv4.Sandbox, c.IPv6.Sandbox
	n.RouterAdvertisement = c.routerAdvertisement()
	return n
}
