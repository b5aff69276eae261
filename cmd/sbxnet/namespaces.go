package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"sbxnet/userns"
)

// groupEngines is what container engines need of a sandbox. The flags are
// rootlesskit's, by the same names.
const groupEngines = "Container engines"

func engineFlags() []cli.Flag {
	return grouped(groupEngines,
		&cli.StringSliceFlag{Name: "copy-up", Usage: "`DIR` make it writable: a tmpfs with links to what is in it; repeatable"},
		&cli.StringFlag{Name: "propagation", Value: string(userns.PropagationSlave), Usage: "`KIND` of mounts: rslave (sees the host's), rprivate or rshared"},
		&cli.BoolFlag{Name: "detach-netns", Usage: "CMD stays in the host's network; this one is \"netns\" in the state directory"},
		&cli.BoolFlag{Name: "cgroupns", Usage: "a cgroup namespace of its own"},
		&cli.BoolFlag{Name: "utsns", Usage: "a host name of its own, at first the host's"},
		&cli.BoolFlag{Name: "ipcns", Usage: "System V IPC and POSIX message queues of its own"},
	)
}

// engineSettings are the flags of that group.
type engineSettings struct {
	CopyUp           []string
	Propagation      userns.Propagation // empty: the default
	DetachNetNS      bool
	Cgroup, UTS, IPC bool
}

func (s *settings) readEngines(c *cli.Context) (err error) {
	e := &s.Engine
	e.DetachNetNS, e.Cgroup, e.UTS, e.IPC = c.Bool("detach-netns"), c.Bool("cgroupns"), c.Bool("utsns"), c.Bool("ipcns")
	if c.IsSet("copy-up") {
		e.CopyUp = c.StringSlice("copy-up")
	}
	if c.IsSet("propagation") {
		if e.Propagation, err = userns.ParsePropagation(c.String("propagation")); err != nil {
			return usagef("--propagation %s: not a kind; use rslave, rprivate or rshared", shown(c.String("propagation")))
		}
	}
	if e.DetachNetNS && s.Network == userns.NetworkHost {
		return usagef("--detach-netns: there is no network namespace to detach with --network host; leave one of them out")
	}
	return nil
}

// takeListeners takes over the sockets that a service manager has passed, for
// the command.
func (r *running) takeListeners() (err error) {
	r.listeners, err = userns.InheritedListeners()
	return err
}

// addEngineSettings adds the group's part to a sandbox.
func (r *running) addEngineSettings(c *userns.Config) error {
	e := r.settings.Engine
	c.CopyUp, c.Propagation = e.CopyUp, e.Propagation
	c.CgroupNamespace, c.UTSNamespace, c.IPCNamespace = e.Cgroup, e.UTS, e.IPC
	c.Listeners = r.listeners
	if !e.DetachNetNS {
		return nil
	}
	if r.state == nil {
		return fmt.Errorf("--detach-netns: the sandbox has no state directory to name its network in")
	}
	c.DetachNetNS = r.state.NetNS()
	if err := os.WriteFile(c.DetachNetNS, nil, 0o600); err != nil {
		return fmt.Errorf("--detach-netns: %w", err)
	}
	return nil
}
