package pasta

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/getopt"
)

// The set is what getopt_long is given.
var set = getopt.Set{
	{Name: "debug", Short: 'd'},
	{Name: "trace"},
	{Name: "quiet", Short: 'q'},
	{Name: "foreground", Short: 'f'},
	{Name: "stderr", Short: 'e'},
	{Name: "log-file", Short: 'l', Value: true},
	{Name: "log-size", Value: true},
	{Name: "runas", Value: true},
	{Name: "help", Short: 'h'},
	{Name: "version"},
	{Name: "ns-ifname", Short: 'I', Value: true},
	{Name: "pcap", Short: 'p', Value: true},
	{Name: "pid", Short: 'P', Value: true},
	{Name: "mtu", Short: 'm', Value: true},
	{Name: "address", Short: 'a', Value: true},
	{Name: "netmask", Short: 'n', Value: true},
	{Name: "mac-addr", Short: 'M', Value: true},
	{Name: "ns-mac-addr", Value: true},
	{Name: "gateway", Short: 'g', Value: true},
	{Name: "interface", Short: 'i', Value: true},
	{Name: "outbound", Short: 'o', Value: true},
	{Name: "outbound-if4", Value: true},
	{Name: "outbound-if6", Value: true},
	{Name: "dns", Short: 'D', Value: true},
	{Name: "dns-forward", Value: true},
	{Name: "dns-host", Value: true},
	{Name: "search", Short: 'S', Value: true},
	{Name: "hostname", Short: 'H', Value: true},
	{Name: "fqdn", Value: true},
	{Name: "dhcp-dns"},
	{Name: "no-dhcp-dns"},
	{Name: "dhcp-search"},
	{Name: "no-dhcp-search"},
	{Name: "no-tcp"},
	{Name: "no-udp"},
	{Name: "no-icmp"},
	{Name: "no-dhcp"},
	{Name: "no-ndp"},
	{Name: "no-dhcpv6"},
	{Name: "no-ra"},
	{Name: "no-splice"},
	{Name: "splice-only"},
	{Name: "freebind"},
	{Name: "map-host-loopback", Value: true},
	{Name: "map-guest-addr", Value: true},
	{Name: "no-map-gw"},
	{Name: "host-lo-to-ns-lo"},
	{Name: "ipv4-only", Short: '4'},
	{Name: "ipv6-only", Short: '6'},
	{Name: "tcp-ports", Short: 't', Value: true},
	{Name: "udp-ports", Short: 'u', Value: true},
	{Name: "tcp-ns", Short: 'T', Value: true},
	{Name: "udp-ns", Short: 'U', Value: true},
	{Name: "conf-path", Short: 'c', Value: true},
	{Name: "userns", Value: true},
	{Name: "netns", Value: true},
	{Name: "netns-only"},
	{Name: "no-netns-quit"},
	{Name: "config-net"},
	{Name: "no-copy-routes"},
	{Name: "no-copy-addrs"},
}

// options are a command line, read and checked. Nothing of it has had any
// effect yet.
type options struct {
	Help, Version bool

	Debug, Quiet, Foreground bool
	LogFile                  string
	LogSize                  int64 // bytes
	PIDFile, PCAP, Control   string

	// Command is what to run in new namespaces, where neither PID nor NetNS
	// names one that is there; empty: a shell.
	Command       []string
	PID           int
	NetNS, UserNS string
	// NetNSOnly: no user namespace is entered.
	NetNSOnly bool
	// NoQuit: a namespace whose path is removed does not end us.
	NoQuit bool

	// Interface is the host's to take addresses from, NSInterface the name of
	// ours inside; empty: the one with the default route, and its name.
	Interface, NSInterface string
	// MTU of the link in bytes; 0: the kernel's own.
	MTU       int
	Configure bool
	// V4 and V6 are what is said about one family.
	V4, V6 familyOptions
	// MAC is the sandbox's, GatewayMAC that of our end; nil: chosen by us.
	MAC, GatewayMAC net.HardwareAddr
	// NoMapGateway: the gateway's address does not lead to the host's loopback,
	// where no family's LoopbackAt says otherwise.
	NoMapGateway bool

	// DNS are the servers told to guests that ask for them, Search the domains;
	// both only with DHCPDNS and DHCPSearch.
	DNS                 []netip.Addr
	Search              []string
	DHCPDNS, DHCPSearch bool
	DNSHost             netip.Addr
	Hostname, Domain    string

	NoTCP, NoUDP, NoICMP                 bool
	NoDHCPv4, NoDHCPv6, NoAdvertisements bool

	// LoopbackFirst: who comes from the host's loopback is led to the sandbox's.
	LoopbackFirst bool
	// NoSplice has published TCP ports lead over the link.
	NoSplice bool
	// Freebind listens on host addresses that may come later.
	Freebind bool
	// TCP and UDP lead into the sandbox, TCPOut and UDPOut out of it.
	TCP, UDP, TCPOut, UDPOut ports
}

