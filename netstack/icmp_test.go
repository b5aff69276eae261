package netstack

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

func TestEchoToOwnAddressesIsAnsweredHere(t *testing.T) {
	l := newLab(t, nil)
	l.in(echo("10.0.2.100", "10.0.2.2", "hello"), echo("10.0.2.100", "10.0.2.3", ""))
	l.in(echo("fd00::100", "fd00::2", "hello"), ttl(1, echo("fd00::100", "fd00::3", "")))
	l.expect(
		`10.0.2.2 > 10.0.2.100 echo reply id 7 seq 1 "hello"`,
		`10.0.2.3 > 10.0.2.100 echo reply id 7 seq 1 ""`,
		`fd00::2 > fd00::100 echo reply id 7 seq 1 "hello"`,
		`fd00::3 > fd00::100 echo reply id 7 seq 1 ""`,
	)
	l.told()
}

func TestEchoToTheOutsideIsTheHandlers(t *testing.T) {
	l := newLab(t, nil)
	l.in(ttl(9, echo("10.0.2.100", "9.9.9.9", "hello")), echo("fd00::100", "2001:db8::1", "hello"))
	l.expect()
	l.told(`echo 10.0.2.100 > 9.9.9.9 id 7 seq 1 "hello" ttl 9`, `echo fd00::100 > 2001:db8::1 id 7 seq 1 "hello" ttl 64`)
	l.SendEchoReply(ip("9.9.9.9"), ip("10.0.2.100"), 7, 1, []byte("hello"))
	l.SendEchoReply(ip("2001:db8::1"), ip("fd00::100"), 7, 1, []byte("hello"))
	l.SendEchoReply(ip("9.9.9.9"), ip("fd00::100"), 7, 1, nil) // makes no sense
	l.expect(`9.9.9.9 > 10.0.2.100 echo reply id 7 seq 1 "hello"`, `2001:db8::1 > fd00::100 echo reply id 7 seq 1 "hello"`)
}

func TestEchoWithBadChecksumIsDropped(t *testing.T) {
	for _, p := range [][]byte{echo("10.0.2.100", "10.0.2.2", "hello"), echo("fd00::100", "fd00::2", "hello")} {
		p[len(p)-1] ^= 1
		dropped(t, p, func(d *Drops) uint64 { return d.TransportCheck })
	}
}

func TestGatewayIsTheFirstHopOfATraceroute(t *testing.T) {
	l := newLab(t, nil)
	l.in(ttl(1, udp("10.0.2.100:4000", "9.9.9.9:33434", "probe")))
	l.in(ttl(1, echo("10.0.2.100", "9.9.9.9", "probe")))
	l.in(ttl(0, segment("10.0.2.100:4000", "9.9.9.9:80", header.SYN)))
	l.in(ttl(1, udp("[fd00::100]:4000", "[2001:db8::1]:33434", "probe")))
	l.in(ttl(1, echo("fd00::100", "2001:db8::1", "probe")))
	l.in(ttl(1, insert(udp("[fd00::100]:4000", "[2001:db8::1]:33434", "probe"), header.ProtocolDestination, 0, 0, 1, 4, 0, 0, 0, 0)))
	l.told()
	l.expect(
		"10.0.2.2 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:4000 > 9.9.9.9:33434 protocol 17",
		"10.0.2.2 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:0 > 9.9.9.9:0 protocol 1",
		"10.0.2.2 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:4000 > 9.9.9.9:80 protocol 6",
		"fd00::2 > fd00::100 icmp 3/0 rest 0 about [fd00::100]:4000 > [2001:db8::1]:33434 protocol 17",
		"fd00::2 > fd00::100 icmp 3/0 rest 0 about [fd00::100]:0 > [2001:db8::1]:0 protocol 58",
		"fd00::2 > fd00::100 icmp 3/0 rest 0 about [fd00::100]:4000 > [2001:db8::1]:33434 protocol 17",
	)
	l.in(ttl(2, udp("10.0.2.100:4000", "9.9.9.9:33434", "probe")), ttl(1, udp("10.0.2.100:4000", "10.0.2.2:33434", "probe")))
	l.told("udp 10.0.2.100:4000 > 9.9.9.9:33434 5", "udp 10.0.2.100:4000 > 10.0.2.2:33434 5")
}

