package header

import (
	"net/netip"
	"testing"
)

func TestMartians(t *testing.T) {
	for _, c := range []struct {
		a                   string
		source, destination bool // martian as
		linkLocal           bool
	}{
		{"0.0.0.0", true, true, false},
		{"0.1.2.3", true, true, false},
		{"127.0.0.1", true, true, false},
		{"127.255.255.254", true, true, false},
		{"240.0.0.1", true, true, false},
		{"255.255.255.255", true, true, false},
		{"224.0.0.1", true, false, false},
		{"239.255.255.250", true, false, false},
		{"169.254.169.254", false, false, true},
		{"1.0.0.0", false, false, false},
		{"10.0.2.100", false, false, false},
		{"126.255.255.255", false, false, false},
		{"128.0.0.0", false, false, false},
		{"223.255.255.255", false, false, false},

		{"::", true, true, false},
		{"::1", true, true, false},
		{"::2", true, true, false},
		{"::127.0.0.1", true, true, false},
		{"::ffff:ffff", true, true, false},
		{"::ffff:127.0.0.1", true, true, false},
		{"::ffff:192.0.2.1", true, true, false},
		{"::ffff:0.0.0.0", true, true, false},
		{"ff02::1", true, false, false},
		{"ff02::1%eth0", true, false, false},
		{"::1%lo", true, true, false}, // a zone is no way round
		{"::ffff:127.0.0.1", true, true, false},
		{"fe80::1", false, false, true},
		{"febf::1", false, false, true},
		{"fec0::1", false, false, false},
		{"fd00::100", false, false, false},
		{"2001:db8::1", false, false, false},
		{"::1:0:0", false, false, false},         // one bit beyond ::/96
		{"::fffe:7f00:1", false, false, false},   // neither compatible nor mapped
		{"64:ff9b::7f00:1", false, false, false}, // NAT64: not the host's to resolve
		{"0:0:0:0:1:ffff:7f00:1", false, false, false},
	} {
		a := netip.MustParseAddr(c.a)
		if IsMartianSource(a) != c.source || IsMartianDestination(a) != c.destination || IsLinkLocal(a) != c.linkLocal {
			t.Errorf("%s: source %v, destination %v, link-local %v", c.a, IsMartianSource(a), IsMartianDestination(a), IsLinkLocal(a))
		}
	}
	if !IsMartianSource(netip.Addr{}) || !IsMartianDestination(netip.Addr{}) {
		t.Error("the zero Addr passes")
	}
}
