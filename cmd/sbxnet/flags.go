package main

import (
	"github.com/urfave/cli/v2"
)

// The groups of `sbxnet run --help`.
const (
	groupNetwork  = "Network"
	groupSandbox  = "Sandbox"
	groupLink     = "Link"
	groupWatching = "Watching"
)

// runFlags are the flags of `sbxnet run`. Each has an effect; checkNetwork
// refuses it where the chosen --network leaves it none.
func runFlags() []cli.Flag {
	flags := networkFlags()
	flags = append(flags, sandboxFlags()...)
	flags = append(flags, linkFlags()...)
	return append(flags, watchingFlags()...)
}

func networkFlags() []cli.Flag {
	return grouped(groupNetwork,
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "let the host reach a port: `[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|/udp]`; repeatable"},
		&cli.StringFlag{Name: "network", Value: "sandbox", Usage: "`MODE`: sandbox, none (loopback only) or host (no network of its own)"},
		&cli.BoolFlag{Name: "host-loopback", Usage: "let the sandbox reach the host's 127.0.0.1 and ::1 through its gateway"},
		&cli.StringFlag{Name: "dns", Usage: "ask this `ADDR` instead of the host's resolvers, or none"},
		&cli.BoolFlag{Name: "ipv6", Value: true, Usage: "IPv6 in the sandbox"},
		&cli.StringFlag{Name: "cidr", Usage: "IPv4 `BLOCK` of the sandbox (default: 10.0.2.0/24, or the next the host does not use)"},
		&cli.StringFlag{Name: "cidr6", Usage: "IPv6 `BLOCK` of the sandbox (default: fd00::/64, or the next the host does not use)"},
		&cli.StringFlag{Name: "mtu", Value: "1500", Usage: "largest packet of the sandbox's interface, in `BYTES`, 576 to 65520"},
	)
}

func sandboxFlags() []cli.Flag {
	return grouped(groupSandbox,
		&cli.StringFlag{Name: "hostname", Usage: "`NAME` of the machine, inside"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the sandbox; no two running ones share it"},
		&cli.StringFlag{Name: "user-map", Value: "auto", Usage: "`HOW` user IDs are mapped: full (/etc/subuid), single (yours only) or auto"},
		&cli.BoolFlag{Name: "pid-namespace", Usage: "process IDs and /proc of its own, with a first process that reaps"},
		&cli.BoolFlag{Name: "net-raw", Value: true, Usage: "raw sockets inside (CAP_NET_RAW)"},
	)
}

func linkFlags() []cli.Flag {
	return grouped(groupLink,
		&cli.StringFlag{Name: "link", Value: "auto", Usage: "`KIND`: tap, packet (no device node needed) or auto"},
		&cli.BoolFlag{Name: "gso", Value: true, Usage: "let the kernel cut large segments"},
		&cli.BoolFlag{Name: "software-gso", Value: true, Usage: "cut them here where the kernel does not"},
		&cli.BoolFlag{Name: "gro", Value: true, Usage: "join small segments before they go in"},
		&cli.BoolFlag{Name: "tx-checksum-offload", Value: true, Usage: "leave checksums towards the sandbox to the kernel"},
		&cli.BoolFlag{Name: "rx-checksum-offload", Value: true, Usage: "let the sandbox's kernel leave checksums out"},
		&cli.StringFlag{Name: "qdisc", Value: "fifo", Usage: "what a full device does: `none` (drop) or fifo (wait)"},
		&cli.StringFlag{Name: "num-network-channels", Value: "1", Usage: "`N` queues of the link, each with its own thread"},
	)
}

func watchingFlags() []cli.Flag {
	return grouped(groupWatching,
		&cli.StringFlag{Name: "pcap", Usage: "write what crosses the link to `FILE`, for Wireshark"},
		&cli.BoolFlag{Name: "log-packets", Usage: "print a line for each packet that crosses the link"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log on stderr: text or json"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing of published ports and moved addresses"},
	)
}

// grouped sets the category that --help prints flags under.
func grouped(category string, flags ...cli.Flag) []cli.Flag {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Category = category
		case *cli.BoolFlag:
			f.Category = category
		case *cli.StringSliceFlag:
			f.Category = category
		}
	}
	return flags
}

// needsLink are the flags that speak of the link, the stack or what crosses
// them. With --network none or host there is neither.
var needsLink = []string{
	"publish", "mtu", "cidr", "cidr6", "ipv6", "dns", "host-loopback",
	"link", "gso", "software-gso", "gro", "tx-checksum-offload", "rx-checksum-offload",
	"qdisc", "num-network-channels", "pcap", "log-packets",
}
