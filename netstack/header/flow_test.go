package header

import (
	"net/netip"
	"testing"
)

func TestFlowOfFrames(t *testing.T) {
	fragmentFrame := func(offset int, more bool) []byte {
		b := make([]byte, 14+20+8)
		n := PutEthernet(b, EthernetFields{Type: EtherTypeIPv4})
		PutIPv4(b[n:], IPv4Fields{Protocol: 17, Source: addr("10.0.2.100"), Destination: addr("192.0.2.1"), FragmentOffset: offset, MoreFragments: more, PayloadLen: 8})
		copy(b[34:], udp)
		return b
	}
	fragmentFrame6 := func(next uint8, offset int) []byte {
		b := make([]byte, 14)
		PutEthernet(b, EthernetFields{Type: EtherTypeIPv6})
		c := chainCase{first: 44, payload: cat(fragment(next, offset, true), padded(17), udp)}
		return append(b, c.packet()...)
	}
	options6 := make([]byte, 14)
	PutEthernet(options6, EthernetFields{Type: EtherTypeIPv6})
	c := chainCase{first: 60, payload: cat(padded(17), udp)}
	options6 = append(options6, c.packet()...)

	for _, c := range []struct {
		name     string
		frame    []byte
		src, dst string
		want     Flow
	}{
		{"TCP", unhex(t, vectorData4), "127.0.0.1:38544", "127.0.0.1:52903", Flow{Protocol: 6}},
		{"TCP over IPv6", unhex(t, vectorSYN6), "[::1]:48146", "[::1]:50361", Flow{Protocol: 6}},
		{"UDP", unhex(t, vectorUDP4), "127.0.0.1:46349", "127.0.0.1:9", Flow{Protocol: 17}},
		{"UDP behind options", options6, "[fd00::100]:1", "[fd00::2]:2", Flow{Protocol: 17}},
		{"echo", unhex(t, vectorEcho4), "127.0.0.1:4660", "127.0.0.1:4660", Flow{Protocol: 1}},
		{"echo over IPv6", unhex(t, vectorEcho6), "[::1]:4660", "[::1]:4660", Flow{Protocol: 58}},
		{"error about UDP", unhex(t, vectorPortUnreachable4), "127.0.0.1:46349", "127.0.0.1:9", Flow{Protocol: 17, Quoted: true}},
		{"error about UDP over IPv6", unhex(t, vectorPortUnreachable6), "[::1]:46616", "[::1]:9", Flow{Protocol: 17, Quoted: true}},
		{"first fragment", fragmentFrame(0, true), "10.0.2.100:0", "192.0.2.1:0", Flow{Protocol: 17, Fragment: true}},
		{"last fragment", fragmentFrame(1480, false), "10.0.2.100:0", "192.0.2.1:0", Flow{Protocol: 17, Fragment: true}},
		{"first fragment over IPv6", fragmentFrame6(60, 0), "[fd00::100]:0", "[fd00::2]:0", Flow{Protocol: 44, Fragment: true}},
		{"later fragment over IPv6", fragmentFrame6(60, 1480), "[fd00::100]:0", "[fd00::2]:0", Flow{Protocol: 44, Fragment: true}},
		{"solicitation", unhex(t, vectorSolicitation), "[fd00::100]:0", "[ff02::1:ff00:2]:0", Flow{Protocol: 58}},
	} {
		c.want.Source, c.want.Destination = netip.MustParseAddrPort(c.src), netip.MustParseAddrPort(c.dst)
		if got, ok := ParseFlow(c.frame); !ok || got != c.want {
			t.Errorf("%s: %+v %v, want %+v", c.name, got, ok, c.want)
		}
	}
	for name, frame := range map[string][]byte{
		"ARP":       unhex(t, vectorARPRequest),
		"nothing":   nil,
		"truncated": unhex(t, vectorUDP4)[:40],
		"cut IPv6":  unhex(t, vectorUDP6)[:50],
	} {
		if f, ok := ParseFlow(frame); ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestErrorAndItsFlowChooseTheSameShard(t *testing.T) {
	echo := unhex(t, vectorEcho4)
	aboutEcho := make([]byte, 42)
	PutEthernet(aboutEcho, EthernetFields{Type: EtherTypeIPv4})
	PutIPv4(aboutEcho[14:], IPv4Fields{Protocol: ProtocolICMP, Source: addr("192.0.2.9"), Destination: addr("127.0.0.1"), PayloadLen: 8 + 28})
	PutICMPv4(aboutEcho[34:], ICMPFields{Type: ICMPv4TimeExceeded}, echo[14:42])
	aboutEcho = append(aboutEcho, echo[14:42]...) // from a router on the way

	for _, pair := range [][2][]byte{
		{unhex(t, vectorUDP4), unhex(t, vectorPortUnreachable4)},
		{unhex(t, vectorUDP6), unhex(t, vectorPortUnreachable6)},
		{echo, aboutEcho},
	} {
		flow, _ := ParseFlow(pair[0])
		about, ok := ParseFlow(pair[1])
		if !ok || !about.Quoted {
			t.Errorf("%+v %v", about, ok)
		}
		if flow.Hash() != about.Hash() {
			t.Errorf("%+v and %+v part", flow, about)
		}
	}
}

func TestFlowHashIsSymmetric(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.2.100:40000"), netip.MustParseAddrPort("192.0.2.1:443")
	if FlowHash(a, b, 6) != FlowHash(b, a, 6) {
		t.Error("differs by direction")
	}
	if FlowHash(a, b, 6) == FlowHash(a, b, 17) {
		t.Error("TCP and UDP are one")
	}
	mapped := netip.MustParseAddrPort("[::ffff:10.0.2.100]:40000")
	if FlowHash(a, b, 6) != FlowHash(mapped, b, 6) {
		t.Error("an IPv4-mapped address is another")
	}
	if got := FlowHash(netip.AddrPort{}, netip.AddrPort{}, 0); got != FlowHash(netip.AddrPort{}, netip.AddrPort{}, 0) {
		t.Errorf("not a function: %d", got)
	}
}

// Ports that count up, as a client's do, spread evenly over few shards.
func TestFlowHashSpreadsConsecutivePorts(t *testing.T) {
	for _, family := range []string{"10.0.2.100", "fd00::100"} {
		for _, shards := range []uint32{2, 3, 4, 8} {
			count := make([]int, shards)
			const flows = 8000
			for port := range uint16(flows) {
				src := netip.AddrPortFrom(addr(family), 32768+port)
				count[FlowHash(src, netip.AddrPortFrom(addr("2001:db8::1"), 443), 6)%shards]++
			}
			for i, n := range count {
				if mean := flows / int(shards); n < mean*8/10 || n > mean*12/10 {
					t.Errorf("%s: shard %d of %d has %d of %d flows", family, i, shards, n, flows)
				}
			}
		}
	}
}

func FuzzParseFlow(f *testing.F) {
	for _, v := range []string{vectorARPRequest, vectorSYN4, vectorUDP4, vectorPortUnreachable4, vectorEcho4,
		vectorSYN6, vectorUDP6, vectorPortUnreachable6, vectorEcho6, vectorSolicitation, vectorMulticastReport} {
		f.Add(unhex(f, v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		flow, ok := ParseFlow(b)
		if !ok {
			return
		}
		if !flow.Source.Addr().IsValid() || !flow.Destination.Addr().IsValid() ||
			flow.Source.Addr().Is4() != flow.Destination.Addr().Is4() {
			t.Fatalf("%+v", flow)
		}
		if flow.Fragment && (flow.Source.Port() != 0 || flow.Destination.Port() != 0) {
			t.Fatalf("fragment with ports: %+v", flow)
		}
		back := flow
		back.Source, back.Destination = back.Destination, back.Source
		if flow.Hash() != back.Hash() {
			t.Fatalf("%+v hashes apart from its way back", flow)
		}
	})
}
