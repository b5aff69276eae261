package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// dropped sends one IP packet and expects it to vanish into one counter.
func dropped(t *testing.T, packet []byte, counter func(*Drops) uint64) {
	t.Helper()
	l := newLab(t, nil)
	l.in(packet)
	l.expect()
	l.told()
	if d := l.Stats().Drops; counter(&d) != 1 {
		t.Fatalf("counted elsewhere: %+v", d)
	}
}

func TestMartiansAreDropped(t *testing.T) {
	source := func(d *Drops) uint64 { return d.MartianSource }
	target := func(d *Drops) uint64 { return d.MartianTarget }
	group := func(d *Drops) uint64 { return d.Group }
	land := func(d *Drops) uint64 { return d.Land }
	host := func(d *Drops) uint64 { return d.NoSuchHost }
	for _, c := range []struct {
		src, dst string
		counter  func(*Drops) uint64
	}{
		{"0.0.0.0:1", "9.9.9.9:53", source},
		{"0.1.2.3:1", "9.9.9.9:53", source},
		{"127.0.0.1:1", "9.9.9.9:53", source},
		{"127.0.0.1:1", "10.0.2.2:53", source},
		{"224.0.0.1:1", "9.9.9.9:53", source},
		{"240.0.0.1:1", "9.9.9.9:53", source},
		{"255.255.255.255:1", "9.9.9.9:53", source},
		{"10.0.2.255:1", "9.9.9.9:53", source},
		{"10.0.2.0:1", "9.9.9.9:53", source},
		{"10.0.2.2:1", "9.9.9.9:53", source},
		{"10.0.2.3:1", "10.0.2.2:53", source},
		{"169.254.1.1:1", "9.9.9.9:53", source},
		{"9.9.9.9:1", "9.9.9.9:1", land},
		{"10.0.2.100:1", "0.0.0.0:53", target},
		{"10.0.2.100:1", "0.0.0.1:53", target},
		{"10.0.2.100:1", "127.0.0.1:53", target},
		{"10.0.2.100:1", "127.8.8.8:53", target},
		{"10.0.2.100:1", "240.0.0.1:53", target},
		{"10.0.2.100:1", "255.255.255.255:67", group},
		{"10.0.2.100:1", "10.0.2.255:53", group},
		{"10.0.2.100:1", "10.0.2.0:53", group},
		{"10.0.2.100:1", "224.0.0.251:5353", group},
		{"10.0.2.100:1", "239.1.2.3:53", group},

		{"[::]:1", "[2001:db8::1]:53", source},
		{"[::1]:1", "[2001:db8::1]:53", source},
		{"[::1]:1", "[fd00::2]:53", source},
		{"[::7f00:1]:1", "[2001:db8::1]:53", source},
		{"[ff02::1]:1", "[2001:db8::1]:53", source},
		{"[fd00::2]:1", "[2001:db8::1]:53", source},
		{"[fe80::ff:fe00:2]:1", "[fd00::2]:53", source}, // our link-local address
		{"[2001:db8::1]:1", "[2001:db8::1]:1", land},
		{"[fd00::100]:1", "[::]:53", target},
		{"[fd00::100]:1", "[::1]:53", target},
		{"[fd00::100]:1", "[::127.0.0.1]:53", target},
		{"[fd00::100]:1", "[ff02::fb]:5353", group},
		{"[fd00::100]:1", "[ff05::1:3]:547", group},
		{"[::]:1", "[ff02::1]:547", group},
		{"[fe80::1]:1", "[ff02::1:2]:547", group},
	} {
		t.Run(c.src+" to "+c.dst, func(t *testing.T) { dropped(t, udp(c.src, c.dst, "x"), c.counter) })
	}
	// IPv4-mapped addresses cannot be written as IPv6 in netip's text form
	// without being one.
	mapped := udp("[fd00::100]:1", "[2001:db8::1]:53", "x")
	copy(mapped[24:], []byte{10: 0xff, 11: 0xff, 12: 127, 15: 1})
	t.Run("mapped destination", func(t *testing.T) { dropped(t, mapped, target) })
	mapped = udp("[fd00::100]:1", "[2001:db8::1]:53", "x")
	copy(mapped[8:], []byte{10: 0xff, 11: 0xff, 12: 9, 15: 9})
	t.Run("mapped source", func(t *testing.T) { dropped(t, mapped, source) })

	// On the link, but not ours: the sandbox is told.
	for _, c := range [][3]string{
		{"10.0.2.100:1", "10.0.2.77:53", "10.0.2.2 > 10.0.2.100 icmp 3/1 rest 0 about 10.0.2.100:1 > 10.0.2.77:53 protocol 17"},
		{"[fd00::100]:1", "[fd00::77]:53", "fd00::2 > fd00::100 icmp 1/3 rest 0 about [fd00::100]:1 > [fd00::77]:53 protocol 17"},
		{"[fd00::100]:1", "[fe80::77]:53", "fd00::2 > fd00::100 icmp 1/3 rest 0 about [fd00::100]:1 > [fe80::77]:53 protocol 17"},
	} {
		l := newLab(t, nil)
		l.in(udp(c[0], c[1], "x"))
		l.expect(c[2])
		l.told()
		if d := l.Stats().Drops; host(&d) != 1 {
			t.Errorf("%+v", d)
		}
	}
}

