package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
	"sbxnet/userns"
)

// Bounds of --mtu, in bytes: IPv4 must carry 576 (RFC 791), IPv6 1280
// (RFC 8200 §5), and a TAP device takes no more than 65521.
const (
	minMTU, minMTU6, maxMTU = 576, 1280, 65520
)

// interfaceName of the sandbox's end of the link.
const interfaceName = "tap0"

// settings are the flags of `sbxnet run`, read and checked. Nothing of them
// has had any effect yet.
type settings struct {
	Publish      []spec.Spec
	Splice       bool
	Network      userns.Mode
	HostLoopback bool
	DNS          network.DNS
	IPv6         bool
	CIDR4, CIDR6 netip.Prefix // not valid: the default
	Hostname     string
	Name         string
	UserMap      userns.UserMap
	PIDNamespace bool
	Engine       engineSettings
	NetRaw       bool
	Link         tapdev.Options
	Impair       impair.Spec
	PCAP         string
	LogPackets   bool
	Profiles     map[string]string // files, by the flag that names them
	LogLevel     slog.Level
	LogFormat    string
	Quiet        bool
	Command      []string
	// Env is the command's environment; nil means sbxnet's own.
	Env []string
}

// readSettings checks every flag of c, alone and against the others.
func readSettings(c *cli.Context) (*settings, error) {
	s := &settings{
		HostLoopback: c.Bool("host-loopback"),
		Splice:       c.Bool("splice"),
		IPv6:         c.Bool("ipv6"),
		Hostname:     c.String("hostname"),
		Name:         c.String("name"),
		PIDNamespace: c.Bool("pid-namespace"),
		NetRaw:       c.Bool("net-raw"),
		PCAP:         c.String("pcap"),
		LogPackets:   c.Bool("log-packets"),
		LogFormat:    c.String("log-format"),
		Quiet:        c.Bool("quiet"),
		Command:      c.Args().Slice(),
	}
	for _, read := range []func(*cli.Context) error{
		s.readNetwork, s.readAddresses, s.readSandbox, s.readLink, s.readEngines, s.readLogging, s.readProfiles,
	} {
		if err := read(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *settings) readNetwork(c *cli.Context) (err error) {
	mode := c.String("network")
	if s.Network, err = userns.ParseMode(mode); err != nil {
		return usagef("--network %s: not a mode; use sandbox, none or host", shown(mode))
	}
	if s.Network != userns.NetworkSandbox {
		if err := refuseLinkFlags(c, mode); err != nil {
			return err
		}
	}
	if err := refuseSplice(c); err != nil {
		return err
	}
	return s.readPublished(c)
}

// refuseSplice refuses to be asked for what is not done where the link is watched.
func refuseSplice(c *cli.Context) error {
	if !c.IsSet("splice") || !c.Bool("splice") {
		return nil
	}
	for _, name := range []string{"pcap", "log-packets", "impair"} {
		if c.IsSet(name) && c.Value(name) != false {
			return usagef("--splice: has no effect with %s, which keeps everything on the link; leave one of them out", asTyped(c, name))
		}
	}
	return nil
}

// readPublished reads what is said of ports and names.
func (s *settings) readPublished(c *cli.Context) (err error) {
	if s.Publish, err = spec.ParseAll(c.StringSlice("publish")); err != nil {
		return usagef("%w", err)
	}
	s.DNS, err = parseDNS(c.String("dns"), c.IsSet("dns"))
	return err
}

// refuseLinkFlags refuses what would be without effect: a mode without a link
// ignores nothing silently.
func refuseLinkFlags(c *cli.Context, mode string) error {
	for _, name := range needsLink {
		if c.IsSet(name) {
			return usagef("%s: has no effect with --network %s, which has no link; leave one of them out", asTyped(c, name), mode)
		}
	}
	return nil
}

// asTyped is a flag and its value as they stand on the command line, or might.
func asTyped(c *cli.Context, name string) string {
	switch v := c.Value(name).(type) {
	case bool:
		if v {
			return "--" + name
		}
		return "--" + name + "=false"
	case cli.StringSlice:
		return "-p " + shown(strings.Join(v.Value(), " -p "))
	default:
		return "--" + name + " " + shown(c.String(name))
	}
}

func parseDNS(value string, set bool) (network.DNS, error) {
	if !set {
		return network.DNS{}, nil
	}
	if value == "none" {
		return network.DNS{None: true}, nil
	}
	if a, err := netip.ParseAddr(value); err == nil && usableServer(a) {
		return network.DNS{Upstream: netip.AddrPortFrom(a, 53)}, nil
	}
	if ap, err := netip.ParseAddrPort(value); err == nil && ap.Port() != 0 && usableServer(ap.Addr()) {
		return network.DNS{Upstream: ap}, nil
	}
	return network.DNS{}, usagef("--dns %s: not the address of a server; write one like 9.9.9.9 or [2620:fe::fe]:53, or none", shown(value))
}

func usableServer(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6()
}

func (s *settings) readAddresses(c *cli.Context) (err error) {
	if c.IsSet("cidr") {
		if s.CIDR4, err = network.ParseCIDR("--cidr", c.String("cidr"), false); err != nil {
			return err
		}
	}
	if !c.IsSet("cidr6") {
		return nil
	}
	if !s.IPv6 {
		return usagef("--cidr6 %s: has no effect with --ipv6=false; leave one of them out", shown(c.String("cidr6")))
	}
	s.CIDR6, err = network.ParseCIDR("--cidr6", c.String("cidr6"), true)
	return err
}

func (s *settings) readSandbox(c *cli.Context) (err error) {
	if s.UserMap, err = userns.ParseUserMap(c.String("user-map")); err != nil {
		return usagef("--user-map %s: not a kind of map; use auto, full or single", shown(c.String("user-map")))
	}
	if c.IsSet("hostname") {
		if err := checkHostname(s.Hostname); err != nil {
			return err
		}
	}
	if c.IsSet("name") {
		return checkName(s.Name)
	}
	return nil
}

// checkHostname holds to RFC 1123 §2.1 and to the kernel's 64 bytes
// (__NEW_UTS_LEN): the name goes into the sandbox's hosts file as well.
func checkHostname(name string) error {
	const most = 64
	ok := name != "" && len(name) <= most
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && strings.Trim(label, "-") == label &&
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	}
	if !ok {
		return usagef("--hostname %s: not a host name; use letters, digits, dashes and dots, %d at most", shown(name), most)
	}
	return nil
}

func (s *settings) readLink(c *cli.Context) error {
	mtu, err := parseNumber(c, "mtu", minMTU, maxMTU)
	if err != nil {
		return err
	}
	if s.IPv6 && mtu < minMTU6 && c.IsSet("mtu") {
		return usagef("--mtu %d: IPv6 needs at least %d; add --ipv6=false", mtu, minMTU6)
	}
	queues := 0 // auto
	if c.String("num-network-channels") != "auto" {
		if queues, err = parseNumber(c, "num-network-channels", 1, network.MaxQueues); err != nil {
			return err
		}
	}
	kind := tapdev.Kind(c.String("link"))
	switch kind {
	case tapdev.Auto, tapdev.TAP, tapdev.Packet:
	default:
		return usagef("--link %s: not a kind of link; use auto, tap or packet", shown(string(kind)))
	}
	qdisc := c.String("qdisc")
	if qdisc != "none" && qdisc != "fifo" {
		return usagef("--qdisc %s: not a queueing discipline; use none or fifo", shown(qdisc))
	}
	s.Link = tapdev.Options{
		Kind: kind, Name: interfaceName, MTU: mtu, Queues: queues,
		GSO: c.Bool("gso"), SoftwareGSO: c.Bool("software-gso"), GRO: c.Bool("gro"),
		TXChecksum: c.Bool("tx-checksum-offload"), RXChecksum: c.Bool("rx-checksum-offload"),
		QDisc: qdisc,
	}
	return s.readImpairment(c)
}

func (s *settings) readImpairment(c *cli.Context) (err error) {
	if !c.IsSet("impair") {
		return nil
	}
	if s.Impair, err = impair.Parse(c.String("impair")); err != nil {
		return usagef("--impair %w", err)
	}
	return nil
}

func parseNumber(c *cli.Context, name string, low, high int) (int, error) {
	text := c.String(name)
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, usagef("--%s %s: not a number from %d to %d", name, shown(text), low, high)
	}
	return n, nil
}

func (s *settings) readLogging(c *cli.Context) error {
	switch s.LogFormat {
	case "text", "json":
	default:
		return usagef("--log-format %s: not a format; use text or json", shown(s.LogFormat))
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[c.String("log-level")]
	if !ok {
		return usagef("--log-level %s: not a level; use debug, info, warn or error", shown(c.String("log-level")))
	}
	s.LogLevel = level
	if c.IsSet("pcap") {
		return checkNewFile("--pcap", s.PCAP)
	}
	return nil
}

// checkNewFile finds out early, without making the file, whether it can be
// made.
func checkNewFile(flag, path string) error {
	if path == "" {
		return usagef("%s %q: no file named; write one like capture.pcapng", flag, path)
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return usagef("%s %s: is a directory; name a file in it", flag, shown(path))
	}
	dir := filepath.Dir(path)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usagef("%s %s: no directory %s; make it first", flag, shown(path), shown(dir))
	}
	return nil
}
