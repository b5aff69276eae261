package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// hostWith is a host with routes, written "PREFIX NAME".
func hostWith(routes ...string) []HostPrefix {
	var out []HostPrefix
	for _, r := range routes {
		prefix, what, _ := strings.Cut(r, " ")
		out = append(out, HostPrefix{netip.MustParsePrefix(prefix), what})
	}
	return out
}

func (f Family) String() string {
	return fmt.Sprintf("%s gw %s dns %s sandbox %s", f.Prefix, f.Gateway, f.DNS, f.Sandbox)
}

func TestDefaultPlan(t *testing.T) {
	p, err := PlanAddresses(PlanRequest{IPv6: true}, hostWith("0.0.0.0/0 eth0", "192.168.1.0/24 eth0", "::/0 eth0", "2001:db8::/64 eth0"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.V4.String(), "10.0.2.0/24 gw 10.0.2.2 dns 10.0.2.3 sandbox 10.0.2.100"; got != want {
		t.Errorf("IPv4: %s, want %s", got, want)
	}
	if got, want := p.V6.String(), "fd00::/64 gw fd00::2 dns fd00::3 sandbox fd00::100"; got != want {
		t.Errorf("IPv6: %s, want %s", got, want)
	}
	if len(p.Notices) != 0 {
		t.Errorf("notices: %q", p.Notices)
	}
}

func TestPlanWithoutIPv6(t *testing.T) {
	p, err := PlanAddresses(PlanRequest{}, nil)
	if err != nil || p.V6.On() || len(p.Families()) != 1 {
		t.Errorf("%v, %v", p, err)
	}
}

// IPv6 inside does not need IPv6 on the host.
func TestPlanHasIPv6OnAHostWithout(t *testing.T) {
	p, err := PlanAddresses(PlanRequest{IPv6: true}, hostWith("0.0.0.0/0 eth0"))
	if err != nil || !p.V6.On() {
		t.Errorf("%v, %v", p, err)
	}
}

func TestDefaultsMoveOutOfTheHostsWay(t *testing.T) {
	for _, c := range []struct {
		name   string
		host   []HostPrefix
		v4, v6 string
		notice []string // parts of the notices, one each
	}{
		{"own network taken", hostWith("10.0.2.0/24 eth0"), "10.0.3.0/24", "fd00::/64", []string{"10.0.2.0/24 is the host's (eth0): the sandbox uses 10.0.3.0/24; --cidr"}},
		{"a host address in it", hostWith("10.0.2.15/32 lo"), "10.0.3.0/24", "fd00::/64", []string{"10.0.2.15/32 is the host's (lo)"}},
		{"several taken", hostWith("10.0.2.0/23 a", "10.0.4.0/24 b"), "10.0.5.0/24", "fd00::/64", []string{"10.0.5.0/24"}},
		{"all of 10/8", hostWith("10.0.0.0/8 wg0"), "172.16.0.0/24", "fd00::/64", []string{"10.0.0.0/8 is the host's (wg0)"}},
		{"10/8 and 172.16/12", hostWith("10.0.0.0/8 wg0", "172.16.0.0/12 docker0"), "192.168.0.0/24", "fd00::/64", []string{"192.168.0.0/24"}},
		{"every private block", hostWith("10.0.0.0/8 a", "172.16.0.0/12 b", "192.168.0.0/16 c"), "100.64.0.0/24", "fd00::/64", []string{"100.64.0.0/24"}},
		{"nothing free", hostWith("10.0.0.0/8 a", "172.16.0.0/12 b", "192.168.0.0/16 c", "100.64.0.0/10 d"), "10.0.2.0/24", "fd00::/64", []string{"10.0.2.0/24 hides the host's 10.0.0.0/8 (a)"}},
		{"the halves of a VPN", hostWith("0.0.0.0/1 tun0", "128.0.0.0/1 tun0", "::/1 tun0", "8000::/1 tun0"), "10.0.2.0/24", "fd00::/64", nil},
		{"IPv6 taken", hostWith("fd00::/64 eth0"), "10.0.2.0/24", "fd00:0:0:1::/64", []string{"fd00::/64 is the host's (eth0): the sandbox uses fd00:0:0:1::/64; --cidr6"}},
		{"fd00::/16 taken", hostWith("fd00::/16 eth0"), "10.0.2.0/24", "fd01::/64", []string{"fd01::/64"}},
		{"all private IPv6", hostWith("fc00::/7 tun0"), "10.0.2.0/24", "fd00::/64", []string{"fd00::/64 hides the host's fc00::/7 (tun0)"}},
		{"both", hostWith("10.0.2.0/24 a", "fd00::/64 b"), "10.0.3.0/24", "fd00:0:0:1::/64", []string{"10.0.3.0/24", "fd00:0:0:1::/64"}},
	} {
		p, err := PlanAddresses(PlanRequest{IPv6: true}, c.host)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p.V4.Prefix.String() != c.v4 || p.V6.Prefix.String() != c.v6 {
			t.Errorf("%s: %s and %s, want %s and %s", c.name, p.V4.Prefix, p.V6.Prefix, c.v4, c.v6)
		}
		if len(p.Notices) != len(c.notice) {
			t.Errorf("%s: notices %q", c.name, p.Notices)
			continue
		}
		for i, n := range c.notice {
			if !strings.Contains(p.Notices[i], n) {
				t.Errorf("%s: notice %q does not say %q", c.name, p.Notices[i], n)
			}
		}
	}
}

func TestExplicitBlockThatCollidesIsRefused(t *testing.T) {
	host := hostWith("0.0.0.0/0 eth0", "192.168.1.0/24 wlan0", "fd12::/64 wlan0")
	for _, c := range []struct {
		req  PlanRequest
		want string
	}{
		{PlanRequest{CIDR4: netip.MustParsePrefix("192.168.0.0/16")}, "--cidr 192.168.0.0/16: collides with the host's 192.168.1.0/24 (wlan0)"},
		{PlanRequest{CIDR6: netip.MustParsePrefix("fd12::/64"), IPv6: true}, "--cidr6 fd12::/64: collides with the host's fd12::/64 (wlan0)"},
	} {
		_, err := PlanAddresses(c.req, host)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.req, err)
		}
	}
	p, err := PlanAddresses(PlanRequest{CIDR4: netip.MustParsePrefix("192.168.2.0/24")}, host)
	if err != nil || p.V4.Gateway.String() != "192.168.2.2" {
		t.Errorf("free block: %v, %v", p, err)
	}
}

