package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/netstack/header"
	"sbxnet/portfwd/spec"
	"sbxnet/userns"
)

const attachHelpHead = `sbxnet attach [flags] PID|PATH gives a network namespace that exists a network like run's.

It stays until the namespace is gone, or until it gets SIGTERM or Ctrl-C. PID is
a process in the namespace, PATH is the namespace's: /run/netns/NAME or
/proc/PID/ns/net.

  unshare -rn sleep 1000 &
  sbxnet attach -p 8080:80 $!

Its DNS server is not written into any resolv.conf; sbxnet says which it is.
`

// runAttach is `sbxnet attach`: it returns when the namespace has gone, or a
// signal has come.
func (p *program) runAttach(s *attachSettings) error {
	log := console.NewLogger(p.stderr, "sbxnet", s.LogFormat, s.logLevel())
	a := &attached{settings: s, log: log, packetLog: console.NewPacketLogger(p.stderr, "sbxnet", s.LogFormat), started: time.Now(), stopped: make(chan struct{}, 1)}
	defer a.close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	for _, step := range []func() error{a.takeName, a.chooseAddresses, a.publish, a.attach, a.connect, a.serve} {
		if err := step(); err != nil {
			return err
		}
	}
	if !s.Quiet {
		a.announce(p)
	}
	return a.wait(ctx)
}

// An attached is a namespace of others with a network of ours.
type attached struct {
	settings       *attachSettings
	log, packetLog *slog.Logger
	state          *state.Dir // nil where there is no place for it
	plan           network.Plan
	published      []spec.Bound
	attachment     *userns.Attachment
	network        *network.Network
	started        time.Time
	stopped        chan struct{} // receives when a client asks for the end
	undo           []func() error
}

func (a *attached) onClose(f func() error) { a.undo = append(a.undo, f) }

func (a *attached) close() {
	for i := len(a.undo) - 1; i >= 0; i-- {
		if err := a.undo[i](); err != nil {
			a.log.Warn(err.Error())
		}
	}
}

func (a *attached) takeName() error {
	dir, err := takeName(a.settings.Name, "attached-"+filepath.Base(a.settings.Target))
	if dir, err = withoutName(dir, err, a.settings.Name, a.log); dir != nil {
		a.state = dir
		a.onClose(dir.Close)
	}
	return err
}

func (a *attached) chooseAddresses() (err error) {
	s := a.settings
	if s.Configure {
		a.plan, err = planFor(&s.settings, a.log)
	}
	return err
}

func (a *attached) publish() error {
	bound, err := spec.Bind(a.settings.Publish)
	if err != nil {
		return usagef("%w", err)
	}
	a.published = bound
	a.onClose(func() error { spec.CloseAll(bound); return nil })
	return nil
}

// attach opens the link in the namespace, and without --configure learns what
// the stack is to answer as.
func (a *attached) attach() error {
	s := a.settings
	cfg := userns.AttachConfig{
		PID: s.PID, NetNS: s.NetNS, UserNS: s.UserNS, Link: s.Link, Configure: s.Configure, Log: a.log,
	}
	if a.state != nil {
		cfg.Remove, cfg.RemoveIfEmpty = a.state.Leftovers()
	}
	if s.Configure {
		cfg.Link.HardwareAddr = net.HardwareAddr(network.SandboxMAC[:])
	}
	for _, f := range a.plan.Families() {
		cfg.Addresses = append(cfg.Addresses, prefixOf(f))
		cfg.Gateways = append(cfg.Gateways, f.Gateway)
	}
	attachment, err := userns.Attach(cfg)
	if err != nil {
		return err
	}
	a.attachment = attachment
	a.onClose(attachment.Close)
	if !s.Configure {
		a.plan = learnedPlan(attachment.Found())
	}
	return nil
}