func TestPlausibleAddressesPass(t *testing.T) {
	for _, c := range [][3]string{
		{"10.0.2.100:1", "9.9.9.9:53", "udp 10.0.2.100:1 > 9.9.9.9:53 1"},
		{"10.0.2.100:1", "10.0.2.2:53", "udp 10.0.2.100:1 > 10.0.2.2:53 1"},
		{"172.17.0.2:1", "9.9.9.9:53", "udp 172.17.0.2:1 > 9.9.9.9:53 1"}, // a container in the sandbox
		{"10.0.2.100:1", "169.254.169.254:80", "udp 10.0.2.100:1 > 169.254.169.254:80 1"},
		{"[fd00::100]:1", "[2001:db8::1]:53", "udp [fd00::100]:1 > [2001:db8::1]:53 1"},
		{"[fe80::1]:1", "[fd00::3]:53", "udp [fe80::1]:1 > [fd00::3]:53 1"},
	} {
		l := newLab(t, nil)
		l.in(udp(c[0], c[1], "x"))
		l.told(c[2])
	}
}

func TestFramesForOthersAreDropped(t *testing.T) {
	l := newLab(t, nil)
	p := udp("10.0.2.100:1", "9.9.9.9:53", "x")
	l.Input(ethernet(sandboxMAC, header.MAC{2, 9}, p), frame.Offload{}, 0)
	l.Input(ethernet(sandboxMAC, header.Broadcast, p), frame.Offload{}, 0)
	l.Input(ethernet(header.Broadcast, stackMAC, p), frame.Offload{}, 0)
	l.Input(ethernet(stackMAC, stackMAC, p), frame.Offload{}, 0)
	l.Input(ethernet(header.MAC{}, stackMAC, p), frame.Offload{}, 0)
	vlan := ethernet(sandboxMAC, stackMAC, p)
	vlan[12], vlan[13] = 0x81, 0x00
	l.Input(vlan, frame.Offload{}, 0)
	l.Input(vlan[:13], frame.Offload{}, 0)
	l.Input(nil, frame.Offload{}, 0)
	l.expect()
	l.told()
	want := Drops{NotForUs: 1, Group: 1, EthernetSource: 3, EtherType: 1, Malformed: 2}
	if got := l.Stats().Drops; got != want {
		t.Fatalf("counted %+v, want %+v", got, want)
	}
}

