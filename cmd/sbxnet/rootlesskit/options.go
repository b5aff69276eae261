package rootlesskit

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/port"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port/portutil"
	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/userns"
)

// The values of --net and --port-driver that mean something else than our
// network with our ports.
const (
	netHost        = "host"
	netNone        = "none"
	driverNone     = "none"
	driverImplicit = "implicit"
)

// Bounds of --mtu, in bytes: 0 stands for the default, and the largest is that
// of a TAP device, of which we use one less.
const (
	largestMTU  = 65521
	usedMTU     = 65520
	smallestMTU = 68
)

// options are the flags, read and checked. Nothing of them has had any effect.
type options struct {
	StateDir            string // empty: a new one for temporary files
	Net                 string
	MTU                 int
	CIDR                netip.Prefix // not valid: the default
	Interface           string
	DisableHostLoopback bool
	IPv6                bool
	CopyUp              []string
	Propagation         userns.Propagation
	PortDriver          string
	Publish             []port.Spec
	PID, Cgroup         bool
	UTS, IPC            bool
	DetachNetNS         bool
	SubIDSource         string
	EvacuateCgroup2     string // empty: not
	Debug               bool
	Command             []string
	// Warnings are for what is accepted and means less than it says.
	Warnings []string
}

// network is the mode that --net stands for.
func (o *options) network() userns.Mode {
	switch o.Net {
	case netHost:
		return userns.NetworkHost
	case netNone:
		return userns.NetworkNone
	}
	return userns.NetworkSandbox
}

// flags are the original's.
func flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "debug"},
		&cli.StringFlag{Name: "print-semver"},
		&cli.StringFlag{Name: "state-dir"},
		&cli.StringFlag{Name: "net", Value: netHost},
		&cli.StringFlag{Name: "pasta-binary"},
		&cli.StringFlag{Name: "pesto-binary"},
		&cli.StringFlag{Name: "slirp4netns-binary"},
		&cli.StringFlag{Name: "slirp4netns-sandbox"},
		&cli.StringFlag{Name: "slirp4netns-seccomp"},
		&cli.StringFlag{Name: "vpnkit-binary"},
		&cli.StringFlag{Name: "lxc-user-nic-binary"},
		&cli.StringFlag{Name: "lxc-user-nic-bridge"},
		&cli.IntFlag{Name: "mtu"},
		&cli.StringFlag{Name: "cidr"},
		&cli.StringFlag{Name: "ifname"},
		&cli.BoolFlag{Name: "disable-host-loopback"},
		&cli.BoolFlag{Name: "ipv6"},
		&cli.BoolFlag{Name: "detach-netns"},
		&cli.StringSliceFlag{Name: "copy-up"},
		&cli.StringFlag{Name: "copy-up-mode", Value: copyUpMode},
		&cli.StringFlag{Name: "propagation", Value: string(userns.PropagationPrivate)},
		&cli.StringFlag{Name: "port-driver", Value: driverNone},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}},
		&cli.BoolFlag{Name: "source-ip-transparent", Value: true},
		&cli.StringFlag{Name: "source-ip-transparent-backend"},
		&cli.BoolFlag{Name: "pidns"},
		&cli.BoolFlag{Name: "cgroupns"},
		&cli.BoolFlag{Name: "utsns"},
		&cli.BoolFlag{Name: "ipcns"},
		&cli.StringFlag{Name: "reaper", Value: "auto"},
		&cli.StringFlag{Name: "evacuate-cgroup2"},
		&cli.StringFlag{Name: "subid-source", Value: subIDsAuto},
	}
}

const copyUpMode = "tmpfs+symlink"

