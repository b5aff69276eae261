package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

// tunDevice is where a TAP comes from, and the name of doctor's line about it.
const tunDevice = "/dev/net/tun"

// runSandbox is `sbxnet run`: it returns when the command has ended and
// nothing of the sandbox is left.
func (p *program) runSandbox(s *settings) error {
	log := console.NewLogger(p.stderr, "sbxnet", s.LogFormat, s.logLevel())
	stopProfiles, err := s.startProfiles(log)
	if err != nil {
		return err
	}
	defer stopProfiles()
	r, err := start(s, log, console.NewPacketLogger(p.stderr, "sbxnet", s.LogFormat))
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.exec(); err != nil {
		return err
	}
	if !s.Quiet {
		for _, line := range spec.Lines(r.published) {
			fmt.Fprintln(p.stderr, line)
		}
	}
	return r.wait()
}

// logLevel is --log-level; -q leaves notices out.
func (s *settings) logLevel() slog.Level {
	if s.Quiet && s.LogLevel == slog.LevelInfo {
		return slog.LevelWarn
	}
	return s.LogLevel
}

// A running is one sandbox with all that belongs to it on the host.
type running struct {
	settings *settings
	log      *slog.Logger
	// packetLog is for --log-packets, whatever --log-level is.
	packetLog *slog.Logger
	plan      network.Plan
	published []spec.Bound
	sandbox   *userns.Sandbox
	network   *network.Network // nil without a network of the sandbox's own
	state     *state.Dir       // nil where there is no place for it
	listeners []*os.File       // for the command
	started   time.Time
	// ended is closed when the command has.
	ended  chan struct{}
	killed atomic.Bool // by stop, which lost patience
	// undo closes, last first, what was opened.
	undo []func() error
}

// start brings everything up but the command. On an error it has undone what
// it did.
func start(s *settings, log, packetLog *slog.Logger) (_ *running, err error) {
	r := &running{settings: s, log: log, packetLog: packetLog, started: time.Now(), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, step := range []func() error{r.takeListeners, r.takeName, r.chooseAddresses, r.publish, r.startSandbox, r.connect, r.serve} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if !s.Quiet { // and not earlier: an error is to be the only line
		for _, notice := range r.plan.Notices {
			r.log.Info(notice)
		}
	}
	return r, nil
}

func (r *running) onClose(f func() error) { r.undo = append(r.undo, f) }

// close ends what is still there. It is called once.
func (r *running) close() {
	for i := len(r.undo) - 1; i >= 0; i-- {
		if err := r.undo[i](); err != nil {
			r.log.Warn(err.Error())
		}
	}
	r.undo = nil
}

func (r *running) chooseAddresses() (err error) {
	s := r.settings
	if s.Network != userns.NetworkSandbox {
		return nil
	}
	r.plan, err = planFor(s, r.log)
	return err
}

// planFor chooses addresses out of the way of the host's routes.
func planFor(s *settings, log *slog.Logger) (network.Plan, error) {
	host, err := network.HostPrefixes()
	if err != nil {
		log.Warn("cannot tell whether the sandbox's addresses collide with the host's: " + err.Error())
	}
	return network.PlanAddresses(network.PlanRequest{CIDR4: s.CIDR4, CIDR6: s.CIDR6, IPv6: s.IPv6}, host)
}

func (r *running) publish() error {
	bound, err := spec.Bind(r.settings.Publish)
	if err != nil {
		return usagef("%w", err)
	}
	r.published = bound
	r.onClose(func() error { spec.CloseAll(bound); return nil }) // if the network has not taken them over
	return nil
}

func (r *running) startSandbox() error {
	cfg := r.sandboxConfig()
	if err := r.addEngineSettings(&cfg); err != nil {
		return err
	}
	sb, err := userns.Start(cfg)
	if err != nil {
		return r.explain(err)
	}
	r.sandbox = sb
	r.onClose(sb.Close)
	return nil
}

// explain adds to the error of a sandbox that did not start what doctor would
// say about the link that was asked for.
func (r *running) explain(err error) error {
	s := r.settings
	if s.Network != userns.NetworkSandbox || s.Link.Kind != tapdev.TAP {
		return err
	}
	for _, f := range tapdev.Check() {
		if f.Name == tunDevice && f.Status != tapdev.OK {
			return fmt.Errorf("--link tap: %w; to mend it: %s, or use --link packet", err, f.Fix)
		}
	}
	return err
}

func (r *running) sandboxConfig() userns.Config {
	s := r.settings
	c := userns.Config{
		Command:      s.Command,
		Env:          r.environment(),
		UserMap:      s.UserMap,
		Network:      s.Network,
		Hostname:     s.Hostname,
		PIDNamespace: s.PIDNamespace,
		NetRaw:       s.NetRaw,
		Hosts:        s.hostsFile(r.plan, hostHosts()),
		ResolvConf:   s.resolvConf(r.plan, hostResolvers(r.log)),
		Log:          r.log,
	}
	if r.state != nil {
		c.Remove, c.RemoveIfEmpty = r.state.Leftovers()
	}
	if s.Network != userns.NetworkSandbox {
		return c
	}
	c.Link = s.Link
	c.Link.HardwareAddr = net.HardwareAddr(network.SandboxMAC[:])
	for _, f := range r.plan.Families() {
		c.Addresses = append(c.Addresses, prefixOf(f))
		c.Gateways = append(c.Gateways, f.Gateway)
	}
	return c
}

// prefixOf is the sandbox's address with the length of its subnet.
func prefixOf(f network.Family) netip.Prefix { return netip.PrefixFrom(f.Sandbox, f.Prefix.Bits()) }

// connect gives the sandbox its network, by way of the link that was opened in
// it.
func (r *running) connect() error {
	s := r.settings
	if s.Network != userns.NetworkSandbox {
		return nil
	}
	info, files := r.sandbox.Link()
	cfg := network.Config{
		Info: info, Files: files, Plan: r.plan, MTU: s.Link.MTU, DNS: s.DNS, HostLoopback: s.HostLoopback,
		Published: r.published, Impair: s.Impair, PCAP: s.PCAP,
		LogPackets: s.LogPackets, PacketLog: r.packetLog, Log: r.log,
	}
	if s.Splice {
		cfg.Sockets, cfg.Diverter = r.sandbox.Sockets, r.sandbox
	}
	n, err := network.Start(cfg)
	if err != nil {
		return err
	}
	r.network = n
	r.onClose(n.Close)
	return nil
}

// exec starts the command.
func (r *running) exec() error {
	r.onClose(stopper(r.sandbox.ForwardSignals()))
	return r.sandbox.Exec()
}

func stopper(stop func()) func() error {
	return func() error { stop(); return nil }
}

// drainStall is how long what the command sent may rest on its way out, after
// the command has ended, before it is given up.
const drainStall = 3 * time.Second

// wait returns when the command has ended, and what it sent is on its way: its
// status as an error unless it is zero.
func (r *running) wait() error {
	status, err := r.afterStop(r.sandbox.Wait())
	close(r.ended)
	if err != nil {
		return err
	}
	if r.network != nil {
		impatient, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		r.network.Drain(drainStall, impatient.Done())
	}
	if status != 0 {
		return &statusError{Status: status}
	}
	return nil
}
