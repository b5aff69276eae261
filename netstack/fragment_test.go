package netstack

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// cut4 cuts the bytes [from, to) of an IPv4 packet's payload out as a fragment.
func cut4(packet []byte, id uint16, from, to int) []byte {
	h, payload, _ := header.ParseIPv4(packet)
	f := h.Fields()
	f.ID, f.DontFragment, f.FragmentOffset, f.MoreFragments = id, false, from, to < len(payload)
	return ipv4Packet(f, payload[from:to])
}

func ipv4Packet(f header.IPv4Fields, payload []byte) []byte {
	f.PayloadLen = len(payload)
	b := make([]byte, f.HeaderLen(), f.HeaderLen()+len(payload))
	header.PutIPv4(b, f)
	return append(b, payload...)
}

// cut6 cuts the bytes [from, to) of what follows the IPv6 header out as a
// fragment, behind the extension headers in front.
func cut6(packet []byte, id uint32, from, to int, front ...byte) []byte {
	payload := packet[header.IPv6Len:]
	b := slices.Clone(packet[:header.IPv6Len])
	kind := b[6]
	b[6] = header.ProtocolFragment
	if len(front) > 0 {
		b[6] = header.ProtocolDestination
		front[0] = header.ProtocolFragment
		b = append(b, front...)
	}
	f := make([]byte, header.IPv6FragmentLen)
	header.PutIPv6Fragment(f, header.IPv6FragmentFields{NextHeader: kind, Offset: from, MoreFragments: to < len(payload), ID: id})
	b = append(append(b, f...), payload[from:to]...)
	header.IPv6(b).SetPayloadLen(len(b) - header.IPv6Len)
	return b
}

