package portfwd

import (
	"net/netip"
	"slices"
	"testing"
)

var testPolicy = policy{
	gateway: refuse, nameservers: []netip.Addr{netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")},
	ipv4: Addresses{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("10.0.2.100"), netip.MustParsePrefix("10.0.2.0/24")},
	ipv6: Addresses{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::100"), netip.MustParsePrefix("fd00::/64")},
}

var loopbackMappings = []HostMapping{{Sandbox: testPolicy.ipv4.Gateway, Host: loopback4}, {Sandbox: testPolicy.ipv6.Gateway, Host: loopback6}}

func TestHostLoopbackHasNoSpelling(t *testing.T) {
	for _, open := range []bool{false, true} {
		p := testPolicy
		if open {
			p.mappings = loopbackMappings
		}
		for _, a := range []string{
			"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
			"::ffff:198.51.100.1", "::127.0.0.1", "::2", "::ffff:0:127.0.0.1",
		} {
			if to, v := p.destination(netip.AddrPortFrom(netip.MustParseAddr(a), 80)); v == allow {
				t.Errorf("%s leads to %s", a, to)
			}
		}
	}
}

func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		to   string
		want verdict
	}{
		{"198.51.100.1", allow}, {"10.0.3.1", allow}, {"192.168.1.1", allow}, {"2001:db8::1", allow}, {"fd01::1", allow},
		{"10.0.2.2", refuse}, {"10.0.2.3", refuse}, {"fd00::2", refuse}, {"fd00::3", refuse},
		{"10.0.2.77", noHost}, {"10.0.2.0", noHost}, {"fd00::77", noHost},
		{"169.254.169.254", noHost}, {"fe80::1", noHost}, {"240.0.0.1", noHost},
		{"10.0.2.255", drop}, {"255.255.255.255", drop}, {"224.0.0.251", drop}, {"ff02::1", drop},
	} {
		to, v := testPolicy.destination(netip.AddrPortFrom(netip.MustParseAddr(c.to), 80))
		if v != c.want {
			t.Errorf("%s: verdict %d, want %d", c.to, v, c.want)
		}
		if v == allow && to.Addr().String() != c.to {
			t.Errorf("%s leads to %s", c.to, to)
		}
	}
}

func TestGatewayLeadsToLoopbackWhenOpened(t *testing.T) {
	p := testPolicy
	p.mappings = loopbackMappings
	for from, want := range map[string]string{"10.0.2.2:80": "127.0.0.1:80", "[fd00::2]:80": "[::1]:80"} {
		if to, v := p.destination(netip.MustParseAddrPort(from)); v != allow || to.String() != want {
			t.Errorf("%s leads to %s, verdict %d; want %s", from, to, v, want)
		}
	}
}

func TestDestinationOfAFamilyThatIsOff(t *testing.T) {
	p := policy{ipv4: testPolicy.ipv4, gateway: refuse}
	for _, a := range []string{"[::1]:80", "[2001:db8::1]:80"} {
		if _, v := p.destination(netip.MustParseAddrPort(a)); v != drop {
			t.Errorf("%s: verdict %d when IPv6 is off", a, v)
		}
	}
}

func TestClientAppearsAsItselfUnlessTheAnswerWouldBeLost(t *testing.T) {
	for _, c := range [][3]string{
		{"198.51.100.7", "10.0.2.100", "198.51.100.7"},
		{"198.51.100.7", "127.0.0.1", "198.51.100.7"},
		{"198.51.100.7", "fd00::100", "fd00::2"},
		{"127.0.0.1", "10.0.2.100", "10.0.2.2"},
		{"10.0.2.100", "10.0.2.100", "10.0.2.2"}, // a host network like the sandbox's
		{"169.254.3.4", "10.0.2.100", "10.0.2.2"},
		{"2001:db8::7", "fd00::100", "2001:db8::7"},
		{"::1", "fd00::100", "fd00::2"},
		{"fe80::7", "fd00::100", "fd00::2"},
		{"2001:db8::7", "10.0.2.100", "10.0.2.2"},
	} {
		if got := testPolicy.source(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1])); got.String() != c[2] {
			t.Errorf("%s appears to %s as %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestTargetsAreTriedInOrder(t *testing.T) {
	loopbackFirst := testPolicy
	loopbackFirst.loopbackFirst = true
	for _, c := range []struct {
		policy *policy
		client string
		want   []string
	}{
		{&testPolicy, "192.0.2.7", []string{"10.0.2.100:80", "[fd00::100]:80", "127.0.0.1:80"}},
		{&testPolicy, "127.0.0.1", []string{"10.0.2.100:80", "[fd00::100]:80", "127.0.0.1:80"}},
		{&testPolicy, "2001:db8::7", []string{"[fd00::100]:80", "10.0.2.100:80", "127.0.0.1:80"}},
		{&loopbackFirst, "192.0.2.7", []string{"10.0.2.100:80", "[fd00::100]:80", "127.0.0.1:80"}},
		{&loopbackFirst, "127.0.0.1", []string{"127.0.0.1:80", "10.0.2.100:80", "[fd00::100]:80"}},
		{&loopbackFirst, "::1", []string{"127.0.0.1:80", "[fd00::100]:80", "10.0.2.100:80"}},
	} {
		var got []string
		for _, a := range c.policy.targets(nil, netip.Addr{}, netip.MustParseAddr(c.client), 80) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.client, got, c.want)
		}
	}
	for first, want := range [][3]int{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}} {
		for n, w := range want {
			if got := targetOrder(first, n); got != w {
				t.Errorf("with %d first, number %d is %d, want %d", first, n, got, w)
			}
		}
	}
}