func TestIPv4HeaderMustBeRight(t *testing.T) {
	good := udp("10.0.2.100:1", "9.9.9.9:53", "x")
	spoil := func(at int, b byte) []byte {
		p := bytes.Clone(good)
		p[at] = b
		return p
	}
	malformed := func(d *Drops) uint64 { return d.Malformed }
	for _, p := range [][]byte{spoil(0, 0x44), spoil(0, 0x4f), spoil(0, 0x40), spoil(2, 0xff), spoil(3, 10), good[:19], good[:24]} {
		dropped(t, p, malformed)
	}
	dropped(t, spoil(8, 63), func(d *Drops) uint64 { return d.IPChecksum })
	dropped(t, spoil(24, 9), func(d *Drops) uint64 { return d.TransportCheck + d.Malformed })
}

func TestTrailingPaddingIsCutOff(t *testing.T) {
	l := newLab(t, nil)
	l.in(append(udp("10.0.2.100:1", "9.9.9.9:53", "x"), make([]byte, 17)...))
	l.in(append(udp("[fd00::100]:1", "[2001:db8::1]:53", "x"), make([]byte, 17)...))
	l.told("udp 10.0.2.100:1 > 9.9.9.9:53 1", "udp [fd00::100]:1 > [2001:db8::1]:53 1")
}

func TestIPv4OptionsAreToleratedButSourceRoutesAreNot(t *testing.T) {
	with := func(options ...byte) []byte {
		return reread(udp("10.0.2.100:1", "9.9.9.9:53", "x"), func(f *header.IPv4Fields) { f.Options = options })
	}
	l := newLab(t, nil)
	l.in(with(7, 7, 4, 0, 0, 0, 0, 0), with(148, 4, 0, 0), with(68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0), with(7, 0, 0, 0), with(99, 40, 1, 1))
	l.told("udp 10.0.2.100:1 > 9.9.9.9:53 1", "udp 10.0.2.100:1 > 9.9.9.9:53 1", "udp 10.0.2.100:1 > 9.9.9.9:53 1",
		"udp 10.0.2.100:1 > 9.9.9.9:53 1", "udp 10.0.2.100:1 > 9.9.9.9:53 1")
	route := func(d *Drops) uint64 { return d.SourceRoute }
	dropped(t, with(131, 7, 4, 8, 8, 8, 8, 0), route)
	dropped(t, with(1, 137, 7, 4, 8, 8, 8, 8), route)
}

func TestIPv6ExtensionHeaders(t *testing.T) {
	good := udp("[fd00::100]:1", "[2001:db8::1]:53", "x")
	l := newLab(t, nil)
	l.in(
		insert(good, header.ProtocolHopByHop, 0, 0, 1, 4, 0, 0, 0, 0),
		insert(insert(good, header.ProtocolDestination, 0, 0, 1, 4, 0, 0, 0, 0), header.ProtocolHopByHop, 0, 0, 5, 2, 0, 0, 1, 0),
		insert(good, header.ProtocolRouting, 0, 0, 0, 0, 0, 0, 0, 0),  // used up
		insert(good, header.ProtocolFragment, 0, 0, 0, 0, 0, 0, 0, 9), // atomic
		insert(good, header.ProtocolDestination, 0, 0, 0x1e, 4, 0, 0, 0, 0),
	)
	one := "udp [fd00::100]:1 > [2001:db8::1]:53 1"
	l.told(one, one, one, one, one)
	l.expect()

	extension := func(d *Drops) uint64 { return d.ExtensionHeader }
	dropped(t, insert(good, header.ProtocolDestination, 0, 0, 0x5e, 4, 0, 0, 0, 0), extension)
	dropped(t, insert(good, header.ProtocolDestination, 0, 99, 1, 4, 0, 0, 0, 0), extension)

	l = newLab(t, nil)
	l.in(insert(good, header.ProtocolDestination, 0, 0, 0x9e, 4, 0, 0, 0, 0)) // unknown, tell
	l.in(insert(good, header.ProtocolRouting, 0, 0, 0, 1, 0, 0, 0, 0))        // one segment left
	l.in(insert(insert(good, header.ProtocolHopByHop, 0, 0, 1, 4, 0, 0, 0, 0), header.ProtocolDestination, 0, 0, 1, 4, 0, 0, 0, 0))
	about := "about [fd00::100]:1 > [2001:db8::1]:53 protocol 17"
	l.expect(
		"fd00::2 > fd00::100 icmp 4/2 rest 42 "+about,
		"fd00::2 > fd00::100 icmp 4/0 rest 42 "+about,
		"fd00::2 > fd00::100 icmp 4/1 rest 40 "+about,
	)
	l.told()
}

