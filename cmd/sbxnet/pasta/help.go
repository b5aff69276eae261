package pasta

import "runtime/debug"

// help is what --help prints.
const help = `Usage: pasta [OPTION]... [COMMAND] [ARGS]...
       pasta [OPTION]... PID
       pasta [OPTION]... --netns PATH|NAME

Without PID or --netns, runs COMMAND, or a shell, in new network and user
namespaces, and ends with it and its status. With one of them, gives that
namespace its network, in the background once it is ready, until it goes.
This is sbxnet; see sbxnet --help for its own commands.

  -d, --debug              log each flow
      --trace              the same
  -q, --quiet              errors only
  -f, --foreground         do not go to the background
  -e, --stderr             accepted; messages go there until we are in the background
  -l, --log-file PATH      what happens in the background goes to this file
      --log-size BYTES     of which this much is kept (default 1048576)
      --runas UID          accepted if it is who we are
  -h, --help               this text
      --version            which pasta this is
  -P, --pid FILE           write our process ID to it
  -p, --pcap FILE          capture what crosses the link
  -c, --conf-path SOCKET   let pesto change ports while we run

Namespace:
      --netns PATH|NAME    network namespace to join
      --userns PATH        user namespace that owns it (default: found out)
      --netns-only         enter no user namespace (default: the one that owns it,
                           by who could not configure it otherwise)
      --no-netns-quit      stay when the namespace's path is removed
      --config-net         configure addresses and routes inside
  -I, --ns-ifname NAME     interface inside (default: as outside)
      --ns-mac-addr MAC    its MAC address
  -m, --mtu BYTES          its MTU (default 65520; 0: the kernel's)

Addresses, by default those of the host's interface with the default route:
  -a, --address ADDR[/N]   the sandbox's, once for each family
  -n, --netmask MASK       of the IPv4 address, as 24 or 255.255.255.0
  -g, --gateway ADDR       its gateway, once for each family
  -M, --mac-addr MAC       its gateway's MAC address
  -i, --interface NAME     take them from this interface
  -4, --ipv4-only          no IPv6
  -6, --ipv6-only          no IPv4
  -o, --outbound ADDR      the host's address to send from, once for each family
      --outbound-if4 NAME  the host's interface to send by, IPv4
      --outbound-if6 NAME  the same, IPv6
      --no-copy-routes     accepted, for it is always so: the default route is copied
      --no-copy-addrs      accepted, for it is always so: one address a family is

The host, seen from inside:
      --map-host-loopback ADDR|none  this address is the host's loopback (default: the gateway)
      --no-map-gw          the gateway's address is not
      --map-guest-addr ADDR|none     this address is the host's own

Names:
      --dns-forward ADDR   answer DNS queries at this address, once for each family
      --dns-host ADDR      by asking this server (default: the host's)
  -D, --dns ADDR           name server for guests that ask by DHCP
  -S, --search LIST        search domains for them
      --dhcp-dns, --no-dhcp-dns        tell guests the name servers (default: not)
      --dhcp-search, --no-dhcp-search  tell guests the domains (default: not)
  -H, --hostname NAME      tell the guest its name
      --fqdn NAME          tell the guest its domain

Protocols:
      --no-tcp --no-udp --no-icmp --no-dhcp --no-dhcpv6 --no-ra --no-ndp
      --no-splice          published TCP ports lead over the link; without it clients
                           are joined to servers from socket to socket, where that
                           can be. Ports of -T and -U always lead so
      --splice-only        refused: there is always a link

Ports:
  -t, --tcp-ports SPEC     host ports that lead into the namespace (default: auto)
  -u, --udp-ports SPEC     the same for UDP
      none                 no port
      auto                 what listens inside, as it comes and goes
      all[:TARGET]         every port that is free on the host
      [ADDR[%IF]/]PORTS    a list, with commas, of
        22                 port 22
        22:2022            port 22 leads to 2022
        22:10.0.2.100/22   at this address inside
        22-80:122-180      a range
        ~25                not this port; alone: auto, without this port
      --freebind           ADDR may be one that the host does not have yet
      --host-lo-to-ns-lo   who comes by the host's loopback is led to a server on
                           127.0.0.1 inside before others; it sees the gateway's
                           address. One on ::1 comes last, and is not found over
                           the link, as with --no-splice or --pcap, nor by UDP
  -T, --tcp-ns SPEC        ports inside that lead to the host's loopback (default:
                           auto, what listens there; none keeps the host's private)
  -U, --udp-ns SPEC        the same for UDP
`

// pestoHelp is the same for pesto.
const pestoHelp = `Usage: pesto [OPTION]... SOCKET

Changes which host ports lead into a namespace, while pasta runs that was
started with --conf-path SOCKET. All changes are made, or none; what is so
already is no error.

  -A, --add                the specs that follow are added
  -D, --delete             the specs that follow are removed
  -t, --tcp-ports SPEC     as pasta takes them: PORT, FIRST-LAST:FIRST-LAST, ADDR/PORT, ...
  -u, --udp-ports SPEC     the same for UDP
  -s, --show               print what is published
  -h, --help               this text
      --version            which pesto this is

Without --add or --delete, a protocol's ports become those of its SPECs.
`

// versionText is what --version prints. Callers show it, or look at nothing but
// the status.
func versionText(name string) string {
	return name + " sbxnet " + revision() + "\nsbxnet's own, in place of passt's " + name + "\n"
}

// revision is what the Go toolchain stamped into the binary.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}
