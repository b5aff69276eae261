package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/tapdev/linktest"
	"sbxnet/userns"
)

func TestDefaults(t *testing.T) {
	got := typeIn(t, "run")
	want := &settings{
		Publish: []spec.Spec{}, Splice: true, Network: userns.NetworkSandbox, IPv6: true, UserMap: userns.MapAuto, NetRaw: true,
		Link: tapdev.Options{
			Kind: tapdev.Auto, Name: "tap0", MTU: 1500, Queues: 0,
			GSO: true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "fifo",
		},
		LogLevel: slog.LevelInfo, LogFormat: "text", Command: []string{},
	}
	if got.status != 0 || !reflect.DeepEqual(got.settings, want) {
		t.Errorf("status %d, stderr %q, settings %+v\nwant %+v", got.status, got.stderr, got.settings, want)
	}
}

func TestFlagsReachTheSettings(t *testing.T) {
	for _, c := range []struct {
		args string
		got  func(*settings) any
		want any
	}{
		{"-p 8080:80 -p 53/udp", func(s *settings) any { return fmt.Sprint(s.Publish) }, "[8080:80 53/udp]"},
		{"--publish 127.0.0.1:1-3:1-3", func(s *settings) any { return s.Publish[0].Count }, 3},
		{"--network none", func(s *settings) any { return s.Network }, userns.NetworkNone},
		{"--network=host", func(s *settings) any { return s.Network }, userns.NetworkHost},
		{"--host-loopback", func(s *settings) any { return s.HostLoopback }, true},
		{"--splice=false", func(s *settings) any { return s.Splice }, false},
		{"--dns none", func(s *settings) any { return s.DNS }, network.DNS{None: true}},
		{"--dns 9.9.9.9", func(s *settings) any { return s.DNS.Upstream }, netip.MustParseAddrPort("9.9.9.9:53")},
		{"--dns [2620:fe::fe]:5353", func(s *settings) any { return s.DNS.Upstream }, netip.MustParseAddrPort("[2620:fe::fe]:5353")},
		{"--ipv6=false", func(s *settings) any { return s.IPv6 }, false},
		{"--cidr 10.77.0.0/16", func(s *settings) any { return s.CIDR4 }, netip.MustParsePrefix("10.77.0.0/16")},
		{"--cidr6 fd77::/64", func(s *settings) any { return s.CIDR6 }, netip.MustParsePrefix("fd77::/64")},
		{"--mtu 65520", func(s *settings) any { return s.Link.MTU }, 65520},
		{"--mtu 576 --ipv6=false", func(s *settings) any { return s.Link.MTU }, 576},
		{"--hostname web-1.test", func(s *settings) any { return s.Hostname }, "web-1.test"},
		{"--name web_1", func(s *settings) any { return s.Name }, "web_1"},
		{"--user-map single", func(s *settings) any { return s.UserMap }, userns.MapSingle},
		{"--pid-namespace", func(s *settings) any { return s.PIDNamespace }, true},
		{"--copy-up /etc --copy-up=/run", func(s *settings) any { return fmt.Sprint(s.Engine.CopyUp) }, "[/etc /run]"},
		{"--propagation rprivate", func(s *settings) any { return s.Engine.Propagation }, userns.PropagationPrivate},
		{"--detach-netns", func(s *settings) any { return s.Engine.DetachNetNS }, true},
		{"--cgroupns", func(s *settings) any { return s.Engine.Cgroup }, true},
		{"--utsns", func(s *settings) any { return s.Engine.UTS }, true},
		{"--ipcns", func(s *settings) any { return s.Engine.IPC }, true},
		{"--net-raw=false", func(s *settings) any { return s.NetRaw }, false},
		{"--link packet", func(s *settings) any { return s.Link.Kind }, tapdev.Packet},
		{"--gso=false", func(s *settings) any { return s.Link.GSO }, false},
		{"--software-gso=false", func(s *settings) any { return s.Link.SoftwareGSO }, false},
		{"--gro=false", func(s *settings) any { return s.Link.GRO }, false},
		{"--tx-checksum-offload=false", func(s *settings) any { return s.Link.TXChecksum }, false},
		{"--rx-checksum-offload=false", func(s *settings) any { return s.Link.RXChecksum }, false},
		{"--qdisc none", func(s *settings) any { return s.Link.QDisc }, "none"},
		{"--impair rate=20mbit,delay=50ms,loss=1%", func(s *settings) any { return s.Impair.String() }, "delay=50ms,loss=1%,rate=20mbit"},
		{"--impair none", func(s *settings) any { return s.Impair.IsZero() }, true},
		{"--num-network-channels 4", func(s *settings) any { return s.Link.Queues }, 4},
		{"--log-packets", func(s *settings) any { return s.LogPackets }, true},
		{"--pcap out.pcapng", func(s *settings) any { return s.PCAP }, "out.pcapng"},
		{"--log-level warn", func(s *settings) any { return s.LogLevel }, slog.LevelWarn},
		{"--log-format json", func(s *settings) any { return s.LogFormat }, "json"},
		{"-q", func(s *settings) any { return s.Quiet }, true},
		{"-q", func(s *settings) any { return s.logLevel() }, slog.LevelWarn},
		{"-q --log-level debug", func(s *settings) any { return s.logLevel() }, slog.LevelDebug},
	} {
		got := typeIn(t, append([]string{"run"}, strings.Fields(c.args)...)...)
		if got.settings == nil {
			t.Errorf("%s: status %d, stderr %q", c.args, got.status, got.stderr)
		} else if v := c.got(got.settings); v != c.want {
			t.Errorf("%s: %v, want %v", c.args, v, c.want)
		}
	}
}