func TestFragmentedDatagramsArrive(t *testing.T) {
	text := strings.Repeat("0123456789", 10)
	v4, v6 := udp("10.0.2.100:1", "9.9.9.9:53", text), udp("[fd00::100]:1", "[2001:db8::1]:53", text)
	l := newLab(t, nil)
	l.in(cut4(v4, 1, 64, 108), cut4(v4, 2, 0, 64), cut4(v4, 1, 0, 64), cut4(v4, 2, 64, 108))
	l.in(cut6(v6, 1, 64, 108), cut6(v6, 2, 0, 64), cut6(v6, 1, 0, 64), cut6(v6, 2, 64, 108))
	padding := []byte{0, 0, 1, 4, 0, 0, 0, 0}
	l.in(cut6(v6, 3, 0, 64, padding...), cut6(v6, 3, 64, 108, padding...))
	optional := insert(v6, header.ProtocolDestination, 0, 0, 1, 4, 0, 0, 0, 0) // within the fragmented part
	l.in(cut6(optional, 4, 0, 64), cut6(optional, 4, 64, 116))
	want4, want6 := "udp 10.0.2.100:1 > 9.9.9.9:53 100", "udp [fd00::100]:1 > [2001:db8::1]:53 100"
	l.told(want4, want4, want6, want6, want6, want6)
	if s := l.Stats(); s.DatagramsReassembled != 6 || s.ReassemblyBytes != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestReassembledChecksumIsVerified(t *testing.T) {
	v4 := udp("10.0.2.100:1", "9.9.9.9:53", strings.Repeat("x", 100))
	v4[50] ^= 1
	l := newLab(t, nil)
	l.in(cut4(v4, 1, 64, 108), cut4(v4, 1, 0, 64))
	l.told()
	if n := l.Stats().Drops.TransportCheck; n != 1 {
		t.Fatalf("%d bad checksums", n)
	}
}

func TestOverlapDropsTheDatagramInBothFamilies(t *testing.T) {
	text := strings.Repeat("0123456789", 10)
	v4, v6 := udp("10.0.2.100:1", "9.9.9.9:53", text), udp("[fd00::100]:1", "[2001:db8::1]:53", text)
	l := newLab(t, nil)
	l.in(cut4(v4, 1, 0, 64), cut4(v4, 1, 56, 72), cut4(v4, 1, 64, 108), cut4(v4, 1, 0, 64))
	l.in(cut6(v6, 1, 0, 64), cut6(v6, 1, 56, 72), cut6(v6, 1, 64, 108), cut6(v6, 1, 0, 64))
	l.told()
	l.expect()
	if n := l.Stats().Drops.Reassembly; n != 6 {
		t.Fatalf("%d fragments refused", n)
	}
}

func TestFirstFragmentMustHoldTheHeaders(t *testing.T) {
	v4, v6 := segment("10.0.2.100:1", "9.9.9.9:80", header.SYN), segment("[fd00::100]:1", "[2001:db8::1]:80", header.SYN)
	dropped(t, cut4(v4, 1, 0, 8), func(d *Drops) uint64 { return d.Reassembly })
	l := newLab(t, nil)
	l.in(cut6(v6, 1, 0, 8)) // RFC 7112 §5: the sender is told
	l.expect("fd00::2 > fd00::100 icmp 4/3 rest 0 about [fd00::100]:1 > [2001:db8::1]:80 protocol 6")
}

func TestMalformedIPv6FragmentsAreAnswered(t *testing.T) {
	v6 := udp("[fd00::100]:1", "[2001:db8::1]:53", strings.Repeat("x", 100))
	odd := cut6(v6, 1, 0, 63)
	far := cut6(v6, 1, 64, 108)
	far[42], far[43] = 0xff, 0xf8 // offset 65528
	l := newLab(t, nil)
	l.in(odd)
	l.expect("fd00::2 > fd00::100 icmp 4/0 rest 4 about [fd00::100]:1 > [2001:db8::1]:53 protocol 17")
	l.in(far) // a later fragment, but RFC 8200 §4.5 wants it told
	l.expect("fd00::2 > fd00::100 icmp 4/0 rest 42 about [fd00::100]:0 > [2001:db8::1]:0 protocol 17")
	if n := l.Stats().Drops.ExtensionHeader; n != 2 {
		t.Fatalf("%d", n)
	}
}

func TestUnfinishedDatagramIsReported(t *testing.T) {
	text := strings.Repeat("x", 100)
	l := newLab(t, nil)
	l.in(cut4(udp("10.0.2.100:1", "9.9.9.9:53", text), 1, 0, 64))
	l.in(cut4(udp("10.0.2.100:2", "9.9.9.9:53", text), 2, 64, 108)) // nobody can tell whose
	l.in(cut6(udp("[fd00::100]:1", "[2001:db8::1]:53", text), 1, 0, 64))
	l.pass(29 * time.Second)
	l.expect()
	l.pass(2 * time.Second)
	l.expect("10.0.2.2 > 10.0.2.100 icmp 11/1 rest 0 about 10.0.2.100:1 > 9.9.9.9:53 protocol 17")
	l.pass(30 * time.Second)
	l.expect("fd00::2 > fd00::100 icmp 3/1 rest 0 about [fd00::100]:1 > [2001:db8::1]:53 protocol 17")
	if s := l.Stats(); s.ReassemblyBytes != 0 || s.Reassembly4.TimedOut != 2 || s.Reassembly6.TimedOut != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestFragmentFloodIsBounded(t *testing.T) {
	l := newLab(t, nil)
	v4 := udp("10.0.2.100:1", "9.9.9.9:53", strings.Repeat("x", 1400))
	v6 := udp("[fd00::100]:1", "[2001:db8::1]:53", strings.Repeat("x", 1400))
	for i := range 20000 {
		l.in(cut4(v4, uint16(i), 0, 1200), cut6(v6, uint32(i), 0, 1200))
	}
	if n := l.Stats().ReassemblyBytes; n > 4<<20 {
		t.Fatalf("%d bytes held", n)
	}
}

func TestOutputFragmentsHaveDFClearAndAnID(t *testing.T) {
	l := newLab(t, nil)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 3000), 0)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 3000), 0)
	ids := map[uint16]int{}
	for _, f := range l.out() {
		h, _, ok := header.ParseIPv4(f[14:])
		if !ok || h.DontFragment() {
			t.Fatalf("%v", describe(f))
		}
		ids[h.ID()]++
	}
	if len(ids) != 2 {
		t.Fatalf("identifications %v", ids)
	}
	l.SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), make([]byte, 3000), 0)
	one := "2001:db8::1 > fd00::100 fragment "
	l.expect(one+"0+1448 more true", one+"1448+1448 more true", one+"2896+112 more false")
}

