package pasta

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func mustParse(t *testing.T, args string) *options {
	t.Helper()
	o, err := parse(strings.Fields(args))
	if err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	return o
}

// Podman's command line, as libnetwork/pasta of its version 5 makes it.
func TestPodmansCommandLine(t *testing.T) {
	o := mustParse(t, "--config-net -t 18090-18090:80-80 -u 127.0.0.1/18091-18092:81-82 --dns-forward 169.254.1.1 "+
		"-T none -U none --no-map-gw --quiet --netns /run/user/1000/netns/netns-1 --map-guest-addr 169.254.1.2")
	if !o.Configure || !o.Quiet || !o.NoMapGateway || !o.attaches() || o.NetNS != "/run/user/1000/netns/netns-1" {
		t.Errorf("%+v", o)
	}
	if o.V4.DNSForward.String() != "169.254.1.1" || o.V4.GuestAt.String() != "169.254.1.2" || o.V6.DNSForward.IsValid() {
		t.Errorf("%+v %+v", o.V4, o.V6)
	}
	if o.TCP.String() != "18090:80" || o.UDP.String() != "127.0.0.1/18091-18092:81-82" {
		t.Errorf("tcp %s, udp %s", o.TCP, o.UDP)
	}
}

// RootlessKit's, in all its variants.
func TestRootlessKitsCommandLine(t *testing.T) {
	o := mustParse(t, "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 "+
		"--no-map-gw --tcp-ns=none --udp-ns=none --address=fd00::100 --gateway=fd00::2 --dns-forward=fd00::3 --tcp-ports=auto --udp-ports=auto "+
		"--host-lo-to-ns-lo 1234")
	if o.PID != 1234 || o.NSInterface != "tap0" || o.MTU != 65520 || !o.TCP.Auto || !o.UDP.Auto {
		t.Errorf("%+v", o)
	}
	p := &plan{}
	p.fill(o, hostFamily{}, hostFamily{})
	if got := p.V4.Sandbox.String() + " " + p.V4.Prefix.String() + " " + p.V4.Gateway.String(); got != "10.0.2.100 10.0.2.0/24 10.0.2.2" {
		t.Error(got)
	}
	if got := p.V6.Sandbox.String() + " " + p.V6.Prefix.String() + " " + p.V6.Gateway.String(); got != "fd00::100 fd00::/64 fd00::2" {
		t.Error(got)
	}
	o = mustParse(t, "--ns-ifname=tap0 --mtu=1500 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --ipv4-only "+
		"--tcp-ports=none --udp-ports=none --conf-path=/tmp/s/.pasta.sock --userns=/proc/12/ns/user --netns=/tmp/s/netns")
	if !o.V6.Off || o.Control != "/tmp/s/.pasta.sock" || o.UserNS != "/proc/12/ns/user" || o.NetNS != "/tmp/s/netns" || o.TCP.Auto || o.UDP.Auto {
		t.Errorf("%+v", o)
	}
}

// How Podman's manual has it look like slirp4netns: the address is the network's.
func TestPodmansManualsExample(t *testing.T) {
	o := mustParse(t, "--config-net --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 --no-ndp --no-dhcpv6 --no-dhcp --netns /n")
	p := &plan{}
	p.fill(o, hostFamily{}, hostFamily{})
	if p.V4.Sandbox.String() != "10.0.2.0" || p.V4.Prefix.String() != "10.0.2.0/24" || p.V4.Gateway.String() != "10.0.2.2" || p.V6.On() {
		t.Errorf("%+v", p)
	}
}

// The probes look at the status only, and other options are to be known.
func TestVersionAndHelpAreActedOnWhenMet(t *testing.T) {
	for _, args := range []string{"--version", "--host-lo-to-ns-lo --version", "--conf-path=/dev/null --version", "--version true", "-t nonsense --version"} {
		if o := mustParse(t, args); !o.Version {
			t.Errorf("%s: %+v", args, o)
		}
	}
	for _, args := range []string{"-h", "--help", "-qh", "--he"} {
		if o := mustParse(t, args); !o.Help {
			t.Errorf("%s: %+v", args, o)
		}
	}
}