func TestFlagsAfterTheCommandAreTheCommands(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"run -- server -p 80 --mtu big", "server -p 80 --mtu big"},
		{"run server -p 80 --help", "server -p 80 --help"},
		{"run -q -- server -- -q", "server -- -q"},
		{"run help", "help"},
		{"run -- --help", "--help"},
	} {
		got := typeIn(t, strings.Fields(c.args)...)
		if got.settings == nil || strings.Join(got.settings.Command, " ") != c.want || len(got.settings.Publish) != 0 {
			t.Errorf("%s: status %d, stderr %q, settings %+v", c.args, got.status, got.stderr, got.settings)
		}
	}
}

// Whatever is wrong with the flags: exit status 125, one line that names the
// flag and the value, and nothing is started.
func TestBadFlagsAreRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // how the line goes on after "sbxnet: "
	}{
		{[]string{"-p", ""}, `-p "": `},
		{[]string{"-p", "80:80:80:80"}, "-p 80:80:80:80: "},
		{[]string{"-p", "8080:70000"}, "-p 8080:70000: port 70000 is out of range"},
		{[]string{"-p", "8080:80,8081:81"}, "-p 8080:80,8081:81: "},
		{[]string{"-p", "8080:80", "-p", "8080:81"}, "-p 8080:81: host port 127.0.0.1:8080/tcp is already taken by -p 8080:80"},
		{[]string{"-p", "80", "-p", "80"}, "-p 80: given twice"},
		{[]string{"-p", "80\n90"}, `-p "80\n90": `},
		{[]string{"-p"}, "-p: no value"},
		{[]string{"--network", "bridge"}, "--network bridge: "},
		{[]string{"--network", ""}, `--network "": `},
		{[]string{"--propagation", "friendly"}, "--propagation friendly: not a kind"},
		{[]string{"--detach-netns", "--network", "host"}, "--detach-netns: there is no network namespace to detach"},
		{[]string{"--dns", "nobody"}, "--dns nobody: "},
		{[]string{"--dns", ""}, `--dns "": `},
		{[]string{"--dns", "0.0.0.0"}, "--dns 0.0.0.0: "},
		{[]string{"--dns", "9.9.9.9:0"}, "--dns 9.9.9.9:0: "},
		{[]string{"--mtu", "575"}, "--mtu 575: "},
		{[]string{"--mtu", "65521"}, "--mtu 65521: "},
		{[]string{"--mtu", "-1"}, "--mtu -1: "},
		{[]string{"--mtu", "1500.0"}, "--mtu 1500.0: "},
		{[]string{"--mtu", "99999999999999999999"}, "--mtu 99999999999999999999: "},
		{[]string{"--mtu", "1000"}, "--mtu 1000: IPv6 needs at least 1280; add --ipv6=false"},
		{[]string{"--cidr", "10.0.2.0"}, "--cidr 10.0.2.0: "},
		{[]string{"--cidr", "10.0.2.0/33"}, "--cidr 10.0.2.0/33: "},
		{[]string{"--cidr", "10.0.2.0/30"}, "--cidr 10.0.2.0/30: prefix length"},
		{[]string{"--cidr", "10.0.2.7/24"}, "--cidr 10.0.2.7/24: not a network address; did you mean 10.0.2.0/24?"},
		{[]string{"--cidr", "127.0.0.0/24"}, "--cidr 127.0.0.0/24: loopback"},
		{[]string{"--cidr", "224.0.0.0/24"}, "--cidr 224.0.0.0/24: multicast"},
		{[]string{"--cidr", "fd00::/64"}, "--cidr fd00::/64: not an IPv4 block"},
		{[]string{"--cidr6", "10.0.2.0/24"}, "--cidr6 10.0.2.0/24: not an IPv6 block"},
		{[]string{"--cidr6", "::ffff:10.0.2.0/120"}, "--cidr6 ::ffff:10.0.2.0/120: not an IPv6 block"},
		{[]string{"--cidr6", "fe80::/64"}, "--cidr6 fe80::/64: link-local"},
		{[]string{"--cidr6", "fd00::/48"}, "--cidr6 fd00::/48: prefix length"},
		{[]string{"--cidr6", "fd77::/64", "--ipv6=false"}, "--cidr6 fd77::/64: has no effect with --ipv6=false"},
		{[]string{"--hostname", ""}, `--hostname "": `},
		{[]string{"--hostname", "a b"}, `--hostname "a b": `},
		{[]string{"--hostname", "-a"}, "--hostname -a: "},
		{[]string{"--hostname", "a..b"}, "--hostname a..b: "},
		{[]string{"--hostname", strings.Repeat("a", 65)}, "--hostname aaaa"},
		{[]string{"--name", ""}, `--name "": `},
		{[]string{"--name", "../x"}, "--name ../x: "},
		{[]string{"--name", strings.Repeat("n", 64)}, "--name nnnn"},
		{[]string{"--user-map", "some"}, "--user-map some: "},
		{[]string{"--link", "wire"}, "--link wire: "},
		{[]string{"--qdisc", "tbf"}, "--qdisc tbf: "},
		{[]string{"--num-network-channels", "0"}, "--num-network-channels 0: "},
		{[]string{"--num-network-channels", "1000"}, "--num-network-channels 1000: "},
		{[]string{"--impair", ""}, `--impair "": not an impairment; there are delay, jitter, loss`},
		{[]string{"--impair", "delay=50ms,latency=1ms"}, "--impair latency=1ms: not an impairment"},
		{[]string{"--impair", "loss=101%"}, "--impair loss=101%: more than 100%"},
		{[]string{"--impair", "delay=5ms,jitter=6ms"}, "--impair jitter=6ms: more than the delay of 5ms"},
		{[]string{"--network", "none", "--impair", "loss=1%"}, "--impair loss=1%: has no effect with --network none"},
		{[]string{"--gso=maybe"}, "--gso=maybe: neither true nor false"},
		{[]string{"--log-level", "loud"}, "--log-level loud: "},
		{[]string{"--log-format", "xml"}, "--log-format xml: "},
		{[]string{"--pcap", ""}, `--pcap "": `},
		{[]string{"--pcap", "/nonexistent/dir/file"}, "--pcap /nonexistent/dir/file: "},
		{[]string{"--pcap", "/"}, "--pcap /: is a directory"},
		{[]string{"--no-such-flag"}, "--no-such-flag: no such flag"},
		{[]string{"--pubish", "80"}, "--pubish: no such flag, perhaps --publish"},
		{[]string{"---"}, "---: "},
		{[]string{"--splice", "--pcap", "x"}, "--splice: has no effect with --pcap x, which keeps everything on the link; leave one of them out"},
		{[]string{"--splice=true", "--impair", "loss=1%"}, "--splice: has no effect with --impair loss=1%"},
		{[]string{"--splice", "--log-packets"}, "--splice: has no effect with --log-packets"},
		{[]string{"--network", "none", "-p", "8080:80"}, "-p 8080:80: has no effect with --network none"},
		{[]string{"--network", "host", "--mtu", "9000"}, "--mtu 9000: has no effect with --network host"},
		{[]string{"--network", "host", "--gso=false"}, "--gso=false: has no effect with --network host"},
		{[]string{"--network", "none", "--host-loopback"}, "--host-loopback: has no effect with --network none"},
		{[]string{"--network", "none", "--dns", "none"}, "--dns none: has no effect with --network none"},
	} {
		got := typeIn(t, append(append([]string{"run"}, c.args...), "--", "true")...)
		if len(c.args) == 1 && c.args[0] == "-p" { // nothing may follow it
			got = typeIn(t, "run", "-p")
		}
		if got.settings != nil {
			t.Errorf("%q: the sandbox was started", c.args)
		}
		if got.status != exitFailure || !strings.HasPrefix(got.stderr, "sbxnet: "+c.want) || got.stdout != "" {
			t.Errorf("%q: status %d, stderr %q, stdout %q", c.args, got.status, got.stderr, got.stdout)
		}
		if strings.Count(got.stderr, "\n") != 1 || !strings.HasSuffix(got.stderr, "\n") {
			t.Errorf("%q: stderr is not one line: %q", c.args, got.stderr)
		}
	}
}

// needsLink names flags that exist, and every flag of the link's group is in
// it: a new one cannot be forgotten.
func TestFlagsWithoutEffectInOtherModes(t *testing.T) {
	flags := map[string]bool{}
	for _, f := range append(networkFlags(), linkFlags()...) {
		flags[f.Names()[0]] = true
	}
	delete(flags, "network")
	flags["pcap"], flags["log-packets"] = true, true
	for _, name := range needsLink {
		if !flags[name] {
			t.Errorf("%s is not a flag that needs a link", name)
		}
		delete(flags, name)
	}
	for name := range flags {
		t.Errorf("--%s is accepted without effect with --network none", name)
	}
}

// The choice of a link that tests can be run with says the same as a flag and as
// an option.
func TestChosenLinksAreTheFlagsOfTheirNames(t *testing.T) {
	for _, text := range []string{"", "link=packet", "link=tap", "num-network-channels=3", "gso=false", "software-gso=false", "gro=false", "tx-checksum-offload=false", "rx-checksum-offload=false"} {
		c, err := linktest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		want := typeIn(t, "run").settings.Link
		c.Apply(&want)
		got := typeIn(t, c.Arguments("run", "true")...)
		if got.settings == nil || !reflect.DeepEqual(got.settings.Link, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}
