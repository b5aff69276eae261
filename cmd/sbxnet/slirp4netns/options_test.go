package slirp4netns

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// standard is what `slirp4netns -r 3 1234 tap0` means.
func standard(change func(*options)) *options {
	o := &options{
		ExitFD: noFD, ReadyFD: 3, FD: noFD, MTU: 1500, CIDR: netip.MustParsePrefix("10.0.2.0/24"),
		HostLoopback: true, DNS: true, TargetType: "pid", PID: 1234, TAPName: "tap0",
	}
	change(o)
	return o
}

func path(o *options, netns string) {
	o.TargetType, o.PID, o.Path = "path", 0, netns
}

func TestCompatCommandLinesOfCallers(t *testing.T) {
	const netns = "/run/user/1000/netns/netns-05c6ce1b"
	for line, want := range map[string]*options{
		// RootlessKit, attached and detached.
		"--mtu 65520 -r 3 1234 tap0": standard(func(o *options) { o.MTU = 65520 }),
		"--mtu 65520 -r 3 --disable-host-loopback --cidr 10.9.0.0/24 --api-socket /s/.s4nn.sock --enable-sandbox --enable-seccomp --enable-ipv6 1234 tap0": standard(func(o *options) {
			o.MTU, o.HostLoopback, o.CIDR, o.APISocket = 65520, false, netip.MustParsePrefix("10.9.0.0/24"), "/s/.s4nn.sock"
			o.Sandbox, o.Seccomp, o.IPv6 = true, true, true
		}),
		"--mtu 65520 -r 3 --userns-path=/proc/1234/ns/user --netns-type=path " + netns + " tap0": standard(func(o *options) {
			o.MTU, o.UserNS = 65520, "/proc/1234/ns/user"
			path(o, netns)
		}),
		// Podman.
		"--disable-host-loopback --mtu=65520 --enable-sandbox --enable-seccomp --enable-ipv6 -c -r 3 --netns-type=path " + netns + " tap0": standard(func(o *options) {
			o.HostLoopback, o.MTU, o.Sandbox, o.Seccomp, o.IPv6, o.Configure = false, 65520, true, true, true, true
			path(o, netns)
		}),
		"--mtu=1500 --enable-sandbox --enable-seccomp --cidr=10.9.0.0/24 --outbound-addr=127.0.0.1 --outbound-addr6=::1 -c -e 4 -r 3 --api-socket /t/c.net --netns-type=path " + netns + " tap0": standard(func(o *options) {
			o.Sandbox, o.Seccomp, o.Configure, o.ExitFD, o.APISocket = true, true, true, 4, "/t/c.net"
			o.CIDR = netip.MustParsePrefix("10.9.0.0/24")
			o.Outbound4, o.Outbound6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
			path(o, netns)
		}),
		// By hand.
		"-ce4 -r3 -m 9000 -6 -a /t/s 1234 tap0":                      standard(func(o *options) { o.Configure, o.ExitFD, o.MTU, o.IPv6, o.APISocket = true, 4, 9000, true, "/t/s" }),
		"--no-host-loopback --create-sandbox -r 3 1234 tap0":         standard(func(o *options) { o.HostLoopback, o.Sandbox = false, true }),
		"1234 tap0 --ready-fd=3 --disable-dns":                       standard(func(o *options) { o.DNS = false }),
		"--mtu=9000 --mtu=1400 -r 3 1234 tap0 ignored":               standard(func(o *options) { o.MTU = 1400 }),
		"-c --macaddress=02:00:00:00:00:07 -r 3 1234 tap0":           standard(func(o *options) { o.Configure = true; o.HardwareAddr = []byte{2, 0, 0, 0, 0, 7} }),
		"--netns-type=tapfd -r 3 5":                                  standard(func(o *options) { o.TargetType, o.PID, o.FD, o.TAPName = "tapfd", 0, 5, "" }),
		"--outbound-addr=lo --outbound-addr6=lo -r 3 1234 tap0":      standard(func(o *options) { o.Outbound4, o.Outbound6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback() }),
		"--outbound-addr=0.0.0.0 --target-type=netns -r 3 1234 tap0": standard(func(*options) {}),
	} {
		if strings.Contains(line, "addr6=lo") && !loopbackHas6() {
			continue
		}
		got, err := parse(strings.Fields(line))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", line, got, err, want)
		}
	}
}

// loopbackHas6 is false on a host without IPv6.
func loopbackHas6() bool {
	a, err := parseOutbound("--outbound-addr6", "lo", true)
	return err == nil && a == netip.IPv6Loopback()
}

func TestCompatBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"":                                            "PID or PATH, and the TAP's name",
		"1234":                                        "TAP's name",
		"--netns-type=path /x":                        "TAP's name",
		"--netns-type=tapfd":                          "TAP's name",
		"--foo 1234 tap0":                             "unrecognized option '--foo'",
		"-z 1234 tap0":                                "invalid option -- 'z'",
		"--enable-ipv6=1 1 tap0":                      "option '--enable-ipv6' doesn't allow an argument",
		"1234 tap0 -r":                                "option requires an argument -- 'r'",
		"--mtu=0 1 tap0":                              "MTU must be a positive integer (< 65522)",
		"--mtu=65522 1 tap0":                          "MTU must be a positive integer (< 65522)",
		"--mtu=abc 1 tap0":                            "MTU must be a positive integer (< 65522)",
		"--mtu=100 1 tap0":                            "too small",
		"-6 --mtu=1279 1 tap0":                        "too small",
		"--cidr=abc 1 tap0":                           "invalid CIDR",
		"--cidr=24 1 tap0":                            "invalid CIDR",
		"--cidr=10.0.2.0 1 tap0":                      "invalid CIDR",
		"--cidr=10.0.2.100/26 1 tap0":                 "prefix length needs to be 1-25",
		"--cidr=fd00::/24 1 tap0":                     "invalid CIDR",
		"--cidr=10.0.2.5/24 1 t":                      "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.5/24",
		"--cidr=10.0.2.0/26 1 t":                      "prefix length needs to be 1-25",
		"--cidr=0.0.0.0/0 1 t":                        "prefix length needs to be 1-25",
		"--cidr=127.0.0.0/24 1 t":                     "no sandbox can have these addresses",
		"--cidr=224.0.0.0/24 1 t":                     "no sandbox can have these addresses",
		"--netns-type=foo 1 tap0":                     "use pid, path or tapfd",
		"--target-type=bess /x t":                     "only netns is supported",
		"abc tap0":                                    "PID must be a positive integer",
		"0 tap0":                                      "PID must be a positive integer",
		"-e x 1 tap0":                                 "FD must be a non-negative integer",
		"-r -1 1 tap0":                                "FD must be a non-negative integer",
		"-r 3 -e 3 1 tap0":                            "use two descriptors",
		"--netns-type=tapfd x":                        "FD must be a non-negative integer",
		"--netns-type=tapfd -c 5":                     "--configure: has no effect",
		"--api-socket= 1 tap0":                        "no path",
		"--userns-path= 1 tap0":                       "no path",
		"--outbound-addr=zz 1 t":                      "neither an IPv4 address nor the name of an interface",
		"--outbound-addr=::1 1 t":                     "not an IPv4 address",
		"--outbound-addr6=1.2.3.4":                    "not an IPv6 address",
		"--macaddress=02:00:00:00:00:07 1 t":          "--macaddress cannot be specified when --configure or -c is not",
		"-c --macaddress=zz 1 t":                      "not the address of one station",
		"-c --macaddress=01:00:5e:0:0:1 1 t":          "not the address of one station",
		"1 tap0123456789abc":                          "not the name of an interface",
		"1 a/b":                                       "not the name of an interface",
		"-a /" + strings.Repeat("x", 107) + " 1 tap0": "path too long",
	} {
		var out, errs bytes.Buffer
		status, err := run(strings.Fields(line), &out, &errs)
		if status != exitFailure || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: status %d, %v; want %q", line, status, err, want)
		}
	}
}

func TestCompatHelpNamesWhatCallersLookFor(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"-6", "--he", "1234"}} {
		var out, errs bytes.Buffer
		if status, err := run(args, &out, &errs); status != 0 || err != nil || errs.Len() > 0 {
			t.Fatalf("%v: status %d, %v, %s", args, status, err, &errs)
		}
		for _, o := range set {
			if !strings.Contains(out.String(), "--"+o.Name) {
				t.Errorf("%v: no --%s", args, o.Name)
			}
		}
	}
}

func TestCompatVersionHasItsLines(t *testing.T) {
	for _, arg := range []string{"--version", "-v"} {
		var out bytes.Buffer
		if status, err := run([]string{arg}, &out, &out); status != 0 || err != nil {
			t.Fatalf("status %d, %v", status, err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		want := []string{"slirp4netns version ", "commit: ", "libslirp: ", "SLIRP_CONFIG_VERSION_MAX: 4", "libseccomp: "}
		if len(lines) != len(want) {
			t.Fatalf("%q", lines)
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, want[i]) || line == strings.TrimSpace(want[i]) && i != 3 {
				t.Errorf("line %q, want one that begins with %q", line, want[i])
			}
		}
	}
}

func TestCompatAddressesAreSlirps(t *testing.T) {
	o, err := parse(strings.Fields("-6 --cidr 10.128.0.0/9 1 tap0"))
	if err != nil {
		t.Fatal(err)
	}
	p := o.plan()
	for got, want := range map[netip.Addr]string{
		p.V4.Gateway: "10.128.0.2", p.V4.DNS: "10.128.0.3", p.V4.Sandbox: "10.128.0.100",
		p.V6.Gateway: "fd00::2", p.V6.DNS: "fd00::3", p.V6.Sandbox: "fd00::100",
	} {
		if got.String() != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
	if o.IPv6 = false; o.plan().V6.On() {
		t.Error("IPv6 without --enable-ipv6")
	}
}

// A descriptor that the caller did not leave open is not touched: one of the
// runtime's own may have its number.
func TestDescriptorsAreInheritedOrRefused(t *testing.T) {
	for _, line := range []string{"-r 77 1234 tap0", "-e 78 1234 tap0", "--netns-type=tapfd 79"} {
		var out bytes.Buffer
		status, err := run(strings.Fields(line), &out, &out)
		if status != exitFailure || err == nil || !strings.Contains(err.Error(), "the caller left no such descriptor open") {
			t.Errorf("%s: status %d, %v", line, status, err)
		}
	}
}