func TestNoErrorAboutAnErrorAGroupOrALaterFragment(t *testing.T) {
	quoted := udp("9.9.9.9:53", "10.0.2.100:4000", "x")
	quoted6 := udp("[2001:db8::1]:53", "[fd00::100]:4000", "x")
	later := reread(udp("10.0.2.100:4000", "9.9.9.9:53", strings.Repeat("x", 8)), func(f *header.IPv4Fields) {
		f.DontFragment, f.FragmentOffset = false, 8
	})
	for name, p := range map[string][]byte{
		"ICMP error":        icmp("10.0.2.100", "9.9.9.9", header.ICMPv4Unreachable, 3, 0, quoted),
		"ICMP redirect":     icmp("10.0.2.100", "9.9.9.9", header.ICMPv4Redirect, 0, 0, quoted),
		"unknown ICMP":      icmp("10.0.2.100", "9.9.9.9", 77, 0, 0, quoted),
		"later fragment":    later,
		"ICMPv6 error":      icmp("fd00::100", "2001:db8::1", header.ICMPv6Unreachable, 4, 0, quoted6),
		"ICMPv6 redirect":   icmp("fd00::100", "2001:db8::1", header.ICMPv6Redirect, 0, 0, quoted6),
		"v6 later fragment": insert(udp("[fd00::100]:4000", "[2001:db8::1]:53", "x"), header.ProtocolFragment, 0, 0, 0, 8, 0, 0, 0, 1),
		"loopback source":   udp("127.0.0.1:4000", "9.9.9.9:53", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.in(ttl(1, p))
			l.expect()
			if n := l.Stats().Drops.TTL; n != 1 {
				t.Fatalf("%d dropped for their TTL", n)
			}
		})
	}
	l := newLab(t, nil)
	l.in(packetOf(ip("10.0.2.100"), ip("224.0.0.9"), 99, make([]byte, 8)), packetOf(ip("fd00::100"), ip("ff02::9"), 99, make([]byte, 8)))
	l.expect()
	// An option that wants to be answered, in a packet to a group and to us.
	unknown := []byte{0, 0, 0x80, 4, 0, 0, 0, 0}
	l.in(insert(udp("[fd00::100]:4000", "[ff02::9]:53", "x"), header.ProtocolDestination, unknown...))
	l.expect()
	l.in(insert(udp("[fd00::100]:4000", "[fd00::2]:53", "x"), header.ProtocolDestination, unknown...))
	if out := l.out(); len(out) != 1 {
		t.Fatalf("%d answers to what is not to a group: the test proves nothing", len(out))
	}
}

func TestErrorsAreLimitedInRate(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Limits.ICMPErrors, c.Limits.ICMPBurst = 10, 5 })
	probe := ttl(1, udp("10.0.2.100:4000", "9.9.9.9:33434", "probe"))
	count := func(n int) int {
		for range n {
			l.in(probe)
		}
		return len(l.out())
	}
	if n := count(100); n != 5 {
		t.Fatalf("%d errors at once, want 5", n)
	}
	l.at = l.at.Add(200 * time.Millisecond)
	if n := count(100); n != 2 {
		t.Fatalf("%d errors after 0.2 s, want 2", n)
	}
	l.at = l.at.Add(time.Hour)
	if n := count(100); n != 5 {
		t.Fatalf("%d errors after an hour, want 5", n)
	}
	if n := l.Stats().Drops.ICMPRateLimited; n != 288 {
		t.Fatalf("%d counted as limited", n)
	}
}

func TestErrorQuotesNoMoreThanEveryHostTakes(t *testing.T) {
	l := newLab(t, nil)
	l.in(ttl(1, udp("10.0.2.100:1", "9.9.9.9:53", strings.Repeat("x", 1400))))
	l.in(ttl(1, udp("[fd00::100]:1", "[2001:db8::1]:53", strings.Repeat("x", 1400))))
	frames := l.out()
	if len(frames) != 2 || len(frames[0]) != 14+576 || len(frames[1]) != 14+1280 {
		t.Fatalf("%d frames: %d, %d bytes", len(frames), len(frames[0]), len(frames[1]))
	}
}

func TestRefusalsReachTheSandboxAsICMP(t *testing.T) {
	l := newLab(t, nil)
	a, b := port("10.0.2.100:4000"), port("9.9.9.9:53")
	c, d := port("[fd00::100]:4000"), port("[2001:db8::1]:53")
	var noAddr netip.Addr // the gateway's
	l.SendUDPUnreachable(a, b, 100, tcp.Silent, noAddr)
	l.SendUDPUnreachable(a, b, 100, tcp.Reset, noAddr)
	l.SendUDPUnreachable(a, b, 100, tcp.PortUnreachable, b.Addr())
	l.SendUDPUnreachable(a, b, 100, tcp.NetUnreachable, noAddr)
	l.SendUDPUnreachable(c, d, 100, tcp.PortUnreachable, d.Addr())
	l.SendUDPUnreachable(c, d, 100, tcp.Prohibited, noAddr)
	l.SendUDPUnreachable(a, d, 100, tcp.Prohibited, noAddr) // makes no sense
	l.SendUDPTooBig(a, b, 1472, 1400, noAddr)
	l.SendUDPTooBig(c, d, 1452, 1400, noAddr)
	l.SendEchoUnreachable(a.Addr(), b.Addr(), 7, 1, tcp.HostUnreachable, noAddr)
	l.SendUnreachable(&tcp.Route{Local: b, Remote: a}, tcp.HostUnreachable, 12345)
	l.SendUnreachable(&tcp.Route{Local: d, Remote: c}, tcp.Prohibited, 12345)
	l.expect(
		"9.9.9.9 > 10.0.2.100 icmp 3/3 rest 0 about 10.0.2.100:4000 > 9.9.9.9:53 protocol 17",
		"10.0.2.2 > 10.0.2.100 icmp 3/0 rest 0 about 10.0.2.100:4000 > 9.9.9.9:53 protocol 17",
		"2001:db8::1 > fd00::100 icmp 1/4 rest 0 about [fd00::100]:4000 > [2001:db8::1]:53 protocol 17",
		"fd00::2 > fd00::100 icmp 1/1 rest 0 about [fd00::100]:4000 > [2001:db8::1]:53 protocol 17",
		"10.0.2.2 > 10.0.2.100 icmp 3/4 rest 1400 about 10.0.2.100:4000 > 9.9.9.9:53 protocol 17",
		"fd00::2 > fd00::100 icmp 2/0 rest 1400 about [fd00::100]:4000 > [2001:db8::1]:53 protocol 17",
		"10.0.2.2 > 10.0.2.100 icmp 3/1 rest 0 about 10.0.2.100:0 > 9.9.9.9:0 protocol 1",
		"10.0.2.2 > 10.0.2.100 icmp 3/1 rest 0 about 10.0.2.100:4000 > 9.9.9.9:53 protocol 6",
		"fd00::2 > fd00::100 icmp 1/1 rest 0 about [fd00::100]:4000 > [2001:db8::1]:53 protocol 6",
	)
}