func TestCongestionMarkOfAFragmentIsTheDatagrams(t *testing.T) {
	text := strings.Repeat("x", 100)
	v4 := reread(udp("10.0.2.100:1", "9.9.9.9:53", text), func(f *header.IPv4Fields) { f.ECN = header.ECT0 })
	v6 := udp("[fd00::100]:1", "[2001:db8::1]:53", text)
	v6[1] |= header.ECT0 << 4
	marked4 := reread(v4, func(f *header.IPv4Fields) { f.ECN = header.CE })
	marked6 := slices.Clone(v6)
	marked6[1] |= header.CE << 4
	l := newLab(t, nil)
	l.in(cut4(v4, 1, 0, 64), cut4(marked4, 2, 0, 64), cut4(marked4, 1, 64, 108), cut4(v4, 2, 64, 108))
	l.in(cut6(v6, 1, 0, 64), cut6(marked6, 2, 0, 64), cut6(marked6, 1, 64, 108), cut6(v6, 2, 64, 108))
	want4, want6 := "udp 10.0.2.100:1 > 9.9.9.9:53 100 tos 3", "udp [fd00::100]:1 > [2001:db8::1]:53 100 tos 3"
	l.told(want4, want4, want6, want6)
}

func TestReassembledPacketMayNotExceedTheLongest(t *testing.T) {
	whole := ipv4Packet(header.IPv4Fields{Source: ip("10.0.2.100"), Destination: ip("9.9.9.9"), TTL: 64,
		Protocol: header.ProtocolUDP}, make([]byte, 65496))
	options := func(f *header.IPv4Fields) { f.Options = make([]byte, 40) }
	l := newLab(t, nil)
	l.in(cut4(whole, 1, 32768, 65496), reread(cut4(whole, 1, 0, 32768), options))
	l.told()
	if s := l.Stats(); s.DatagramsReassembled != 1 || s.Drops.Reassembly != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestNeighborDiscoveryInFragmentsIsIgnored(t *testing.T) {
	m := nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, ip("fd00::100"), ip("fd00::2"))
	l := newLab(t, nil)
	l.in(cut6(m, 1, 24, 32), cut6(m, 1, 0, 24))
	l.expect()
	if s := l.Stats(); s.DatagramsReassembled != 1 || s.Drops.NotSolicited != 1 {
		t.Fatalf("%+v", s)
	}
}

// An identification tells fragments apart. Where there can be none it is 0, as
// a number that counts tells strangers how much is sent (RFC 6864 §4.1).
func TestIdentificationIsZeroWhereNobodyMayFragment(t *testing.T) {
	l := newLab(t, nil)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("x"), 0)
	l.in(echo("10.0.2.100", "10.0.2.2", "x"))
	l.in(ttl(1, udp("10.0.2.100:4000", "9.9.9.9:33434", "probe")))
	if _, err := l.TCP().Dial(port("10.0.2.2:0"), port("10.0.2.100:80"), nil); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	frames := l.out()
	if len(frames) != 4 {
		t.Fatalf("%d frames", len(frames))
	}
	for _, f := range frames {
		if h, _, ok := header.ParseIPv4(f[14:]); !ok || !h.DontFragment() || h.ID() != 0 {
			t.Errorf("%s: DF %v, ID %d", describe(f), h.DontFragment(), h.ID())
		}
	}
}