func TestLastOptionWins(t *testing.T) {
	o := mustParse(t, "-m 1500 -I a0 -a 10.0.0.1 -g 10.0.0.2 -n 24 --mtu=9000 --ns-ifname b0 -a 10.1.0.1 -g10.1.0.2 -n 255.255.0.0 "+
		"--dns-forward 10.9.9.9 --dns-forward 10.8.8.8 -P /a -P /b -q -d --map-guest-addr 10.5.5.5 --map-guest-addr none")
	if o.MTU != 9000 || o.NSInterface != "b0" || o.V4.Address.String() != "10.1.0.1" || o.V4.Gateway.String() != "10.1.0.2" || o.V4.Bits != 16 {
		t.Errorf("%+v", o)
	}
	if o.V4.DNSForward.String() != "10.8.8.8" || o.PIDFile != "/b" || o.Quiet || !o.Debug || o.V4.GuestAt.IsValid() {
		t.Errorf("%+v", o)
	}
}

func TestShortOptionsCluster(t *testing.T) {
	o := mustParse(t, "-qf4m1500 -Ifoo0 -t80 42")
	if !o.Quiet || !o.Foreground || !o.V6.Off || o.MTU != 1500 || o.NSInterface != "foo0" || o.TCP.String() != "80" || o.PID != 42 {
		t.Errorf("%+v", o)
	}
}

// What follows the command is the command's.
func TestCommandKeepsItsOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-q sh -c true":       "sh -c true",
		"-q -- sh -c true":    "sh -c true",
		"-q -- -odd --bogus":  "-odd --bogus",
		"12 34":               "12 34",
		"--config-net ./1234": "./1234",
		"":                    "",
	} {
		o := mustParse(t, args)
		if got := strings.Join(o.Command, " "); got != want || o.attaches() {
			t.Errorf("%q: command %q, pid %d", args, got, o.PID)
		}
	}
}

