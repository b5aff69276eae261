package slirp4netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/getopt"
)

// Bounds of --mtu, in bytes: IPv4 must carry 576 (RFC 791), IPv6 1280
// (RFC 8200 §5), and a TAP takes no more than 65521.
const (
	minMTU, minMTU6 = 576, 1280
	maxMTU          = 65521
	defaultMTU      = 1500
)

// The kinds of target, the values of --netns-type.
const (
	targetPID   = "pid"
	targetPath  = "path"
	targetTapFD = "tapfd"
)

// noFD stands for a descriptor that was not named.
const noFD = -1

// The set is what getopt_long is given.
var set = getopt.Set{
	{Name: "configure", Short: 'c'},
	{Name: "exit-fd", Short: 'e', Value: true},
	{Name: "ready-fd", Short: 'r', Value: true},
	{Name: "mtu", Short: 'm', Value: true},
	{Name: "enable-ipv6", Short: '6'},
	{Name: "api-socket", Short: 'a', Value: true},
	{Name: "cidr", Value: true},
	{Name: "disable-host-loopback"},
	{Name: "no-host-loopback"},
	{Name: "netns-type", Value: true},
	{Name: "target-type", Value: true},
	{Name: "userns-path", Value: true},
	{Name: "enable-sandbox"},
	{Name: "create-sandbox"},
	{Name: "enable-seccomp"},
	{Name: "outbound-addr", Value: true},
	{Name: "outbound-addr6", Value: true},
	{Name: "disable-dns"},
	{Name: "macaddress", Value: true},
	{Name: "help", Short: 'h'},
	{Name: "version", Short: 'v'},
}

// options are a command line, read and checked. Nothing of it has had any
// effect yet.
type options struct {
	Configure bool
	// ExitFD and ReadyFD are noFD where the caller has none.
	ExitFD, ReadyFD int
	MTU             int
	IPv6            bool
	APISocket       string
	CIDR            netip.Prefix
	HostLoopback    bool
	TargetType      string
	UserNS          string
	Sandbox         bool
	Seccomp         bool
	// Outbound4 and Outbound6 are the host's addresses to send from; not
	// valid: the kernel's choice.
	Outbound4, Outbound6 netip.Addr
	DNS                  bool
	HardwareAddr         net.HardwareAddr
	// PID, Path or FD is the target, as TargetType says.
	PID  int
	Path string
	FD   int
	// TAPName is the interface in the namespace.
	TAPName string
	// Help and Version ask for a text and nothing else.
	Help, Version bool
}

var errUsage = errors.New("PID or PATH, and the TAP's name: one is missing; see slirp4netns --help")

// parse reads the arguments behind the program's name.
func parse(args []string) (*options, error) {
	found, operands, err := set.Parse(args, false)
	if err != nil {
		return nil, fmt.Errorf("%w; see slirp4netns --help", err)
	}
	o := &options{
		ExitFD: noFD, ReadyFD: noFD, FD: noFD,
		MTU: defaultMTU, CIDR: defaultCIDR, HostLoopback: true, DNS: true,
		TargetType: targetPID,
	}
	for _, f := range found {
		if err := o.take(f.Name, f.Argument); err != nil {
			return nil, err
		}
		if o.Help || o.Version { // getopt programs act on these as they meet them
			return o, nil
		}
	}
	if err := o.takeOperands(operands); err != nil {
		return nil, err
	}
	return o, o.check()
}

// take applies one option.
func (o *options) take(name, value string) (err error) {
	switch name {
	case "help":
		o.Help = true
	case "version":
		o.Version = true
	case "configure":
		o.Configure = true
	case "enable-ipv6":
		o.IPv6 = true
	case "disable-host-loopback", "no-host-loopback":
		o.HostLoopback = false
	case "enable-sandbox", "create-sandbox":
		o.Sandbox = true
	case "enable-seccomp":
		o.Seccomp = true
	case "disable-dns":
		o.DNS = false
	case "exit-fd":
		o.ExitFD, err = parseFD("--exit-fd", value)
	case "ready-fd":
		o.ReadyFD, err = parseFD("--ready-fd", value)
	case "mtu":
		o.MTU, err = parseMTU(value)
	case "api-socket":
		o.APISocket, err = parseSocket(value)
	case "cidr":
		o.CIDR, err = parseCIDR(value)
	case "netns-type":
		o.TargetType, err = parseTargetType(value)
	case "target-type":
		if value != "netns" {
			err = fmt.Errorf("--target-type %s: only netns is supported; leave it out", console.Shown(value))
		}
	case "userns-path":
		if o.UserNS = value; value == "" {
			err = errors.New(`--userns-path "": no path; write one like /proc/1234/ns/user`)
		}
	case "outbound-addr":
		o.Outbound4, err = parseOutbound("--outbound-addr", value, false)
	case "outbound-addr6":
		o.Outbound6, err = parseOutbound("--outbound-addr6", value, true)
	case "macaddress":
		o.HardwareAddr, err = parseHardwareAddr(value)
	}
	return err
}

