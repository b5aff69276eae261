package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/portfwd"
	"sbxnet/portfwd/dns"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
)

// MaxQueues bounds --num-network-channels.
const MaxQueues = tapdev.MaxQueues

// The two ends of every link. The addresses are locally administered; no link
// has a third end to confuse them with.
var (
	GatewayMAC = header.MAC{0x02, 's', 'b', 'x', 0, 1}
	SandboxMAC = header.MAC{0x02, 's', 'b', 'x', 0, 2}
)

// A Config is what a sandbox's network is made of.
type Config struct {
	// Info and Files are the sandbox's link, as tapdev.Open returned them
	// inside. Start takes the descriptors over, also when it fails.
	Info  tapdev.Info
	Files []*os.File
	// Plan is the addresses on the link.
	Plan Plan
	// HardwareAddr of the sandbox's end; zero: SandboxMAC.
	HardwareAddr header.MAC
	// GatewayHardwareAddr of ours; zero: GatewayMAC.
	GatewayHardwareAddr header.MAC
	// MTU of the link in bytes; 0: that of Info.
	MTU int
	DNS DNS
	// HostLoopback lets the sandbox reach the host's loopback through its
	// gateway.
	HostLoopback bool
	// Forward is what else the forwarder is told: mappings, outbound addresses,
	// protocols, DHCP, limits. What the other fields here are about is not taken
	// from it.
	Forward portfwd.Config
	// Published are ports that are open from the start. Start takes their
	// sockets over, also when it fails.
	Published []spec.Bound
	// Sockets makes sockets inside the sandbox for clients of published ports, as
	// portfwd.Config says; nil: they go over the link. Where something around the
	// link is to see them, they do so all the same.
	Sockets func(v6 bool, n int) ([]*os.File, error)
	// Diverter, likewise, takes bulk out of the sandbox off the link.
	Diverter portfwd.Diverter
	// Impair makes the link a bad network.
	Impair impair.Spec
	// PCAP names the file to write what crosses the link to; empty: none.
	PCAP string
	// LogPackets has a line in PacketLog for each packet.
	LogPackets bool
	PacketLog  *slog.Logger
	// Log receives what went less well than asked; nil discards it.
	Log *slog.Logger
}

// DNS is the value of --dns. The zero value is the host's resolvers.
type DNS struct {
	// None: the sandbox has no DNS.
	None bool
	// Upstream is the server to ask, if valid.
	Upstream netip.AddrPort
}

// A Network is the running network of one sandbox. Its methods may be called
// from any goroutine, Close once.
type Network struct {
	cfg       Config
	forwarder *portfwd.Forwarder
	ports     *Ports
	// ended is closed by Close: from then on a link that goes is no news.
	ended chan struct{}
	// undo closes, last first, what was opened.
	undo []func() error
	// linkUsed: the forwarder has not ended, and has the link to the process's end.
	linkUsed bool
}

