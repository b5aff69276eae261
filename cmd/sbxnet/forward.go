package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/portfwd"
	"sbxnet/portfwd/dns"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
	"sbxnet/tapdev/pcap"
	"sbxnet/userns"
)

// maxChannels bounds --num-network-channels.
const maxChannels = tapdev.MaxQueues

// The two ends of every link. The addresses are locally administered; no link
// has a third end to confuse them with.
var (
	gatewayMAC = header.MAC{0x02, 's', 'b', 'x', 0, 1}
	sandboxMAC = header.MAC{0x02, 's', 'b', 'x', 0, 2}
)

// forward attaches to the sandbox's link and starts the stack on it.
func (r *running) forward() error {
	if r.settings.Network != userns.NetworkSandbox {
		return nil
	}
	link, err := r.attach()
	if err != nil {
		return err
	}
	s := r.settings
	cfg := portfwd.Config{
		Link:         link,
		MTU:          s.Link.MTU,
		IPv4:         addressesOf(r.plan.V4, s.DNS),
		IPv6:         addressesOf(r.plan.V6, s.DNS),
		HardwareAddr: gatewayMAC, SandboxHardwareAddr: sandboxMAC,
		HostLoopback: s.HostLoopback,
		Published:    r.published,
		Logger:       r.log,
	}
	if !s.DNS.None {
		names := r.nameServer()
		cfg.Nameserver = names
		r.onClose(names.Close)
	}
	f, err := portfwd.New(cfg)
	if err != nil {
		return fmt.Errorf("forward the sandbox's traffic: %w", err)
	}
	r.onClose(f.Close)
	r.forwarder = f
	if err := f.Start(); err != nil {
		return fmt.Errorf("forward the sandbox's traffic: %w", err)
	}
	go r.watch(f)
	return nil
}

// nameServer asks the host's resolvers of the moment, or that of --dns.
func (r *running) nameServer() *dns.Server {
	cfg := dns.Config{ResolvConf: resolvConfPath, Gateway4: r.plan.V4.Gateway, Gateway6: r.plan.V6.Gateway, Log: r.log}
	if up := r.settings.DNS.Upstream; up.IsValid() {
		cfg.Upstreams = []netip.AddrPort{up}
	}
	return dns.New(cfg)
}

// addressesOf are a family's addresses for the stack. Without DNS it does not
// answer for the name server's.
func addressesOf(f family, choice dnsChoice) portfwd.Addresses {
	if !f.on() {
		return portfwd.Addresses{}
	}
	a := portfwd.Addresses{Gateway: f.Gateway, DNS: f.DNS, Sandbox: f.Sandbox, Prefix: f.Prefix}
	if choice.None {
		a.DNS = netip.Addr{}
	}
	return a
}

// attach takes over the sandbox's link and puts what impairs and watches it
// around it. Watched is our end: what the sandbox sent and was not lost, and what
// we send, lost or not.
func (r *running) attach() (link tapdev.Link, err error) {
	info, files := r.sandbox.Link()
	if link, err = tapdev.Attach(info, files); err != nil {
		return nil, fmt.Errorf("attach to the sandbox's link: %w", err)
	}
	r.onClose(func() error { return link.Close() })
	tapdev.SetLogger(link, r.log)
	for _, note := range info.Notes {
		r.log.Info(note)
	}
	r.log.Debug("link", "kind", info.Kind, "virtio_header", info.VnetHeader, "queues", info.Queues, "mtu", info.MTU)
	impaired, err := impair.Wrap(link, r.settings.Impair)
	if err != nil {
		return link, fmt.Errorf("--impair %v: %w", r.settings.Impair, err)
	}
	link = impaired
	if r.settings.LogPackets {
		link = pcap.LogPackets(link, r.packetLog)
	}
	if r.settings.PCAP == "" {
		return link, nil
	}
	captured, err := r.capture(link)
	if err != nil {
		return link, err
	}
	link = captured
	return link, nil
}

// capture makes the file of --pcap and writes what passes link to it. Other
// users do not get to read it.
func (r *running) capture(link tapdev.Link) (tapdev.Link, error) {
	name := r.settings.PCAP
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, usagef("--pcap %s: %w; name a file that can be written", shown(name), errors.Unwrap(err))
	}
	captured, err := pcap.Capture(link, file, pcap.Options{Interface: interfaceName, Logger: r.log})
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("--pcap %s: %w", shown(name), err)
	}
	return captured, nil
}

// watch says so if forwarding ends while the sandbox lives on. A link that goes
// with its sandbox is no news.
func (r *running) watch(f *portfwd.Forwarder) {
	<-f.Done()
	if f.Err() == nil {
		return
	}
	select {
	case <-r.ended:
	case <-time.After(time.Second):
		r.log.Error("the sandbox has lost its network: " + f.Err().Error())
	}
}