// familyOptions are those that hold for IPv4 or for IPv6.
type familyOptions struct {
	// Off: the other family only.
	Off                 bool
	Address, Gateway    netip.Addr
	Bits                int // of Address; 0: not said
	Outbound            netip.Addr
	OutboundInterface   string
	DNSForward          netip.Addr
	LoopbackAt, GuestAt netip.Addr // --map-host-loopback, --map-guest-addr
	NoLoopbackAt        bool
}

const (
	defaultMTU     = 65520
	defaultLogSize = 1 << 20
)

// parse reads the arguments behind the program's name. A usageError is about the
// form of an option, not about its value.
func parse(args []string) (*options, error) {
	found, operands, err := set.Parse(args, true)
	if err != nil {
		return nil, usageError{err}
	}
	// These are acted on as they are met, whatever is wrong with the values.
	for _, f := range found {
		if f.Name == "help" || f.Name == "version" {
			return &options{Help: f.Name == "help", Version: f.Name == "version"}, nil
		}
	}
	o := &options{MTU: defaultMTU, LogSize: defaultLogSize}
	for _, f := range found {
		if err := o.take(f.Name, f.Argument); err != nil {
			return nil, err
		}
	}
	if err := o.takeOperands(operands); err != nil {
		return nil, err
	}
	return o, o.finish()
}

// A usageError is one that the help helps with.
type usageError struct{ error }

// A refusal is about a value. Its wording, up to the colon, is the original's.
type refusal string

func (r refusal) Error() string { return string(r) }

