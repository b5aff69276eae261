package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/rootlesskit"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd"
	"sbxnet/userns"
)

// checkName says whether --name can be taken.
func checkName(name string) error {
	if err := state.CheckName(name); err != nil {
		return usagef("--name %s: %w", shown(name), err)
	}
	return nil
}

// takeName makes the state directory. A sandbox that nobody gave a name can do
// without one, where there is no place for it (withoutName); but not where
// somebody else has made it, or could.
func takeName(name, command string) (*state.Dir, error) {
	if name == "" {
		return state.CreateNamedFor(command)
	}
	dir, err := state.Create(name)
	var taken *state.TakenError
	if errors.As(err, &taken) {
		return nil, usagef("--name %s: %w; choose another name, or sbxnet stop %[1]s", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("--name %s: %w", name, err)
	}
	return dir, nil
}

func (r *running) takeName() error {
	dir, err := takeName(r.settings.Name, r.settings.commandName())
	if dir, err = withoutName(dir, err, r.settings.Name, r.log); dir != nil {
		r.state = dir
		r.onClose(dir.Close)
	}
	return err
}

// withoutName lets a sandbox that nobody gave a name do without one.
func withoutName(dir *state.Dir, err error, name string, log *slog.Logger) (*state.Dir, error) {
	var untrusted *state.UntrustedError
	if err != nil && name == "" && !errors.As(err, &untrusted) {
		log.Warn("this sandbox has no name and no API: " + err.Error())
		return nil, nil
	}
	return dir, err
}

// commandName is what a sandbox without a name is called after.
func (s *settings) commandName() string {
	switch {
	case len(s.Command) == 0:
		return "shell"
	case s.Command[0] == "/proc/self/exe":
		return "sbxnet"
	}
	return s.Command[0]
}

// environment is the command's.
func (r *running) environment() []string {
	env := r.settings.Env
	if r.state == nil {
		return env
	}
	if env == nil {
		env = os.Environ()
	}
	return stateEnvironment(env, r.state.Path)
}

// ports are the ones that lead in, or the reason why none can.
func (r *running) ports() *network.Ports {
	if r.network == nil {
		mode := r.settings.Network
		return network.NoPorts(fmt.Sprintf("started with --network %s, which has no link: no port can lead in; start it with --network sandbox", mode))
	}
	return r.network.Ports()
}

// serve answers those who look for the sandbox by its name.
func (r *running) serve() error {
	if r.state == nil {
		return nil
	}
	ports := r.ports()
	sb := state.Sandbox{
		Dir: r.state, ChildPID: r.sandbox.PID(), Log: r.log,
		Network:    api.NetworkDriverInfo{Driver: string(r.settings.Network)},
		PortDriver: state.PortInfo(ports), Ports: ports, Addresses: r.addresses(),
		Inspect: func() any { return r.inspect() },
		Stats:   func() any { return statsOf(portfwd.Stats{}) }, // without a network nothing moves
		Stop:    r.stop,
	}
	if r.network != nil {
		sb.Network = state.NetworkInfo(r.plan, r.settings.DNS)
		sb.Stats = func() any { return statsOf(r.network.Stats()) }
		if !r.settings.Engine.DetachNetNS && r.plan.V4.On() {
			sb.Loopback = func() (state.Loopback, error) {
				return rootlesskit.StartLoopback(r.sandbox.PID(), r.state, interfaceName, r.plan.V4.Sandbox)
			}
		}
	}
	server, err := state.Serve(sb)
	if err != nil {
		return err
	}
	r.onClose(server.Close)
	return nil
}

// addresses are the sandbox's own.
func (r *running) addresses() []netip.Addr {
	var own []netip.Addr
	for _, f := range r.plan.Families() {
		own = append(own, f.Sandbox)
	}
	return own
}

// inspect describes the sandbox as it is.
func (r *running) inspect() *inspection {
	i := &inspection{
		Name: r.state.Name, StateDir: r.state.Path, Version: versionString(),
		PID: os.Getpid(), ChildPID: r.sandbox.PID(), CommandPID: r.sandbox.CommandPID(), Command: r.settings.Command,
		Started: r.started, Network: string(r.settings.Network), Ports: []state.Port{},
	}
	if i.Command == nil {
		i.Command = []string{}
	}
	if r.network == nil {
		return i
	}
	i.describe(r.network, r.plan, r.settings.DNS)
	return i
}

// stop is for whoever asks over the API: the command is told to end, and after
// grace the sandbox is made to.
func (r *running) stop(grace time.Duration) {
	go func() {
		if grace > 0 {
			r.sandbox.Signal(syscall.SIGTERM)
			select {
			case <-r.ended:
				return
			case <-time.After(grace):
			}
		}
		r.killed.Store(true)
		if err := r.sandbox.Close(); err != nil {
			r.log.Warn(err.Error())
		}
	}()
}

// afterStop is the status of a sandbox that was made to end: that of a command
// that was killed.
func (r *running) afterStop(status int, err error) (int, error) {
	if r.killed.Load() && (err != nil || status == userns.StatusFailed) {
		return 128 + int(syscall.SIGKILL), nil
	}
	return status, err
}
