package portfwd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
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
	// gateway's addresses. It is the two HostMappings that say so.
	HostLoopback bool
	// HostMappings are addresses that lead from the sandbox to the host's own.
	HostMappings []HostMapping
	// GatewayUnreachable has attempts to connect to the gateway's addresses
	// fail with "network is unreachable", where no mapping takes them. Else
	// they are refused.
	GatewayUnreachable bool
	// AnswerAll is for a sandbox with the host's own addresses: the prefixes
	// are those of the host's network, so that its neighbours, the real gateway
	// among them, are reached from the sandbox like any other address.
	AnswerAll bool
	// LoopbackFirst has clients from the host's loopback find the server on
	// 127.0.0.1 of the sandbox, if there is one, before those on its other
	// addresses. They come from the gateway all the same: what comes by a link
	// cannot come from loopback.
	LoopbackFirst bool
	// Silent are addresses that answer ARP, neighbour solicitations and ping on
	// the link, and nothing else: what is sent to them is lost.
	Silent []netip.Addr
	// Outbound4 and Outbound6 are where the sandbox's traffic leaves the host,
	// but for what HostMappings lead to.
	Outbound4, Outbound6 Outbound
	// NoTCP, NoUDP and NoICMP each switch one off, without a word to who tries;
	// its ports cannot be published. DHCP is not affected, see Autoconf.
	NoTCP, NoUDP, NoICMP bool
	// Published are bound host sockets. New takes them over, also when it
	// fails, as [Forwarder.Publish] does.
	Published []spec.Bound
	// Sockets makes n TCP sockets inside the sandbox, of IPv6 or IPv4, that can
	// appear there as any client: as userns.Sandbox.Sockets says. With them the
	// connections of published ports are spliced, and do without the link. It is
	// called in the background; nil, or an error: they go over the link.
	Sockets func(v6 bool, n int) ([]*os.File, error)
	// Diverter, with Sockets, takes connections with bulk off the link while they
	// run. It is called in the background; nil: they stay there.
	Diverter Diverter
	diverts  divertTimes
	// Nameserver serves port 53 of the DNS addresses and of DNSAddresses, in
	// every shard's stack, from Start until Close. It stays the caller's to
	// close. With nil the port is refused like any other.
	Nameserver   Nameserver
	DNSAddresses []netip.Addr
	// Autoconf is for guests that configure themselves. It costs nothing when
	// there are none.
	Autoconf Autoconf
	// SendBuffer and ReceiveBuffer bound what one TCP connection holds for
	// the sandbox and from it at first, in bytes; 0: chosen for the link.
	// SendBufferMax and ReceiveBufferMax bound what that grows to as the path
	// asks for it; 0: chosen for the link, or, where the size is set, that.
	SendBuffer, SendBufferMax       int
	ReceiveBuffer, ReceiveBufferMax int
	// Congestion control towards the sandbox: "cubic" (default) or "newreno".
	Congestion string
	Limits     Limits
	Timeouts   Timeouts
	// Logger receives flows at debug level and what the user can mend at warn
	// level. nil discards.
	Logger *slog.Logger
}

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

// What one connection may hold without a word from the user: at first, which is
// more than a link in memory needs, and where the path is longer.
const (
	bufferSize    = 512 << 10
	bufferSizeMax = 16 << 20

	segmentsWindow = 128 << 10
)

func (c *Config) setDefaults() {
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits.setDefaults()
	setDefault(&c.diverts.bulk, bulkTime)
	setDefault(&c.diverts.hold, holdMost)
	setDefault(&c.Timeouts.TCPConnect, 120*time.Second)
	setDefault(&c.Timeouts.TCPEstablished, 5*24*time.Hour)
	setDefault(&c.Timeouts.TCPFinWait, 120*time.Second)
	setDefault(&c.Timeouts.TCPCloseWait, 60*time.Second)
	setDefault(&c.Timeouts.TCPLastAck, 30*time.Second)
	setDefault(&c.Timeouts.UDPUnreplied, 30*time.Second)
	setDefault(&c.Timeouts.UDPStream, 120*time.Second)
	setDefault(&c.Timeouts.Echo, 30*time.Second)
	if c.SendBuffer <= 0 {
		setDefault(&c.SendBufferMax, bufferSizeMax)
		c.SendBuffer = min(bufferSize, c.SendBufferMax)
	}
	if c.ReceiveBuffer <= 0 {
		most := receiveWindow(c.Link)
		setDefault(&c.ReceiveBufferMax, most)
		c.ReceiveBufferMax = min(c.ReceiveBufferMax, most)
		c.ReceiveBuffer = min(firstWindow(c.Link), c.ReceiveBufferMax)
	}
}