func refusef(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// take applies one option; of two that contradict each other the last holds.
func (o *options) take(name, value string) error {
	if o.takeSwitch(name) {
		return nil
	}
	switch name {
	case "splice-only":
		return errors.New("--splice-only: there is always a link; leave the option out, or see sbxnet run --network=none for a sandbox without one")
	case "tcp-ports":
		return o.TCP.add(value)
	case "udp-ports":
		return o.UDP.add(value)
	case "tcp-ns":
		return o.TCPOut.addOutward(name, value)
	case "udp-ns":
		return o.UDPOut.addOutward(name, value)
	case "address", "gateway", "netmask", "outbound", "outbound-if4", "outbound-if6", "map-host-loopback", "map-guest-addr":
		return o.takeAddressing(name, value)
	case "dns", "dns-forward", "dns-host", "search", "hostname", "fqdn":
		return o.takeNames(name, value)
	}
	return o.takeRest(name, value)
}

// takeSwitch applies an option without a value, if it is one.
func (o *options) takeSwitch(name string) bool {
	switch name {
	case "debug", "trace":
		o.Debug, o.Quiet = true, false
	case "quiet":
		o.Quiet, o.Debug = true, false
	case "foreground":
		o.Foreground = true
	case "config-net":
		o.Configure = true
	case "dhcp-dns", "no-dhcp-dns":
		o.DHCPDNS = name == "dhcp-dns"
	case "dhcp-search", "no-dhcp-search":
		o.DHCPSearch = name == "dhcp-search"
	case "no-tcp":
		o.NoTCP = true
	case "no-udp":
		o.NoUDP = true
	case "no-icmp":
		o.NoICMP = true
	case "no-dhcp":
		o.NoDHCPv4 = true
	case "no-dhcpv6":
		o.NoDHCPv6 = true
	case "no-ra", "no-ndp":
		// Neighbour solicitations are answered all the same: without an answer
		// there is no IPv6 on a link, and --ipv4-only says that.
		o.NoAdvertisements = true
	case "no-map-gw":
		o.NoMapGateway = true
	case "ipv4-only":
		o.V6.Off = true
	case "ipv6-only":
		o.V4.Off = true
	case "no-netns-quit":
		o.NoQuit = true
	case "netns-only":
		o.NetNSOnly, o.UserNS = true, ""
	case "freebind":
		o.Freebind = true
	case "host-lo-to-ns-lo":
		o.LoopbackFirst = true
	case "no-splice":
		o.NoSplice = true
	case "stderr", "no-copy-routes", "no-copy-addrs":
		// These ask for what is so anyway: messages go to standard error while
		// there is one, and of addresses and routes one and the default one are
		// copied.
	default:
		return false
	}
	return true
}

// takeRest applies options that stand for themselves.
func (o *options) takeRest(name, value string) (err error) {
	switch name {
	case "log-file":
		o.LogFile, err = absolute("--log-file", value)
	case "log-size":
		if o.LogSize, err = strconv.ParseInt(value, 10, 64); err != nil || o.LogSize < minLogSize || o.LogSize > maxLogSize {
			return refusef("Invalid --log-size: %s", console.Shown(value))
		}
	case "runas":
		err = checkRunAs(value)
	case "ns-ifname":
		o.NSInterface, err = value, checkInterfaceName(value)
	case "interface":
		o.Interface, err = value, checkInterfaceName(value)
	case "pcap":
		o.PCAP, err = absolute("--pcap", value)
	case "pid":
		o.PIDFile, err = absolute("--pid", value)
	case "conf-path":
		o.Control, err = absolute("--conf-path", value)
	case "mtu":
		o.MTU, err = parseMTU(value)
	case "mac-addr":
		o.GatewayMAC, err = parseMAC(value)
	case "ns-mac-addr":
		o.MAC, err = parseMAC(value)
	case "userns":
		o.NetNSOnly = false
		o.UserNS, err = absolute("--userns", value)
	case "netns":
		if value == "" {
			return errors.New("--netns \"\": no namespace; write a path like /run/user/1000/netns/NAME")
		}
		if o.NetNS = value; !strings.Contains(value, "/") {
			o.NetNS = "/run/netns/" + value
		}
		o.NetNS, err = filepath.Abs(o.NetNS)
	}
	return err
}

// takeOperands tells a PID from a command.
func (o *options) takeOperands(operands []string) error {
	if len(operands) == 0 {
		return nil
	}
	if o.NetNS != "" {
		return fmt.Errorf("%s: a PID or command, and --netns too: give one of them", console.Shown(operands[0]))
	}
	if pid, err := strconv.Atoi(operands[0]); err == nil && len(operands) == 1 {
		if pid <= 0 {
			return refusef("Invalid PID: %s", console.Shown(operands[0]))
		}
		o.PID = pid
		return nil
	}
	o.Command = operands
	return nil
}

// attaches reports whether the namespaces are somebody else's.
func (o *options) attaches() bool { return o.PID != 0 || o.NetNS != "" }

// finish refuses what cannot go together, and fills in what follows.
func (o *options) finish() error {
	switch {
	case o.V4.Off && o.V6.Off:
		return refusef("Options ipv4-only and ipv6-only are mutually exclusive")
	case o.UserNS != "" && !o.attaches():
		return errors.New("--userns requires --netns or PID")
	case o.NetNSOnly && !o.attaches():
		return errors.New("--netns-only requires --netns or PID: a command has a user namespace of its own")
	case !o.V6.Off && o.MTU != 0 && o.MTU < minMTU6:
		return refusef("Invalid MTU: %d: IPv6 needs %d, or leave it out with --ipv4-only", o.MTU, minMTU6)
	case o.V4.Bits != 0 && o.V4.Address.Is4() && isBroadcast(netip.PrefixFrom(o.V4.Address, o.V4.Bits)):
		return refusef("Invalid address: %s is the broadcast address with netmask /%d", o.V4.Address, o.V4.Bits)
	}
	// Without a word all that listens in the sandbox is published, and all that
	// listens on the host's loopback can be reached from inside.
	if err := errors.Join(o.TCP.settle(), o.UDP.settle(), o.TCPOut.settleOutward(), o.UDPOut.settleOutward()); err != nil {
		return err
	}
	if o.Freebind {
		o.TCP.bindFreely()
		o.UDP.bindFreely()
	}
	if o.NoTCP {
		o.TCP, o.TCPOut = ports{}, ports{}
	}
	if o.NoUDP {
		o.UDP, o.UDPOut = ports{}, ports{}
	}
	return nil
}
