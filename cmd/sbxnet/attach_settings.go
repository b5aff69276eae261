package main

import (
	"strconv"

	"github.com/urfave/cli/v2"

	"sbxnet/userns"
)

const groupTarget = "Target"

// attachFlags are those of run that speak of the network, the link and what is
// watched, and those about what to attach to.
func attachFlags() []cli.Flag {
	flags := grouped(groupTarget,
		&cli.StringFlag{Name: "userns", Usage: "`PATH` of the user namespace to enter (default: the one that owns it)"},
		&cli.StringFlag{Name: "interface", Value: interfaceName, Usage: "`NAME` of the link's interface there; a TAP of this name is taken over"},
		&cli.BoolFlag{Name: "configure", Value: true, Usage: "leave addresses and routes as they are, and answer to those"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the sandbox for sbxnet ls, port, stop ..."},
	)
	for _, f := range networkFlags() {
		if f.Names()[0] != "network" {
			flags = append(flags, f)
		}
	}
	flags = append(flags, linkFlags()...)
	return append(flags, watchingFlags()...)
}

// attachSettings are the flags of `sbxnet attach`, read and checked.
type attachSettings struct {
	settings
	// PID or NetNS is what to attach to, Target how it was written.
	PID       int
	NetNS     string
	Target    string
	UserNS    string
	Configure bool
}

// needsConfigure are the flags that choose what is only chosen by configuring.
var needsConfigure = []string{"cidr", "cidr6", "ipv6"}

func readAttachSettings(c *cli.Context) (*attachSettings, error) {
	s := &attachSettings{
		settings: settings{
			Network: userns.NetworkSandbox, Splice: c.Bool("splice"), HostLoopback: c.Bool("host-loopback"), IPv6: c.Bool("ipv6"), Name: c.String("name"),
			PCAP: c.String("pcap"), LogPackets: c.Bool("log-packets"), LogFormat: c.String("log-format"), Quiet: c.Bool("quiet"),
		},
		UserNS: c.String("userns"), Configure: c.Bool("configure"),
	}
	for _, read := range []func(*cli.Context) error{
		s.readTarget, refuseSplice, s.readPublished, s.readAddresses, s.readLink, s.readLogging,
	} {
		if err := read(c); err != nil {
			return nil, err
		}
	}
	if s.Link.Name = c.String("interface"); !interfaceNameOK(s.Link.Name) {
		return nil, usagef("--interface %s: not an interface's name; use 1 to 15 letters, digits, dots and dashes", shown(s.Link.Name))
	}
	return s, nil
}

// readTarget reads the only argument: a process, or the path of a namespace.
func (s *attachSettings) readTarget(c *cli.Context) error {
	args := c.Args().Slice()
	if err := noFlags(c, args); err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return usagef("attach: say what to: a process ID, or a path such as /run/netns/NAME")
	case len(args) > 1:
		return usagef("attach %s: one PID or path is enough", shown(args[1]))
	}
	s.Target = args[0]
	if pid, err := strconv.Atoi(s.Target); err == nil {
		if pid <= 0 {
			return usagef("attach %s: not a process ID", shown(s.Target))
		}
		s.PID = pid
	} else if s.NetNS = s.Target; s.NetNS == "" {
		return usagef("attach %q: say what to: a process ID, or a path such as /run/netns/NAME", "")
	}
	if c.IsSet("name") {
		if err := checkName(s.Name); err != nil {
			return err
		}
	}
	if c.IsSet("userns") && s.UserNS == "" {
		return usagef("--userns %q: no path; write one like /proc/PID/ns/user", "")
	}
	if s.Configure {
		return nil
	}
	for _, name := range needsConfigure {
		if c.IsSet(name) {
			return usagef("%s: has no effect with --configure=false, which answers to what is there; leave one of them out", asTyped(c, name))
		}
	}
	return nil
}

// interfaceNameOK holds to dev_valid_name of the kernel, and to what is readable.
func interfaceNameOK(name string) bool {
	const most = 15 // IFNAMSIZ - 1
	if name == "" || len(name) > most || name == "." || name == ".." {
		return false
	}
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && r != '.' && r != '-' && r != '_' {
			return false
		}
	}
	return true
}