func TestUnknownProtocols(t *testing.T) {
	l := newLab(t, nil)
	from4, from6 := ip("10.0.2.100"), ip("fd00::100")
	sctp := make([]byte, 12)
	l.in(packetOf(from4, ip("10.0.2.2"), 132, sctp), packetOf(from4, ip("9.9.9.9"), 132, sctp))
	l.in(packetOf(from6, ip("fd00::2"), 132, sctp), packetOf(from6, ip("2001:db8::1"), 132, sctp))
	l.in(insert(packetOf(from6, ip("fd00::2"), 132, sctp), header.ProtocolDestination, 0, 0, 1, 4, 0, 0, 0, 0))
	l.in(packetOf(from6, ip("fd00::2"), header.ProtocolNoNext, nil))
	l.in(packetOf(from4, ip("224.0.0.22"), header.ProtocolIGMP, sctp))
	l.expect(
		"10.0.2.2 > 10.0.2.100 icmp 3/2 rest 0 about 10.0.2.100:0 > 10.0.2.2:0 protocol 132",
		"10.0.2.2 > 10.0.2.100 icmp 3/13 rest 0 about 10.0.2.100:0 > 9.9.9.9:0 protocol 132",
		"fd00::2 > fd00::100 icmp 4/1 rest 6 about [fd00::100]:0 > [fd00::2]:0 protocol 132",
		"fd00::2 > fd00::100 icmp 1/1 rest 0 about [fd00::100]:0 > [2001:db8::1]:0 protocol 132",
		"fd00::2 > fd00::100 icmp 4/1 rest 40 about [fd00::100]:0 > [fd00::2]:0 protocol 132",
	)
}

func TestUnicastPacketInAGroupFrameIsDropped(t *testing.T) {
	l := newLab(t, nil)
	for _, p := range [][]byte{udp("10.0.2.100:1", "10.0.2.2:53", "x"), udp("[fd00::100]:1", "[fd00::2]:53", "x")} {
		l.Input(ethernet(sandboxMAC, header.MAC{0x33, 0x33, 0, 0, 0, 1}, p), frame.Offload{}, 0)
	}
	l.told()
	if n := l.Stats().Drops.Group; n != 2 {
		t.Fatalf("%d", n)
	}
}

func TestNetworksOfTwoHaveNoBroadcastAddress(t *testing.T) {
	l := newLab(t, func(c *Config) {
		c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/31")}
		c.NextHop4 = ip("10.9.0.1")
		c.Neighbors = []Neighbor{{ip("10.9.0.1"), sandboxMAC}}
	})
	l.in(echo("10.9.0.1", "10.9.0.0", "hi"))
	l.expect(`10.9.0.0 > 10.9.0.1 echo reply id 7 seq 1 "hi"`)
}

func TestLinkLocalNetworkAsTheSandboxsOwn(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("169.254.7.2/24")} })
	l.in(udp("169.254.7.100:1", "9.9.9.9:53", "x"), udp("169.254.8.100:1", "9.9.9.9:53", "x"))
	l.told("udp 169.254.7.100:1 > 9.9.9.9:53 1")
}

// What hosts say about groups that they join is for routers of multicast.
func TestGroupReportsOfIPv4AreTolerated(t *testing.T) {
	report := packetOf(ip("10.0.2.100"), ip("224.0.0.22"), header.ProtocolIGMP, make([]byte, 16))
	dropped(t, report, func(d *Drops) uint64 { return d.Group })
	toUs := packetOf(ip("10.0.2.100"), ip("10.0.2.2"), header.ProtocolIGMP, make([]byte, 16))
	dropped(t, toUs, func(d *Drops) uint64 { return d.ICMPIgnored })
}
