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
	flags = append(flags, engineFlags()...)
	flags = append(flags, linkFlags()...)
	flags = append(flags, watchingFlags()...)
	return append(flags, profileFlags()...)
}

// A usage begins with the name of the flag's value in backquotes, if it takes
// one. That of a switch that is on says what "=false" does.

func networkFlags() []cli.Flag {
	return grouped(groupNetwork,
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|/udp]` let the host reach a port; repeatable"},
		&cli.BoolFlag{Name: "splice", Value: true, Usage: "send published connections and bulk over the link, too"},
		&cli.StringFlag{Name: "network", Value: "sandbox", Usage: "`MODE` sandbox, none (loopback only) or host (none of its own)"},
		&cli.BoolFlag{Name: "host-loopback", Usage: "let it reach the host's 127.0.0.1 and ::1, by way of its gateway"},
		&cli.StringFlag{Name: "dns", Usage: "`ADDR` the server to ask instead of the host's resolvers, or none"},
		&cli.BoolFlag{Name: "ipv6", Value: true, Usage: "no IPv6 in the sandbox"},
		&cli.StringFlag{Name: "cidr", Usage: "`BLOCK` its IPv4 network (default: 10.0.2.0/24, or the next one free)"},
		&cli.StringFlag{Name: "cidr6", Usage: "`BLOCK` its IPv6 network (default: fd00::/64, or the next one free)"},
		&cli.StringFlag{Name: "mtu", Value: "1500", Usage: "`BYTES` largest packet of its interface, 576 to 65520"},
	)
}

func sandboxFlags() []cli.Flag {
	return grouped(groupSandbox,
		&cli.StringFlag{Name: "hostname", Usage: "`NAME` what the machine is called inside"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the sandbox; no two running ones of yours share it"},
		&cli.StringFlag{Name: "user-map", Value: "auto", Usage: "`KIND` of user IDs inside: full (/etc/subuid), single (yours) or auto"},
		&cli.BoolFlag{Name: "pid-namespace", Usage: "process IDs and /proc of its own, and a first process that reaps"},
		&cli.BoolFlag{Name: "net-raw", Value: true, Usage: "no raw sockets inside (takes CAP_NET_RAW away)"},
	)
}

func linkFlags() []cli.Flag {
	return grouped(groupLink,
		&cli.StringFlag{Name: "link", Value: "auto", Usage: "`KIND` tap, packet (needs no device node) or auto"},
		&cli.BoolFlag{Name: "gso", Value: true, Usage: "do not have the kernel cut large segments"},
		&cli.BoolFlag{Name: "software-gso", Value: true, Usage: "do not cut them here either where the kernel does not"},
		&cli.BoolFlag{Name: "gro", Value: true, Usage: "do not join small segments before they go in"},
		&cli.BoolFlag{Name: "tx-checksum-offload", Value: true, Usage: "compute checksums towards the sandbox here"},
		&cli.BoolFlag{Name: "rx-checksum-offload", Value: true, Usage: "have the sandbox's kernel compute its checksums"},
		&cli.StringFlag{Name: "qdisc", Value: "fifo", Usage: "`KIND` what a full device does to frames: none (drop) or fifo (wait)"},
		&cli.StringFlag{Name: "num-network-channels", Value: "auto", Usage: "`N` queues, each with a thread; auto: one for two cores"},
		&cli.StringFlag{Name: "impair", Usage: "`SPEC` be a bad network: delay=50ms,loss=1%,rate=20mbit ..."},
	)
}

func watchingFlags() []cli.Flag {
	return grouped(groupWatching,
		&cli.StringFlag{Name: "pcap", Usage: "`FILE` write what crosses the link to it, for Wireshark"},
		&cli.BoolFlag{Name: "log-packets", Usage: "print a line for each packet that crosses the link"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL` debug, info, warn or error"},
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
	"publish", "splice", "mtu", "cidr", "cidr6", "ipv6", "dns", "host-loopback",
	"link", "gso", "software-gso", "gro", "tx-checksum-offload", "rx-checksum-offload",
	"qdisc", "num-network-channels", "impair", "pcap", "log-packets",
}