// firstWindow is the window that a connection begins with. A sandbox that cuts
// its segments itself fills the link's queue with forty times as many frames,
// each of which counts or has its cost in memory: a dozen such connections are to
// find room in it.
func firstWindow(l tapdev.Link) int {
	for {
		w, ok := l.(tapdev.Wrapper)
		if !ok {
			break
		}
		l = w.Unwrap()
	}
	d, ok := l.(interface{ Info() tapdev.Info })
	if !ok {
		return bufferSize
	}
	if i := d.Info(); !(i.GSO && i.KernelTSO && i.RXChecksum) {
		return segmentsWindow
	}
	return bufferSize
}

// receiveWindow is how much the sandbox may send on one connection before we
// have read it: what the kernel holds between two reads. A packet socket counts
// the memory that frames occupy, so it has to be well below its buffer. A TAP
// counts frames. Its queue is safe because a window grows with the round trip: it
// is wide where bytes are long on their way, and not in the queue.
func receiveWindow(l tapdev.Link) int {
	held := tapdev.ReceiveBuffer(l)
	if held <= 0 {
		return bufferSizeMax
	}
	return min(max(held/2, packetWindow), bufferSizeMax)
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
		if err := a.check(); err != nil {
			return err
		}
	}
	for _, m := range c.HostMappings {
		if err := m.check(c); err != nil {
			return err
		}
	}
	for _, a := range slices.Concat(c.DNSAddresses, c.Silent) {
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("portfwd: the stack can stand for nobody at %v", a)
		}
	}
	return errors.Join(c.Outbound4.check(true), c.Outbound6.check(false))
}

// stack is the configuration of one shard's stack.
func (c *Config) stack(seed [32]byte) netstack.Config {
	n := netstack.Config{
		HardwareAddr: c.HardwareAddr,
		MTU:          c.MTU,
		Caps:         c.Link.Capabilities(),
		Seed:         seed,
		TCP: tcp.Config{
			SendBuffer: c.SendBuffer, SendBufferMax: c.SendBufferMax,
			ReceiveBuffer: c.ReceiveBuffer, ReceiveBufferMax: c.ReceiveBufferMax,
			Congestion: c.Congestion,
			Limits:     c.Limits.Engine,
		},
		Limits:    c.Limits.Stack,
		AnswerAll: c.AnswerAll,
		NoEcho:    c.NoICMP,
	}
	for _, a := range []Addresses{c.IPv4, c.IPv6} {
		if !a.enabled() {
			continue
		}
		n.OnLink = append(n.OnLink, a.Prefix)
		n.Addresses = append(n.Addresses, a.own(a.Gateway))
		if a.DNS.IsValid() {
			n.Addresses = append(n.Addresses, a.own(a.DNS))
		}
		// What else is on the link has to be answered for, too.
		for _, more := range c.stoodFor() {
			if a.Prefix.Contains(more) {
				n.Addresses = append(n.Addresses, a.own(more))
			}
		}
		// The sandbox's address is known: nobody has to be asked, on any shard.
		n.Neighbors = append(n.Neighbors, netstack.Neighbor{Addr: a.Sandbox, MAC: c.SandboxHardwareAddr})
	}
	n.NextHop4, n.NextHop6 = c.IPv4.Sandbox, c.IPv6.Sandbox
	n.RouterAdvertisement = c.routerAdvertisement()
	return n
}
