package rootlesskit

import (
	"net"
	"net/netip"
	"testing"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"
)

func TestDockersPortsLeadToWhereItsProxyCanWait(t *testing.T) {
	own := []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("10.0.2.100"),
		netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fd00::100"),
	}
	ours := &api.Info{PortDriver: &api.PortDriverInfo{DisallowLoopbackChildIP: true}, NetworkDriver: &api.NetworkDriverInfo{ChildIP: net.ParseIP("10.0.2.100")}}
	builtin := &api.Info{PortDriver: &api.PortDriverInfo{}}
	for _, c := range []struct {
		host  string
		info  *api.Info
		own   []netip.Addr
		child string
		proto string
	}{
		{"0.0.0.0", ours, own, "10.0.2.100", "tcp4"},
		{"127.0.0.1", ours, own, "10.0.2.100", "tcp4"},
		{"::ffff:192.0.2.1", ours, own, "10.0.2.100", "tcp4"},
		{"::", ours, own, "fd00::100", "tcp6"},
		{"::1", ours, own, "fd00::100", "tcp6"},
		{"::", ours, own[:4], "127.0.0.1", "tcp6"},
		{"0.0.0.0", builtin, own, "127.0.0.1", "tcp4"},
		{"::", builtin, own, "::1", "tcp6"},
	} {
		p, err := readProxied([]string{"-proto", "tcp", "-host-ip", c.host, "-host-port", "8080", "-container-ip", "172.17.0.2", "-container-port", "80"})
		if err != nil {
			t.Fatal(err)
		}
		child := p.child(c.info, c.own)
		if s := p.spec(child); child.String() != c.child || s.Proto != c.proto || s.ParentPort != 8080 || s.ChildPort != 8080 || s.ChildIP != c.child {
			t.Errorf("%s: %v, want %s at %s", c.host, s, c.proto, c.child)
		}
	}
}

func TestDockerProxyRefusesWhatIsNoAddress(t *testing.T) {
	for _, args := range [][]string{{}, {"-host-ip", "x"}, {"-host-port", "x"}, {"-no-such"}} {
		if p, err := readProxied(args); err == nil {
			t.Errorf("%q: %+v", args, p)
		}
	}
}