func TestNetNSNameOrPath(t *testing.T) {
	if o := mustParse(t, "--netns blue"); o.NetNS != "/run/netns/blue" {
		t.Error(o.NetNS)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if o := mustParse(t, "--netns ./blue"); o.NetNS != wd+"/blue" {
		t.Error(o.NetNS)
	}
}

func TestRefusedOptions(t *testing.T) {
	for _, c := range []struct {
		args, want string
		form       bool // the error is about the form
	}{
		{"--bogus", "unrecognized option '--bogus'", true},
		{"--bogus=3", "unrecognized option '--bogus=3'", true},
		{"-Z", "invalid option -- 'Z'", true},
		{"--mtu", "option '--mtu' requires an argument", true},
		{"-t", "option requires an argument -- 't'", true},
		{"--config-net=yes", "option '--config-net' doesn't allow an argument", true},
		{"--mtu=abc", "Invalid MTU: abc", false},
		{"--mtu 65521", "Invalid MTU: 65521", false},
		{"--mtu 575", "Invalid MTU: 575", false},
		{"--mtu 1279", "Invalid MTU: 1279", false},
		{"-a 300.1.1.1", "Invalid address: 300.1.1.1", false},
		{"-a fe80::zz", "Invalid address: fe80::zz", false},
		{"-a 127.0.0.1", "Invalid address: 127.0.0.1", false},
		{"-a 0.0.0.0", "Invalid address: 0.0.0.0", false},
		{"-a 10.0.0.1/33", "Invalid prefix length: 10.0.0.1/33", false},
		{"-a 10.0.0.255/24", "Invalid address: 10.0.0.255", false},
		{"-n 33", "Invalid netmask: 33", false},
		{"-n 0", "Invalid netmask: 0", false},
		{"-n 255.0.255.0", "Invalid netmask: 255.0.255.0", false},
		{"-n ffff::", "Invalid netmask: ffff::", false},
		{"-g foo", "Invalid gateway address: foo", false},
		{"-g 224.0.0.1", "Invalid gateway address: 224.0.0.1", false},
		{"-o 300.0.0.1", "Invalid or redundant outbound address: 300.0.0.1", false},
		{"-M xx", "Invalid MAC address: xx", false},
		{"--ns-mac-addr 1:2", "Invalid MAC address: 1:2", false},
		{"--ns-mac-addr 01:00:5e:00:00:01", "Invalid MAC address", false},
		{"-I thisnameiswaytoolongforanif", "Invalid interface name: thisnameiswaytoolongforanif", false},
		{"-i a/b", "Invalid interface name: a/b", false},
		{"--outbound-if4 a%b", "Invalid interface name: a%b", false},
		{"-4 -6", "Options ipv4-only and ipv6-only are mutually exclusive", false},
		{"-D foo", "Cannot use DNS address foo", false},
		{"--dns-forward foo", "Invalid DNS forwarding address: foo", false},
		{"--dns-host foo", "Invalid host nameserver address: foo", false},
		{"--map-host-loopback foo", "Invalid address to remap to host: foo", false},
		{"--map-guest-addr 127.0.0.1", "Invalid address to remap to host: 127.0.0.1", false},
		{"-S a..b", "domain", false},
		{"-H -x", "--hostname -x: no domain name", false},
		{"--runas nosuchuser-x", "Invalid --runas option: nosuchuser-x", false},
		{"--runas " + strconv.Itoa(os.Getuid()+1), "start it as that user", false},
		{"--log-size 1", "Invalid --log-size: 1", false},
		{"--userns /proc/1/ns/user true", "--userns requires --netns or PID", false},
		{"--netns /x 1234", "give one of them", false},
		{"0", "Invalid PID: 0", false},
		{"-t 80 -t 80:81", "Invalid port specifier", false},
		{"-T nonsense", "Invalid port specifier nonsense", false},
		{"--splice-only 1", "--splice-only: there is always a link", false},
		{"-T all", "--tcp-ns all: name the ports", false},
		{"-T 1-1025", "more than the 1024", false},
		{"-U 53:54 -U 53:55", "Invalid port specifier", false},
	} {
		_, err := parse(strings.Fields(c.args))
		form := usageError{}
		switch {
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %s", c.args, err, c.want)
		case errors.As(err, &form) != c.form:
			t.Errorf("%s: %v: form %v", c.args, err, !c.form)
		}
	}
	for _, option := range []string{"--netns", "--pid", "--log-file", "--conf-path", "--pcap", "--userns"} {
		if _, err := parse([]string{option, "", "1"}); err == nil {
			t.Errorf("%s without a path is taken", option)
		}
	}
}

// Without a word about ports all that listens is published; without a protocol
// none of its ports is.
func TestPortDefaults(t *testing.T) {
	if o := mustParse(t, "1"); !o.TCP.Auto || !o.UDP.Auto {
		t.Errorf("tcp %s, udp %s", o.TCP, o.UDP)
	}
	if o := mustParse(t, "--no-tcp -t 80 1"); o.TCP.String() != "none" || !o.UDP.Auto {
		t.Errorf("tcp %s, udp %s", o.TCP, o.UDP)
	}
}

// Without a word what listens on the host leads out, as with the original; ports
// that are named are in addition to that, or alone.
func TestOutwardPorts(t *testing.T) {
	for args, want := range map[string]string{
		"1":                              "auto auto",
		"-T auto -U auto 1":              "auto auto",
		"-T none -U none 1":              "none none",
		"-T none 1":                      "none auto",
		"--no-tcp 1":                     "none auto",
		"--no-udp -T none 1":             "none none",
		"-T 5432 -U none 1":              "none none 127.0.0.1:5432>5432 [::1]:5432>5432",
		"-4 -T 5432 -U none 1":           "none none 127.0.0.1:5432>5432",
		"-6 -T 5432 -U none 1":           "none none [::1]:5432>5432",
		"-T 80:8080 -T auto 1":           "auto auto",
		"-T auto -T 80:8080 1":           "auto auto 127.0.0.1:80>8080 [::1]:80>8080",
		"-U 127.0.0.2/53-54:9053 1":      "auto none 127.0.0.2:53>9053 127.0.0.2:54>9054",
		"-T 127.0.0.1/80:192.0.2.9/81 1": "none auto 127.0.0.1:80>192.0.2.9:81",
	} {
		o := mustParse(t, args)
		var got []string
		for _, p := range []ports{o.TCPOut, o.UDPOut} {
			mode := "none"
			if p.Auto {
				mode = "auto"
			}
			got = append(got, mode)
		}
		for _, p := range o.outlets(true) {
			to := strconv.Itoa(int(p.bound.Port))
			if p.bound.Child.IsValid() {
				to = p.bound.Child.String() + ":" + to
			}
			got = append(got, p.socket.Addr.String()+">"+to)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// Each option of the set is in the help, and has an effect or is said to have
// none.
func TestHelpNamesEveryOption(t *testing.T) {
	for _, s := range set {
		if !strings.Contains(help, "--"+s.Name) {
			t.Errorf("--%s is not in the help", s.Name)
		}
		if s.Short != 0 && !strings.Contains(help, "-"+string(s.Short)+",") {
			t.Errorf("-%c is not in the help", s.Short)
		}
	}
	for _, s := range pestoSet {
		if s.Name != "debug" && s.Name != "quiet" && !strings.Contains(pestoHelp, "--"+s.Name) {
			t.Errorf("--%s is not in pesto's help", s.Name)
		}
	}
}

// values are valid ones of the options that take a value.
var values = map[string]string{
	"log-file": "/tmp/l", "log-size": "8192", "runas": strconv.Itoa(os.Getuid()), "ns-ifname": "n0", "pcap": "/tmp/p", "pid": "/tmp/i", "mtu": "1400",
	"address": "10.0.0.5", "netmask": "20", "mac-addr": "02:00:00:00:00:01", "ns-mac-addr": "02:00:00:00:00:01", "gateway": "10.0.0.1", "interface": "e0",
	"outbound": "10.0.0.9", "outbound-if4": "e0", "outbound-if6": "e0", "dns": "10.0.0.3", "dns-forward": "10.0.0.4", "dns-host": "10.0.0.6", "search": "example.org",
	"hostname": "box", "fqdn": "box.example.org", "map-host-loopback": "10.0.0.7", "map-guest-addr": "10.0.0.8", "tcp-ports": "80", "udp-ports": "80",
	"tcp-ns": "80", "udp-ns": "80", "conf-path": "/tmp/c", "userns": "/proc/1/ns/user", "netns": "/tmp/n",
}

// withoutEffect are those that the help calls accepted.
var withoutEffect = []string{
	"stderr", "runas", "no-copy-routes", "no-copy-addrs",
	"no-dhcp-dns", "no-dhcp-search", // the defaults
}

func TestEveryOptionIsTaken(t *testing.T) {
	for _, s := range set {
		if s.Name == "help" || s.Name == "version" || s.Name == "splice-only" {
			continue
		}
		args := []string{"--" + s.Name}
		if s.Value {
			args = append(args, values[s.Name])
		}
		tail := []string{"1"}
		if s.Name == "netns" {
			tail = nil
		}
		o, err := parse(append(args, tail...))
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		plain, err := parse(tail)
		if err != nil {
			t.Fatal(err)
		}
		if same := reflect.DeepEqual(o, plain); same != slices.Contains(withoutEffect, s.Name) {
			t.Errorf("%q: no effect: %v", args, same)
		}
	}
}

// No argument makes the parser do anything but refuse it.
func FuzzOptions(f *testing.F) {
	f.Add("--config-net\x00-t\x0080\x001")
	f.Add("-a\x00fd00::1/64\x00-n\x0024\x00-D\x00none\x00sh\x00-c")
	f.Add("--map-host-loopback=none\x00-S\x00a b\x00--fqdn\x00x")
	f.Fuzz(func(t *testing.T, line string) {
		o, err := parse(strings.Split(line, "\x00"))
		if err != nil || o.Help || o.Version {
			return
		}
		p := &plan{}
		p.fill(o, hostFamily{}, hostFamily{})
		for _, family := range p.families() {
			if !family.Prefix.Contains(family.Sandbox) || !family.Gateway.IsValid() || family.Gateway == family.Sandbox {
				t.Fatalf("%q: %+v", line, family)
			}
		}
	})
}