// Start brings up the stack on the link and opens the published ports.
func Start(cfg Config) (_ *Network, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HardwareAddr == (header.MAC{}) {
		cfg.HardwareAddr = SandboxMAC
	}
	if cfg.GatewayHardwareAddr == (header.MAC{}) {
		cfg.GatewayHardwareAddr = GatewayMAC
	}
	if cfg.MTU == 0 {
		cfg.MTU = cfg.Info.MTU
	}
	n := &Network{cfg: cfg, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	link, err := n.openLink()
	if err != nil {
		spec.CloseAll(cfg.Published)
		return nil, err
	}
	if err := n.forward(link); err != nil {
		return nil, fmt.Errorf("forward the sandbox's traffic: %w", err)
	}
	go n.watch()
	return n, nil
}

func (n *Network) onClose(f func() error) { n.undo = append(n.undo, f) }

// forward starts the stack on link, and the name server on the stack.
func (n *Network) forward(link tapdev.Link) error {
	cfg := &n.cfg
	published := describe(cfg.Published)
	forwarding := cfg.Forward
	forwarding.Link, forwarding.MTU = link, cfg.MTU
	forwarding.IPv4, forwarding.IPv6 = addressesOf(cfg.Plan.V4, cfg.DNS), addressesOf(cfg.Plan.V6, cfg.DNS)
	forwarding.HardwareAddr, forwarding.SandboxHardwareAddr = cfg.GatewayHardwareAddr, cfg.HardwareAddr
	forwarding.HostLoopback = cfg.HostLoopback
	forwarding.Published = cfg.Published
	if _, watched := link.(tapdev.Wrapper); !watched && maySplice {
		forwarding.Sockets, forwarding.Diverter = cfg.Sockets, cfg.Diverter
	}
	forwarding.Logger = cfg.Log
	if !cfg.DNS.None {
		names := n.nameServer()
		forwarding.Nameserver = names
		n.onClose(names.Close)
	}
	f, err := portfwd.New(forwarding)
	if err != nil {
		return err
	}
	n.onClose(func() error {
		err := f.Close()
		n.linkUsed = err != nil
		return err
	})
	n.forwarder, n.ports = f, NewPorts(f, published)
	return f.Start()
}

// ResolvConf is the host's file of resolvers.
const ResolvConf = "/etc/resolv.conf"

// nameServer asks the host's resolvers of the moment, or that of --dns.
func (n *Network) nameServer() *dns.Server {
	cfg := dns.Config{ResolvConf: ResolvConf, Gateway4: n.cfg.Plan.V4.Gateway, Gateway6: n.cfg.Plan.V6.Gateway, Log: n.cfg.Log}
	if up := n.cfg.DNS.Upstream; up.IsValid() {
		cfg.Upstreams = []netip.AddrPort{up}
	}
	return dns.New(cfg)
}

// addressesOf are a family's addresses for the stack. Without DNS it does not
// answer for the name server's.
func addressesOf(f Family, choice DNS) portfwd.Addresses {
	if !f.On() {
		return portfwd.Addresses{}
	}
	a := portfwd.Addresses{Gateway: f.Gateway, DNS: f.DNS, Sandbox: f.Sandbox, Prefix: f.Prefix}
	if choice.None {
		a.DNS = netip.Addr{}
	}
	return a
}

// watch says so if forwarding ends while the sandbox lives on. A link that goes
// with its sandbox is no news.
func (n *Network) watch() {
	<-n.forwarder.Done()
	if n.forwarder.Err() == nil {
		return
	}
	select {
	case <-n.ended:
	case <-time.After(time.Second):
		n.cfg.Log.Error("the sandbox has lost its network: " + n.forwarder.Err().Error())
	}
}

// Done is closed when the network has ended by itself, because the link is
// gone, or by Close.
func (n *Network) Done() <-chan struct{} { return n.forwarder.Done() }

// Link is what the sandbox's link was opened as.
func (n *Network) Link() tapdev.Info { return n.cfg.Info }

// Ports are the ports that lead into the sandbox.
func (n *Network) Ports() *Ports { return n.ports }

// Stats are the counters of the stack and of what it forwards, since Start.
func (n *Network) Stats() portfwd.Stats { return n.forwarder.Stats() }

// Drain waits until what the sandbox's processes sent before they ended is on
// its way; see portfwd.Forwarder.Drain.
func (n *Network) Drain(stall time.Duration, stop <-chan struct{}) {
	n.forwarder.Drain(stall, stop)
}

// Close ends all flows, frees the published ports and closes the link. Its
// error is of the files that were being written, or of a forwarder that does not end.
func (n *Network) Close() error {
	close(n.ended)
	var errs []error
	for i := len(n.undo) - 1; i >= 0; i-- {
		errs = append(errs, n.undo[i]())
	}
	n.undo = nil
	return errors.Join(errs...)
}