func TestErrorsFromTheSandboxReachTheFlow(t *testing.T) {
	l := newLab(t, nil)
	var told []string
	e, err := l.BindUDP(port("10.0.2.3:53"), func(*Datagram) {})
	if err != nil {
		t.Fatal(err)
	}
	e.SetUnreachable(func(u *Unreachable) { told = append(told, u.Dst.String()) })
	published := udp("192.0.2.7:5000", "10.0.2.100:80", "x")
	published6 := udp("[2001:db8::7]:5000", "[fd00::100]:80", "x")
	answer := udp("10.0.2.3:53", "10.0.2.100:4000", "x")
	l.in(
		icmp("10.0.2.100", "192.0.2.7", header.ICMPv4Unreachable, header.ICMPv4PortUnreachable, 0, published),
		icmp("10.0.2.100", "192.0.2.7", header.ICMPv4Unreachable, header.ICMPv4FragmentationNeeded, 1400, published),
		icmp("10.0.2.100", "192.0.2.7", header.ICMPv4Unreachable, header.ICMPv4AdminProhibited, 0, published[:28]),
		icmp("fd00::100", "2001:db8::7", header.ICMPv6Unreachable, header.ICMPv6PortUnreachable, 0, published6),
		icmp("fd00::100", "2001:db8::7", header.ICMPv6PacketTooBig, 0, 1300, published6),
		icmp("10.0.2.100", "10.0.2.3", header.ICMPv4Unreachable, header.ICMPv4PortUnreachable, 0, answer),
	)
	l.told(
		"unreachable 192.0.2.7:5000 > 10.0.2.100:80 reason 3 mtu 0",
		"unreachable 192.0.2.7:5000 > 10.0.2.100:80 reason 0 mtu 1400",
		"unreachable 192.0.2.7:5000 > 10.0.2.100:80 reason 4 mtu 0",
		"unreachable [2001:db8::7]:5000 > [fd00::100]:80 reason 3 mtu 0",
		"unreachable [2001:db8::7]:5000 > [fd00::100]:80 reason 0 mtu 1300",
	)
	compare(t, "endpoint", told, []string{"10.0.2.100:4000"})
	l.expect()
}

func TestErrorsThatQuoteNothingOfOursAreIgnored(t *testing.T) {
	quoted := udp("192.0.2.7:5000", "10.0.2.100:80", "x")
	fragment := reread(quoted, func(f *header.IPv4Fields) { f.DontFragment, f.FragmentOffset = false, 800 })
	quote := func(d *Drops) uint64 { return d.ICMPQuote }
	ignored := func(d *Drops) uint64 { return d.ICMPIgnored }
	for name, c := range map[string]struct {
		packet  []byte
		counter func(*Drops) uint64
	}{
		"someone else's packet": {icmp("10.0.2.100", "192.0.2.8", 3, 3, 0, quoted), quote},
		"no quotation":          {icmp("10.0.2.100", "192.0.2.7", 3, 3, 0, nil), quote},
		"half a header":         {icmp("10.0.2.100", "192.0.2.7", 3, 3, 0, quoted[:19]), quote},
		"no ports":              {icmp("10.0.2.100", "192.0.2.7", 3, 3, 0, quoted[:22]), quote},
		"a later fragment":      {icmp("10.0.2.100", "192.0.2.7", 3, 3, 0, fragment), quote},
		"too big for nothing":   {icmp("10.0.2.100", "192.0.2.7", 3, 4, 0, quoted), ignored},
		"redirect":              {icmp("10.0.2.100", "192.0.2.7", 5, 0, 0, quoted), ignored},
		"source quench":         {icmp("10.0.2.100", "192.0.2.7", 4, 0, 0, quoted), ignored},
		"from loopback":         {icmp("127.0.0.1", "192.0.2.7", 3, 3, 0, quoted), quote},
		"echo reply":            {icmp("10.0.2.100", "192.0.2.7", 0, 0, 0, nil), ignored},
	} {
		t.Run(name, func(t *testing.T) { dropped(t, c.packet, c.counter) })
	}
}
