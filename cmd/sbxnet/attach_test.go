package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sbxnet/userns"
)

func TestAttachReadsItsTarget(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // PID, path, user namespace, interface, configure, name
	}{
		{"4711", "4711 \"\" \"\" tap0 true \"\""},
		{"/run/netns/x", "0 \"/run/netns/x\" \"\" tap0 true \"\""},
		{"netns", "0 \"netns\" \"\" tap0 true \"\""},
		{"--userns /proc/1/ns/user --interface eth9 --configure=false --name web 4711", "4711 \"\" \"/proc/1/ns/user\" eth9 false \"web\""},
	} {
		got := typeIn(t, append([]string{"attach"}, strings.Fields(c.args)...)...)
		if got.attach == nil {
			t.Errorf("%s: %+v", c.args, got)
			continue
		}
		s := got.attach
		if text := fmt.Sprintf("%d %q %q %s %v %q", s.PID, s.NetNS, s.UserNS, s.Link.Name, s.Configure, s.Name); text != c.want || s.Network != userns.NetworkSandbox {
			t.Errorf("%s: %s, want %s", c.args, text, c.want)
		}
	}
	got := typeIn(t, "attach", "-p", "8080:80", "--host-loopback", "--dns", "none", "--mtu", "9000", "--gso=false", "--pcap", "x.pcapng", "1")
	if s := got.attach; s == nil || len(s.Publish) != 1 || !s.HostLoopback || !s.DNS.None || s.Link.MTU != 9000 || s.Link.GSO || s.PCAP != "x.pcapng" {
		t.Errorf("%+v", got)
	}
}

func TestAttachRefusesInOneLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "attach: say what to: a process ID"},
		{[]string{""}, `attach "": say what to`},
		{[]string{"1", "2"}, "attach 2: one PID or path is enough"},
		{[]string{"0"}, "attach 0: not a process ID"},
		{[]string{"1", "-p", "80"}, "attach -p: flags stand before names"},
		{[]string{"--name", "../x", "1"}, "--name ../x: "},
		{[]string{"--userns", "", "1"}, `--userns "": no path`},
		{[]string{"--interface", "a/b", "1"}, "--interface a/b: not an interface's name"},
		{[]string{"--interface", "", "1"}, `--interface "": not`},
		{[]string{"--interface", "sixteencharacter", "1"}, "--interface sixteencharacter: not"},
		{[]string{"--configure=false", "--cidr", "10.0.0.0/24", "1"}, "--cidr 10.0.0.0/24: has no effect with --configure=false"},
		{[]string{"--splice", "--pcap", "x", "1"}, "--splice: has no effect with --pcap x"},
		{[]string{"--configure=false", "--ipv6=false", "1"}, "--ipv6=false: has no effect with --configure=false"},
		{[]string{"-p", "70000:80", "1"}, "-p 70000:80: "},
		{[]string{"--mtu", "12", "1"}, "--mtu 12: "},
		{[]string{"--network", "none", "1"}, "--network: no such flag"},
	} {
		got := typeIn(t, append([]string{"attach"}, c.args...)...)
		if got.attach != nil || got.status != exitFailure || !strings.HasPrefix(got.stderr, "sbxnet: "+c.want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%q: status %d, stderr %q, attached %v", c.args, got.status, got.stderr, got.attach != nil)
		}
	}
}

// What others have configured is what the stack answers as.
func TestLearnedAddresses(t *testing.T) {
	prefixes := func(s ...string) (all []netip.Prefix) {
		for _, p := range s {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	gateways := func(s ...string) (all []netip.Addr) {
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for _, c := range []struct {
		found  userns.Found
		v4, v6 string
	}{
		{userns.Found{Addresses: prefixes("10.0.2.100/24"), Gateways: gateways("10.0.2.2")}, "10.0.2.0/24 10.0.2.100 10.0.2.2 10.0.2.3", "off"},
		{userns.Found{Addresses: prefixes("192.168.7.9/24", "192.168.8.1/24", "fd12::9/64"), Gateways: gateways("192.168.7.1", "fd12::1")},
			"192.168.7.0/24 192.168.7.9 192.168.7.1 192.168.7.3", "fd12::/64 fd12::9 fd12::1 fd12::3"},
		{userns.Found{Addresses: prefixes("10.1.1.3/24"), Gateways: gateways("10.1.1.1")}, "10.1.1.0/24 10.1.1.3 10.1.1.1 invalid IP", "off"},
		{userns.Found{Addresses: prefixes("10.1.1.9/24")}, "10.1.1.0/24 10.1.1.9 10.1.1.2 10.1.1.3", "off"},
		{userns.Found{Addresses: prefixes("10.1.1.2/24")}, "10.1.1.0/24 10.1.1.2 10.1.1.1 10.1.1.3", "off"},
		{userns.Found{}, "10.0.2.0/24 10.0.2.100 10.0.2.2 10.0.2.3", "fd00::/64 fd00::100 fd00::2 fd00::3"},
	} {
		plan := learnedPlan(c.found)
		for i, want := range []string{c.v4, c.v6} {
			f, got := plan.V4, "off"
			if i == 1 {
				f = plan.V6
			}
			if f.On() {
				got = fmt.Sprintf("%s %s %s %s", f.Prefix, f.Sandbox, f.Gateway, f.DNS)
			}
			if got != want {
				t.Errorf("%v: %s, want %s", c.found, got, want)
			}
		}
		if (len(c.found.Addresses) == 0) != (len(plan.Notices) == 1) {
			t.Errorf("%v: notices %q", c.found, plan.Notices)
		}
	}
}