// Offsets stay what they are where they fit, and the three addresses of a
// family are different hosts of the block in any case.
func TestLayout(t *testing.T) {
	for _, c := range []struct{ block, want string }{
		{"10.0.0.0/8", "10.0.0.0/8 gw 10.0.0.2 dns 10.0.0.3 sandbox 10.0.0.100"},
		{"10.9.8.128/25", "10.9.8.128/25 gw 10.9.8.130 dns 10.9.8.131 sandbox 10.9.8.228"},
		{"10.9.8.64/26", "10.9.8.64/26 gw 10.9.8.66 dns 10.9.8.67 sandbox 10.9.8.126"},
		{"10.9.8.0/29", "10.9.8.0/29 gw 10.9.8.2 dns 10.9.8.3 sandbox 10.9.8.6"},
		{"fd00:1:2:3::/64", "fd00:1:2:3::/64 gw fd00:1:2:3::2 dns fd00:1:2:3::3 sandbox fd00:1:2:3::100"},
		{"fd00::ff00/120", "fd00::ff00/120 gw fd00::ff02 dns fd00::ff03 sandbox fd00::fffe"},
		{"fd00::10/124", "fd00::10/124 gw fd00::12 dns fd00::13 sandbox fd00::1e"},
	} {
		block := netip.MustParsePrefix(c.block)
		f := Layout(block)
		if f.String() != c.want {
			t.Errorf("%s\nwant %s", f, c.want)
		}
		for _, a := range []netip.Addr{f.Gateway, f.DNS, f.Sandbox} {
			if !block.Contains(a) {
				t.Errorf("%s is not in %s", a, block)
			}
		}
	}
}

// The machine's own routes are read: loopback is among them, whatever else is.
func TestHostPrefixesHaveLoopback(t *testing.T) {
	host, err := HostPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := collision(netip.MustParsePrefix("127.0.0.0/24"), host); !ok || h.What != "lo" {
		t.Errorf("no route to 127.0.0.0/8 over lo in %v", host)
	}
}