// learnedPlan is the addresses of an interface that others configured. The
// gateway is theirs, DNS where it would be of ours. On an interface that has none
// yet it is what we would have configured.
func learnedPlan(found userns.Found) network.Plan {
	var plan network.Plan
	for _, p := range found.Addresses {
		family := &plan.V4
		if p.Addr().Is6() {
			family = &plan.V6
		}
		if family.On() {
			continue // its first address is the one that ports lead to
		}
		*family = network.Layout(p.Masked())
		family.Sandbox = p.Addr()
		if family.Gateway == family.Sandbox {
			family.Gateway = family.Prefix.Addr().Next()
		}
		for _, g := range found.Gateways {
			if g.Is4() == p.Addr().Is4() {
				family.Gateway = g
			}
		}
		if family.DNS == family.Gateway || family.DNS == family.Sandbox || !p.Contains(family.DNS) {
			family.DNS = netip.Addr{}
		}
	}
	if len(plan.Families()) == 0 {
		plan.V4, plan.V6 = network.Layout(network.DefaultCIDR4), network.Layout(network.DefaultCIDR6)
		plan.Notices = append(plan.Notices, fmt.Sprintf("no addresses are configured there: answering as gateway %s and %s for %s and %s",
			plan.V4.Gateway, plan.V6.Gateway, plan.V4.Sandbox, plan.V6.Sandbox))
	}
	return plan
}

func (a *attached) connect() error {
	s := a.settings
	info, files := a.attachment.Link()
	cfg := network.Config{
		Info: info, Files: files, Plan: a.plan, DNS: s.DNS, HostLoopback: s.HostLoopback,
		Published: a.published, Impair: s.Impair, PCAP: s.PCAP,
		LogPackets: s.LogPackets, PacketLog: a.packetLog, Log: a.log,
	}
	if s.Splice {
		cfg.Sockets, cfg.Diverter = a.attachment.Sockets, a.attachment
	}
	if found := a.attachment.Found(); len(found.HardwareAddr) == len(cfg.HardwareAddr) {
		cfg.HardwareAddr = header.MAC(found.HardwareAddr)
	}
	n, err := network.Start(cfg)
	if err != nil {
		return err
	}
	a.network = n
	a.onClose(n.Close)
	return nil
}

func (a *attached) serve() error {
	if a.state == nil {
		return nil
	}
	ports := a.network.Ports()
	sb := state.Sandbox{
		Dir: a.state, ChildPID: a.childPID(), Log: a.log,
		Network: state.NetworkInfo(a.plan, a.settings.DNS), PortDriver: state.PortInfo(ports), Ports: ports,
		Inspect: func() any { return a.inspect() },
		Stats:   func() any { return statsOf(a.network.Stats()) },
		Stop:    func(time.Duration) { a.stop() },
	}
	for _, f := range a.plan.Families() {
		sb.Addresses = append(sb.Addresses, f.Sandbox)
	}
	server, err := state.Serve(sb)
	if err != nil {
		return err
	}
	a.onClose(server.Close)
	return nil
}

// childPID is a process in the namespace: the one we were given, or ours.
func (a *attached) childPID() int {
	if a.settings.PID != 0 {
		return a.settings.PID
	}
	return a.attachment.PID()
}

// stop ends the network, and leaves the namespace alone.
func (a *attached) stop() {
	select {
	case a.stopped <- struct{}{}:
	default:
	}
}

func (a *attached) inspect() *inspection {
	i := &inspection{
		Name: a.state.Name, StateDir: a.state.Path, Version: versionString(),
		PID: os.Getpid(), ChildPID: a.childPID(), Command: []string{}, Target: a.settings.Target,
		Started: a.started, Network: "attached", Ports: []state.Port{},
	}
	i.describe(a.network, a.plan, a.settings.DNS)
	return i
}

// announce says what the namespace has now.
func (a *attached) announce(p *program) {
	for _, notice := range a.plan.Notices {
		a.log.Info(notice)
	}
	for _, f := range a.plan.Families() {
		line := fmt.Sprintf("attached: %s is %s, gateway %s", a.settings.Link.Name, prefixOf(f), f.Gateway)
		if !a.settings.DNS.None && f.DNS.IsValid() {
			line += fmt.Sprintf(", DNS %s", f.DNS)
		}
		a.log.Info(line)
	}
	for _, line := range spec.Lines(a.published) {
		fmt.Fprintln(p.stderr, line)
	}
}

// wait returns at the end of the namespace, of the link, or by request.
func (a *attached) wait(ctx context.Context) error {
	select {
	case <-a.attachment.Done():
	case <-a.stopped:
	case <-ctx.Done():
	case <-a.network.Done():
		select {
		case <-a.attachment.Done(): // which took the link with it
		case <-time.After(linkGrace):
			return fmt.Errorf("attach %s: the namespace is there, and its interface %s is gone", shown(a.settings.Target), a.settings.Link.Name)
		}
	}
	return nil
}

// linkGrace is how much later than its link a namespace may be seen to go.
const linkGrace = time.Second
