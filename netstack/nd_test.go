package netstack

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

var (
	ownGroup = header.SolicitedNode(ip("fd00::2"))
	ns       = header.PutNeighborSolicitation
	na       = header.PutNeighborAdvertisement
)

// nd makes a neighbour solicitation or advertisement, as put says, in an IPv6
// packet with hop limit 255.
func nd(put func([]byte, *header.NeighborFields, netip.Addr, netip.Addr) int, f header.NeighborFields, src, dst netip.Addr) []byte {
	b := make([]byte, f.Len())
	put(b, &f, src, dst)
	return ttl(255, packetOf(src, dst, header.ProtocolICMPv6, b))
}

func TestNeighborSolicitationIsAnswered(t *testing.T) {
	l := newLab(t, nil)
	sandbox := ip("fd00::100")
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, sandbox, ownGroup))
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::3"), LinkAddress: sandboxMAC}, sandbox, header.SolicitedNode(ip("fd00::3"))))
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::2")}, sandbox, ip("fd00::2"))) // is it still there?
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::77"), LinkAddress: sandboxMAC}, sandbox, header.SolicitedNode(ip("fd00::77"))))
	flags := " at 02:00:00:00:00:02 router true solicited true override true valid true [ttl 255]"
	l.expect(
		"fd00::2 > fd00::100 na fd00::2"+flags,
		"fd00::3 > fd00::100 na fd00::3"+flags,
		"fd00::2 > fd00::100 na fd00::2"+flags,
	)
	l.told()
}

func TestDuplicateAddressDetectionIsAnsweredToAll(t *testing.T) {
	l := newLab(t, nil)
	nobody := netip.IPv6Unspecified()
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::2")}, nobody, ownGroup))
	l.in(nd(ns, header.NeighborFields{Target: l.linkLocal}, nobody, header.SolicitedNode(l.linkLocal)))
	l.in(nd(ns, header.NeighborFields{Target: ip("fd00::100")}, nobody, header.SolicitedNode(ip("fd00::100")))) // its own: silence
	flags := " at 02:00:00:00:00:02 router true solicited false override true valid true [ttl 255] [to 33:33:00:00:00:01]"
	l.expect("fd00::2 > ff02::1 na fd00::2"+flags, "fe80::ff:fe00:2 > ff02::1 na fe80::ff:fe00:2"+flags)
}

func TestForgedNeighborDiscoveryIsIgnored(t *testing.T) {
	sandbox, nobody := ip("fd00::100"), netip.IPv6Unspecified()
	good := nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, sandbox, ownGroup)
	zeroOption := nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, sandbox, ownGroup)
	zeroOption[40+25] = 0
	header.PutICMPv6(zeroOption[40:], header.ICMPFields{Type: header.ICMPv6NeighborSolicitation}, sandbox, ownGroup, zeroOption[48:])
	for name, p := range map[string][]byte{
		"came through a router":              ttl(254, good),
		"probe with a link address":          nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, nobody, ownGroup),
		"probe to all nodes":                 nd(ns, header.NeighborFields{Target: ip("fd00::2")}, nobody, header.AllNodes),
		"multicast target":                   nd(ns, header.NeighborFields{Target: header.AllNodes, LinkAddress: sandboxMAC}, sandbox, ownGroup),
		"option of length zero":              zeroOption,
		"solicited answer to all":            nd(na, header.NeighborFields{Target: sandbox, LinkAddress: sandboxMAC, Solicited: true}, sandbox, header.AllNodes),
		"answer with a group as station":     nd(na, header.NeighborFields{Target: sandbox, LinkAddress: header.Broadcast, Solicited: true}, sandbox, ip("fd00::2")),
		"answer that says it is our own MAC": nd(na, header.NeighborFields{Target: sandbox, LinkAddress: stackMAC, Solicited: true}, sandbox, ip("fd00::2")),
	} {
		t.Run(name, func(t *testing.T) { dropped(t, p, func(d *Drops) uint64 { return d.NotSolicited }) })
	}
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	dropped(t, bad, func(d *Drops) uint64 { return d.TransportCheck })
}

func TestFirstDatagramWaitsForNeighborDiscovery(t *testing.T) {
	l := newLab(t, strangers)
	l.SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), []byte("one"), 0)
	asked := "fd00::2 > ff02::1:ff00:100 ns fd00::100 by 02:00:00:00:00:02 valid true [ttl 255] [to 33:33:ff:00:01:00]"
	l.expect(asked)
	l.pass(time.Second)
	l.expect(asked)
	l.in(nd(na, header.NeighborFields{Target: ip("fd00::100"), LinkAddress: sandboxMAC, Solicited: true, Override: true},
		ip("fd00::100"), ip("fd00::2")))
	l.expect("[2001:db8::1]:53 > [fd00::100]:4000 udp 3")
	// Half a minute later it is verified, of that station alone.
	l.pass(31 * time.Second)
	l.SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), []byte("x"), 0)
	l.expect("fd00::2 > fd00::100 ns fd00::100 by 02:00:00:00:00:02 valid true [ttl 255]",
		"[2001:db8::1]:53 > [fd00::100]:4000 udp 1")
}