// readOptions checks every flag of c, alone and against the others.
func readOptions(c *cli.Context) (*options, error) {
	o := &options{
		StateDir:            c.String("state-dir"),
		Net:                 c.String("net"),
		DisableHostLoopback: c.Bool("disable-host-loopback"),
		IPv6:                c.Bool("ipv6"),
		CopyUp:              c.StringSlice("copy-up"),
		PortDriver:          c.String("port-driver"),
		PID:                 c.Bool("pidns"),
		Cgroup:              c.Bool("cgroupns"),
		UTS:                 c.Bool("utsns"),
		IPC:                 c.Bool("ipcns"),
		DetachNetNS:         c.Bool("detach-netns"),
		Debug:               c.Bool("debug"),
		Command:             c.Args().Slice(),
	}
	for _, read := range []func(*cli.Context) error{o.readProcess, o.readMounts, o.readNetwork, o.readPorts} {
		if err := read(c); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *options) warn(format string, args ...any) {
	o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
}

func (o *options) readProcess(c *cli.Context) error {
	switch reaper := c.String("reaper"); {
	case reaper != "auto" && reaper != "true" && reaper != "false":
		return fmt.Errorf("unknown reaper mode: %s; use auto, true or false", console.Shown(reaper))
	case reaper == "true" && !o.PID:
		return errors.New("reaper requires --pidns")
	}
	switch o.SubIDSource = c.String("subid-source"); o.SubIDSource {
	case "":
		o.SubIDSource = subIDsAuto
	case subIDsAuto, subIDsStatic, subIDsDynamic:
	default:
		return fmt.Errorf("unknown subid source %s; use auto, dynamic or static", console.Shown(o.SubIDSource))
	}
	switch o.EvacuateCgroup2 = c.String("evacuate-cgroup2"); {
	case o.EvacuateCgroup2 == "":
		return nil
	case !o.Cgroup:
		return errors.New("evacuate-cgroup2 requires --cgroupns")
	case !o.PID:
		return errors.New("evacuate-cgroup2 requires --pidns")
	}
	return checkEvacuation(o.EvacuateCgroup2)
}

func (o *options) readMounts(c *cli.Context) error {
	if mode := c.String("copy-up-mode"); mode != copyUpMode {
		return fmt.Errorf("unknown copy-up mode: %s; use %s", console.Shown(mode), copyUpMode)
	}
	p, err := userns.ParsePropagation(c.String("propagation"))
	if err != nil { // the original takes it for "leave it alone", which is this
		o.warn("%v; mounts propagate as with rslave", err)
		p = userns.PropagationSlave
	}
	o.Propagation = p
	return nil
}

func (o *options) readNetwork(c *cli.Context) (err error) {
	if o.MTU, err = readMTU(c.Int("mtu")); err != nil {
		return err
	}
	if o.CIDR, err = readCIDR(c.String("cidr")); err != nil {
		return err
	}
	o.Interface = c.String("ifname")
	if strings.Contains(o.Interface, "/") || len(o.Interface) > maxInterface {
		return fmt.Errorf("ifname must not contain \"/\" and be no longer than %d bytes, got %s", maxInterface, console.Shown(o.Interface))
	}
	if mode := o.network(); mode != userns.NetworkSandbox {
		return o.refuseLinkFlags(c)
	}
	if o.Interface == "" {
		o.Interface = "tap0"
	}
	if !o.DisableHostLoopback {
		o.warn("the host's 127.0.0.1 can be reached by way of the gateway; --disable-host-loopback prohibits that")
	}
	return nil
}

// maxInterface is the kernel's limit for a name (IFNAMSIZ).
const maxInterface = 15

// refuseLinkFlags refuses what a sandbox without a link can't have.
func (o *options) refuseLinkFlags(c *cli.Context) error {
	switch {
	case o.CIDR.IsValid():
		return fmt.Errorf("custom cidr is not supported for --net=%s", o.Net)
	case o.Interface != "":
		return fmt.Errorf("ifname cannot be specified for --net=%s", o.Net)
	case o.PortDriver != driverNone:
		return fmt.Errorf("--port-driver=%s: no port can lead into --net=%s; leave it out", console.Shown(o.PortDriver), o.Net)
	case o.Net == netHost && o.DetachNetNS:
		return errors.New("--detach-netns: there is no network namespace with --net=host; use --net=slirp4netns or leave it out")
	}
	if c.Int("mtu") != 0 {
		o.warn("unsupported mtu for --net=%s: %d", o.Net, c.Int("mtu"))
	}
	return nil
}

func readMTU(n int) (int, error) {
	switch {
	case n == 0:
		return usedMTU, nil
	case n < smallestMTU || n > largestMTU:
		return 0, fmt.Errorf("mtu must be <= %d and >= %d, got %d", largestMTU, smallestMTU, n)
	}
	return min(n, usedMTU), nil
}

// readCIDR takes a block of IPv4 addresses with room for the gateway, the name
// server and the sandbox.
func readCIDR(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	const longest = 25 // the sandbox is at 100
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() < 1 || p.Bits() > longest || p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("invalid cidr %s: use a network of IPv4 addresses like 10.0.3.0/24, no smaller than a /%d", console.Shown(s), longest)
	}
	return p, nil
}

func (o *options) readPorts(c *cli.Context) error {
	specs := c.StringSlice("publish")
	if len(specs) > 0 && (o.PortDriver == driverNone || o.PortDriver == driverImplicit) {
		return fmt.Errorf("port driver %q does not support publishing ports", o.PortDriver)
	}
	if o.PortDriver == driverImplicit && o.Net != "pasta" {
		return errors.New(`port driver "implicit" requires --net=pasta`)
	}
	if o.PortDriver == "pasta" {
		return errors.New(`unknown port driver "pasta": did you mean "pesto"?`)
	}
	for _, s := range specs {
		p, err := portutil.ParsePortSpec(s)
		if err == nil {
			err = portutil.ValidatePortSpec(*p, nil)
		}
		if err != nil {
			return err
		}
		o.Publish = append(o.Publish, *p)
	}
	return nil
}
