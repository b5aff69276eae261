package rootlesskit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/pasta"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

// A running is one sandbox with all that belongs to it on the host.
type running struct {
	options   *options
	listeners []*os.File
	log       *slog.Logger
	state     *state.Dir
	plan      network.Plan
	sandbox   *userns.Sandbox
	network   *network.Network // nil without a network of the sandbox's own
	// undo closes, last first, what was opened.
	undo []func() error
}

// run does what the options say, and returns when the command has ended and
// nothing of the sandbox is left.
func run(o *options, listeners []*os.File, stderr io.Writer) (status int, err error) {
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	r := &running{options: o, listeners: listeners, log: console.NewLogger(stderr, "rootlesskit", "text", level)}
	for _, w := range o.Warnings {
		r.log.Warn(w)
	}
	defer r.close()
	for _, step := range []func() error{r.takeState, r.chooseAddresses, r.startSandbox, r.connect, r.serve, r.exec} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return r.wait()
}

func (r *running) onClose(f func() error) { r.undo = append(r.undo, f) }

// close ends what is still there.
func (r *running) close() {
	for i := len(r.undo) - 1; i >= 0; i-- {
		if err := r.undo[i](); err != nil {
			r.log.Warn(err.Error())
		}
	}
}

// takeState makes the state directory, and in it the name for a detached
// network namespace.
func (r *running) takeState() (err error) {
	path := r.options.StateDir
	if path == "" {
		if path, err = os.MkdirTemp("", "rootlesskit"); err != nil {
			return fmt.Errorf("creating a state directory: %w", err)
		}
	}
	if r.state, err = state.CreateAt(path); err != nil {
		return fmt.Errorf("failed to lock the state directory, another RootlessKit is running with the same state directory? %w", err)
	}
	r.onClose(r.state.Close)
	if !r.options.DetachNetNS {
		return nil
	}
	return writeDetachedFile(r.state.NetNS(), "")
}

func (r *running) chooseAddresses() error {
	if r.options.network() != userns.NetworkSandbox {
		return nil
	}
	host, err := network.HostPrefixes()
	if err != nil {
		r.log.Warn("cannot tell whether the sandbox's addresses collide with the host's: " + err.Error())
	}
	r.plan, err = network.PlanAddresses(network.PlanRequest{CIDR4: r.options.CIDR, IPv6: r.options.IPv6}, host)
	for _, notice := range r.plan.Notices {
		r.log.Info(notice)
	}
	return err
}

func (r *running) startSandbox() error {
	cfg := r.sandboxConfig()
	if r.options.DetachNetNS {
		if err := writeDetachedFile(r.state.File("resolv.conf"), cfg.ResolvConf); err != nil {
			return err
		}
	}
	sb, err := userns.Start(cfg)
	if err != nil {
		return err
	}
	r.sandbox = sb
	r.onClose(sb.Close)
	if r.options.EvacuateCgroup2 != "" {
		return evacuate(r.options.EvacuateCgroup2, r.log)
	}
	return nil
}

func (r *running) sandboxConfig() userns.Config {
	o := r.options
	c := userns.Config{
		Command:         o.Command,
		Env:             environment(r.state.Path),
		Network:         o.network(),
		PIDNamespace:    o.PID,
		CgroupNamespace: o.Cgroup,
		UTSNamespace:    o.UTS,
		IPCNamespace:    o.IPC,
		NetRaw:          true,
		Cgroup2:         o.EvacuateCgroup2 != "",
		CopyUp:          o.CopyUp,
		Propagation:     o.Propagation,
		Listeners:       r.listeners,
		Remove:          []string{r.state.Path},
		ResolvConf:      resolvConf(r.plan, r.log),
		Log:             r.log,
	}
	switch o.SubIDSource {
	case subIDsAuto:
		c.SubIDs = autoSubIDs
	case subIDsDynamic:
		c.SubIDs, c.UserMap = requiredSubIDs, userns.MapFull
	}
	if o.DetachNetNS {
		c.DetachNetNS = r.state.NetNS()
	}
	if c.Network != userns.NetworkSandbox {
		return c
	}
	c.Link = network.LinkOptions(tapdev.Auto, 0)
	c.Link.Name, c.Link.MTU, c.Link.HardwareAddr = o.Interface, o.MTU, net.HardwareAddr(network.SandboxMAC[:])
	for _, f := range r.plan.Families() {
		c.Addresses = append(c.Addresses, netip.PrefixFrom(f.Sandbox, f.Prefix.Bits()))
		c.Gateways = append(c.Gateways, f.Gateway)
	}
	return c
}