func TestLinkLocalHostIsSpokenToFromTheLinkLocalAddress(t *testing.T) {
	l := newLab(t, strangers)
	l.in(echo("fe80::1", "fd00::2", "hi"))
	l.expect("fe80::ff:fe00:2 > ff02::1:ff00:1 ns fe80::1 by 02:00:00:00:00:02 valid true [ttl 255] [to 33:33:ff:00:00:01]")
	l.in(nd(na, header.NeighborFields{Target: ip("fe80::1"), LinkAddress: sandboxMAC, Solicited: true}, ip("fe80::1"), l.linkLocal))
	l.expect(`fd00::2 > fe80::1 echo reply id 7 seq 1 "hi"`)
}

// solicitRouter makes a router solicitation.
func solicitRouter(src string, mac header.MAC) []byte {
	b := make([]byte, 16)
	n := header.PutRouterSolicitation(b, mac, ip(src), header.AllRouters)
	return ttl(255, packetOf(ip(src), header.AllRouters, header.ProtocolICMPv6, b[:n]))
}

func TestRouterSolicitationIsAnswered(t *testing.T) {
	l := newLab(t, func(c *Config) { c.RouterAdvertisement.DNS = []netip.Addr{ip("fd00::3")} })
	l.in(solicitRouter("fe80::1", sandboxMAC))
	var ra []byte
	for _, f := range l.out() { // the host, heard of just now, is verified as well
		if d := describe(f); d == "fe80::ff:fe00:2 > fe80::1 ra [ttl 255]" {
			ra = f
		}
	}
	if ra == nil {
		t.Fatal("no advertisement")
	}
	h, options, ok := header.ParseRouterAdvertisement(header.ICMPv6(ra[14+40:]))
	if !ok || h.Lifetime() != 1800*time.Second || h.Managed() {
		t.Fatalf("lifetime %v, managed %v, valid %v", h.Lifetime(), h.Managed(), ok)
	}
	seen := map[uint8]bool{}
	for {
		kind, data, ok := options.Next()
		if !ok {
			break
		}
		seen[kind] = true
		switch kind {
		case header.NDPPrefixInformation:
			p, _ := header.ParsePrefixInformation(data)
			if p.Prefix != netip.MustParsePrefix("fd00::/64") || !p.OnLink || p.Autonomous {
				t.Errorf("prefix %+v", p)
			}
		case header.NDPMTU:
			if mtu, _ := header.ParseMTUOption(data); mtu != 1500 {
				t.Errorf("MTU %d", mtu)
			}
		case header.NDPRDNSS:
			if o, ok := header.ParseRDNSS(data); !ok || o.Len() != 1 || o.Server(0) != ip("fd00::3") {
				t.Errorf("servers %v", data)
			}
		}
	}
	for _, kind := range []uint8{header.NDPSourceLinkAddress, header.NDPPrefixInformation, header.NDPMTU, header.NDPRDNSS} {
		if !seen[kind] {
			t.Errorf("option %d is missing", kind)
		}
	}
}

func TestHostWithoutAddressIsAdvertisedToByMulticastAtMostEveryThreeSeconds(t *testing.T) {
	l := newLab(t, nil)
	l.in(solicitRouter("::", header.MAC{}), solicitRouter("::", header.MAC{}))
	ra := "fe80::ff:fe00:2 > ff02::1 ra [ttl 255] [to 33:33:00:00:00:01]"
	l.expect(ra)
	l.at = l.at.Add(3 * time.Second)
	l.in(solicitRouter("::", header.MAC{}))
	l.expect(ra)
}

func TestUnaskedAdvertisementsKeepTheirInterval(t *testing.T) {
	l := newLab(t, func(c *Config) { c.RouterAdvertisement.Interval = 100 * time.Second })
	l.pass(1000 * time.Second)
	if n := len(l.out()); n < 10 || n > 15 {
		t.Fatalf("%d advertisements in 1000 s at intervals of 75 to 100 s", n)
	}
}

func TestDisabledRouterSaysNothing(t *testing.T) {
	l := newLab(t, func(c *Config) { c.RouterAdvertisement = RouterAdvertisement{Disabled: true, Interval: time.Second} })
	l.in(solicitRouter("fe80::1", sandboxMAC))
	l.pass(10 * time.Second)
	l.expect()
}

func TestMulticastChatterIsTolerated(t *testing.T) {
	l := newLab(t, nil)
	report := icmp("fe80::1", "ff02::16", header.ICMPv6MulticastReportVersion2, 0, 1, make([]byte, 20))
	l.in(insert(report, header.ProtocolHopByHop, 0, 0, 5, 2, 0, 0, 1, 0))
	l.in(echo("fd00::100", "ff02::1", "all"))
	l.in(icmp("fe80::1", "fd00::2", header.ICMPv6Redirect, 0, 0, make([]byte, 32)))
	l.expect()
	l.told()
	if d := l.Stats().Drops; d.ICMPIgnored != 2 || d.Group != 1 {
		t.Fatalf("%+v", d)
	}
}
