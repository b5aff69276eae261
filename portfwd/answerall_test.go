package portfwd

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// A sandbox that shares the host's addresses, outside4 and outside6, behind the
// routers of the host's network.
const router4, router6 = "198.51.100.254", "fe80::1"

func likeTheHost(o *worldOptions) {
	o.AnswerAll = true
	o.IPv4 = Addresses{Gateway: netip.MustParseAddr(router4), Sandbox: netip.MustParseAddr(outside4), Prefix: netip.MustParsePrefix("198.51.100.0/24")}
	o.IPv6 = Addresses{Gateway: netip.MustParseAddr(router6), Sandbox: netip.MustParseAddr(outside6), Prefix: netip.MustParsePrefix("2001:db8:1::/64")}
	o.guest = configureLikeTheHost
}

func configureLikeTheHost() error {
	for _, name := range []string{"lo", "tap0"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return err
	}
	tap, err := netlink.LinkByName("tap0")
	if err != nil {
		return err
	}
	for _, p := range []string{outside4 + "/24", outside6 + "/64"} {
		a, err := netlink.ParseAddr(p)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(tap, a); err != nil {
			return err
		}
	}
	for _, gw := range []string{router4, router6} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: tap.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	return lab.AwaitAddress(outside6)
}

func TestSandboxWithTheHostsAddressesReachesItsNetwork(t *testing.T) {
	w := newWorld(t, likeTheHost)
	for _, host := range []string{neighbor4, neighbor6} {
		l := hostListen(t, host)
		go whoTCP(l)
		u := hostListenPacket(t, host)
		go whoUDP(u)
		buf := make([]byte, 100)
		c := w.mustDial("tcp", l.Addr().String())
		if _, err := c.Read(buf); err != nil {
			t.Errorf("tcp %s: %v", host, err)
		}
		c = w.mustDial("udp", u.LocalAddr().String())
		c.Write([]byte("?"))
		if _, err := c.Read(buf); err != nil {
			t.Errorf("udp %s: %v", host, err)
		}
		if err := w.ping(host, 1); err != nil {
			t.Errorf("ping %s: %v", host, err)
		}
	}
}

func TestClientsOfASandboxWithTheHostsAddresses(t *testing.T) {
	w := newWorld(t, likeTheHost, publishing("0.0.0.0:7001:80", "[::]:7001:80", "0.0.0.0:7001:80/udp", "[::]:7001:80/udp"))
	go whoTCP(w.listen("tcp4", outside4+":80"))
	go whoTCP(w.listen("tcp6", "["+outside6+"]:80"))
	go whoUDP(w.listenPacket("udp4", outside4+":80"))
	go whoUDP(w.listenPacket("udp6", "["+outside6+"]:80"))
	for _, c := range []struct{ client, to, seen string }{
		{outside4, outside4, router4}, // the host itself
		{outside6, outside6, router6},
		{"127.0.0.1", "127.0.0.1", router4},
		{"::1", "::1", router6},
		{neighbor4, outside4, neighbor4}, // somebody on its network
		{neighbor6, outside6, neighbor6},
	} {
		for name, ask := range map[string]func(*testing.T, string, string) (string, string){"tcp": askTCP, "udp": askUDP} {
			answer, local := ask(t, c.client, net.JoinHostPort(c.to, "7001"))
			seen, err := netip.ParseAddrPort(answer)
			seen = netip.AddrPortFrom(seen.Addr().WithZone(""), seen.Port()) // in which namespace?
			if want := net.JoinHostPort(c.seen, portOf(addr(local))); err != nil || seen.String() != want {
				t.Errorf("%s client %s is seen as %s, want %s", name, local, answer, want)
			}
		}
	}
}

func TestAnswerAllKeepsTheHostsLoopbackOut(t *testing.T) {
	p := policy{answerAll: true, gateway: refuse,
		ipv4: Addresses{Gateway: netip.MustParseAddr(router4), Sandbox: netip.MustParseAddr(outside4), Prefix: netip.MustParsePrefix("198.51.100.0/24")},
		ipv6: Addresses{Gateway: netip.MustParseAddr(router6), Sandbox: netip.MustParseAddr(outside6), Prefix: netip.MustParsePrefix("2001:db8:1::/64")},
	}
	for to, want := range map[string]verdict{
		"127.0.0.1": noHost, "0.0.0.0": noHost, "::1": noHost, "::ffff:127.0.0.1": noHost, "169.254.169.254": noHost, "fe80::7": noHost,
		"198.51.100.255": drop, outside4: noHost, outside6: noHost, router6: refuse,
		router4: allow, neighbor4: allow, neighbor6: allow, "192.0.2.1": allow, "2001:db8:1::": allow,
	} {
		if got, v := p.destination(netip.AddrPortFrom(netip.MustParseAddr(to), 80)); v != want || v == allow && got.Addr().String() != to {
			t.Errorf("%s: verdict %d to %s, want %d", to, v, got, want)
		}
	}
}