// takeOperands reads the target and the interface's name, which a TAP that is
// there already does not need. More operands are ignored, as by the original.
func (o *options) takeOperands(operands []string) (err error) {
	if len(operands) == 0 || len(operands) == 1 && o.TargetType != targetTapFD {
		return errUsage
	}
	target := operands[0]
	switch o.TargetType {
	case targetPath:
		o.Path = target
	case targetTapFD:
		o.FD, err = parseFD("the TAP", target)
	default:
		if o.PID, err = strconv.Atoi(target); err != nil || o.PID <= 0 {
			return fmt.Errorf("%s: PID must be a positive integer; for a path add --netns-type=path", console.Shown(target))
		}
	}
	if err != nil || len(operands) == 1 {
		return err
	}
	o.TAPName = operands[1]
	return checkInterfaceName(o.TAPName)
}

// check refuses what cannot go together.
func (o *options) check() error {
	switch {
	case o.HardwareAddr != nil && !o.Configure:
		return errors.New("--macaddress cannot be specified when --configure or -c is not; add -c")
	case o.TargetType == targetTapFD && o.Configure:
		return errors.New("--configure: has no effect with --netns-type=tapfd, whose namespace is not known; configure the TAP yourself")
	case o.TargetType == targetTapFD && o.UserNS != "":
		return errors.New("--userns-path: has no effect with --netns-type=tapfd; leave it out")
	case o.MTU < minMTU || o.IPv6 && o.MTU < minMTU6:
		return fmt.Errorf("--mtu %d: too small; IPv4 needs %d and --enable-ipv6 %d", o.MTU, minMTU, minMTU6)
	case o.ExitFD != noFD && o.ExitFD == o.ReadyFD:
		return fmt.Errorf("--exit-fd %d: is --ready-fd too; use two descriptors", o.ExitFD)
	}
	return nil
}

func parseFD(what, value string) (int, error) {
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 0 {
		return noFD, fmt.Errorf("%s %s: FD must be a non-negative integer", what, console.Shown(value))
	}
	return fd, nil
}

func parseMTU(value string) (int, error) {
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu <= 0 || mtu > maxMTU {
		return 0, fmt.Errorf("--mtu %s: MTU must be a positive integer (< %d)", console.Shown(value), maxMTU+1)
	}
	return mtu, nil
}

func parseTargetType(value string) (string, error) {
	switch value {
	case targetPID, targetPath, targetTapFD:
		return value, nil
	}
	return "", fmt.Errorf("--netns-type %s: not a type; use pid, path or tapfd", console.Shown(value))
}

// maxSocketPath is what sun_path holds (unix(7)).
const maxSocketPath = 107

func parseSocket(value string) (string, error) {
	switch {
	case value == "":
		return "", errors.New(`--api-socket "": no path; write one like /run/user/1000/api.sock`)
	case len(value) > maxSocketPath:
		return "", fmt.Errorf("--api-socket %s: path too long (> %d)", console.Shown(value), maxSocketPath)
	}
	return value, nil
}

// checkInterfaceName applies the kernel's rule (dev_valid_name).
func checkInterfaceName(name string) error {
	const maxName = 15
	bad := name == "" || len(name) > maxName || name == "." || name == ".."
	for i := 0; i < len(name); i++ {
		bad = bad || name[i] <= ' ' || name[i] == '/' || name[i] == ':' || name[i] == '%' || name[i] >= 0x7f
	}
	if bad {
		return fmt.Errorf("%s: not the name of an interface; write one like tap0, of at most %d characters", console.Shown(name), maxName)
	}
	return nil
}