// connect gives the sandbox its network, by way of the link that was opened in
// it.
func (r *running) connect() error {
	if r.options.network() != userns.NetworkSandbox {
		return nil
	}
	info, files := r.sandbox.Link()
	n, err := network.Start(network.Config{
		Info: info, Files: files, Plan: r.plan, MTU: r.options.MTU,
		HostLoopback: !r.options.DisableHostLoopback, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.network = n
	r.onClose(n.Close)
	return nil
}

// serve answers API clients, and publishes what was asked for.
func (r *running) serve() error {
	ports := r.ports()
	server, err := state.Serve(state.Sandbox{
		Dir: r.state, ChildPID: r.sandbox.PID(), Ports: ports, Log: r.log,
		Network: r.networkInfo(), PortDriver: r.portInfo(ports), Addresses: r.addresses(),
		Loopback: r.loopback(),
	})
	if err != nil {
		return err
	}
	r.onClose(server.Close)
	r.follow()
	for _, p := range r.options.Publish {
		if _, err := server.AddPort(p); err != nil {
			return fmt.Errorf("failed to expose port %s:%d: %w", p.ParentIP, p.ParentPort, err)
		}
	}
	return nil
}

// loopback is how API clients get at the way to the sandbox's loopback addresses,
// which takes a process of its own that few need; nil if there can be none.
func (r *running) loopback() func() (state.Loopback, error) {
	if r.network == nil || r.options.DetachNetNS {
		return nil
	}
	return func() (state.Loopback, error) {
		return StartLoopback(r.sandbox.PID(), r.state, r.options.Interface, r.plan.V4.Sandbox)
	}
}

// follow opens the host's ports for what listens in the sandbox, where that is
// what --port-driver says.
func (r *running) follow() {
	if r.options.PortDriver != driverImplicit {
		return
	}
	pid := r.sandbox.PID
	if r.options.DetachNetNS {
		pid = func() int { return inDetachedNetwork(r.sandbox.PID()) }
	}
	stop := pasta.Follow(r.network.Ports(), pid, r.options.IPv6, r.log)
	r.onClose(func() error { stop(); return nil })
}

// ports are those that lead into the sandbox, or the reason why none do.
func (r *running) ports() *network.Ports {
	switch {
	case r.network == nil:
		return network.NoPorts("no PortDriver is available with --net=" + r.options.Net)
	case r.options.PortDriver == driverNone, r.options.PortDriver == driverImplicit:
		return network.NoPorts("no PortDriver is available with --port-driver=" + r.options.PortDriver + "; use --port-driver=builtin")
	}
	return r.network.Ports()
}

// networkInfo is the network as API clients see it.
func (r *running) networkInfo() api.NetworkDriverInfo {
	info := state.NetworkInfo(r.plan, network.DNS{})
	if r.network == nil {
		info.Driver = r.options.Net
	}
	return info
}

// portInfo is the published ports as API clients see them. dockerd takes "none"
// and "implicit" for leave to use its own proxy only.
func (r *running) portInfo(ports *network.Ports) api.PortDriverInfo {
	info := state.PortInfo(ports)
	if ports.Refusal() != nil {
		info.Driver = r.options.PortDriver
	}
	return info
}

func (r *running) addresses() []netip.Addr {
	var own []netip.Addr
	for _, f := range r.plan.Families() {
		own = append(own, f.Sandbox)
	}
	return own
}

// exec starts the command.
func (r *running) exec() error {
	stop := r.sandbox.ForwardSignals()
	r.onClose(func() error { stop(); return nil })
	return r.sandbox.Exec()
}

// drainStall is how long what the command sent may rest on its way out, after
// the command has ended, before it is given up.
const drainStall = 3 * time.Second

// wait returns the command's status when it has ended, and what it sent is on
// its way.
func (r *running) wait() (int, error) {
	status, err := r.sandbox.Wait()
	if err != nil {
		return 0, err
	}
	if r.network != nil {
		impatient, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		r.network.Drain(drainStall, impatient.Done())
	}
	return status, nil
}
