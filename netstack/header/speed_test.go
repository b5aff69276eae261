package header

import (
	"testing"
	"time"

	"sbxnet/netstack/seq"
)

// hotPaths is what happens to every packet, each as one function to be timed
// and to be held to no allocation. sink keeps the compiler from dropping them.
var sink uint64

func hotPaths(t testing.TB) map[string]func() {
	data4, data6 := unhex(t, vectorData4), unhex(t, vectorSYN6)
	unreachable := unhex(t, vectorPortUnreachable6)
	solicitation := unhex(t, vectorSolicitation)
	c := chainCase{first: 0, payload: cat(padded(60), padded(44), fragment(17, 0, true), udp)}
	extended := c.packet()
	out := make([]byte, 256)
	src4, dst4, src6, dst6 := addr("10.0.2.2"), addr("10.0.2.100"), addr("fd00::2"), addr("fd00::100")
	sack := TCPOptions{Timestamp: true, TSVal: 1, TSEcr: 2, NumSACK: 3, SACK: [4]SACKBlock{{1, 2}, {3, 4}, {5, 6}}}
	sackBytes := make([]byte, TCPMaxOptionsLen)
	sackBytes = sackBytes[:PutTCPOptions(sackBytes, &sack)]
	neighbor := NeighborFields{Target: src6, LinkAddress: MAC{2, 0, 0, 0, 0, 1}, Solicited: true}
	ra := RouterAdvertisementFields{Lifetime: time.Hour, MTU: 1500, LinkAddress: MAC{2}}

	return map[string]func(){
		"ParseTCP4": func() {
			_, packet, _ := ParseEthernet(data4)
			ip, segment, _ := ParseIPv4(packet)
			h, payload, _ := ParseTCP(segment)
			o := h.Options()
			sink += uint64(h.Seq()) + uint64(h.Flags()) + uint64(o.TSVal) + uint64(len(payload)) + uint64(ip.Source().BitLen())
		},
		"ParseTCP6": func() {
			_, packet, _ := ParseEthernet(data6)
			ip, rest, _ := ParseIPv6(packet)
			c, _ := WalkIPv6(ip, rest)
			h, _, _ := ParseTCP(rest[c.Offset:])
			sink += uint64(h.Seq()) + uint64(ip.Source().BitLen())
		},
		"ParseTCPOptionsTimestamp": func() { sink += uint64(TCP(data4[34:66]).Options().TSEcr) },
		"ParseTCPOptionsSACK":      func() { o := ParseTCPOptions(sackBytes); sink += uint64(o.NumSACK) },
		"PutTCP4": func() {
			n := PutEthernet(out, EthernetFields{Type: EtherTypeIPv4})
			n += PutIPv4(out[n:], IPv4Fields{TTL: 64, Protocol: ProtocolTCP, DontFragment: true, Source: src4, Destination: dst4, PayloadLen: 32 + 60000})
			n += PutTCP(out[n:], TCPFields{SourcePort: 1, DestinationPort: 2, Seq: seq.Value(sink), Flags: ACK, OptionsLen: 12})
			o := TCPOptions{Timestamp: true, TSVal: 1, TSEcr: 2}
			n += PutTCPOptions(out[n:], &o)
			TCP(out[34:n]).SetPartialChecksum(src4, dst4, 60000)
		},
		"PutTCP6": func() {
			n := PutEthernet(out, EthernetFields{Type: EtherTypeIPv6})
			n += PutIPv6(out[n:], IPv6Fields{HopLimit: 64, NextHeader: ProtocolTCP, Source: src6, Destination: dst6, PayloadLen: 20 + 60000})
			n += PutTCP(out[n:], TCPFields{SourcePort: 1, DestinationPort: 2, Flags: ACK})
			TCP(out[54:n]).SetPartialChecksum(src6, dst6, 60000)
		},
		"PutTCPOptionsSACK": func() { PutTCPOptions(out, &sack) },
		"PutUDP": func() {
			n := PutUDP(out, UDPFields{SourcePort: 1, DestinationPort: 2, PayloadLen: 100})
			UDP(out[:n]).SetChecksum(src4, dst4, out[n:n+100])
		},
		"WalkIPv6Extensions": func() {
			h, payload, _ := ParseIPv6(extended)
			c, ok := WalkIPv6(h, payload)
			if !ok {
				t.Error("chain refused")
			}
			sink += uint64(c.Offset)
		},
		"ParseQuoted": func() { q, _ := ParseQuotedIPv6(unreachable[62:]); sink += uint64(q.HeadLen) },
		"ParseFlow":   func() { f, _ := ParseFlow(data4); sink += uint64(f.Hash()) },
		"Neighbor": func() {
			h, options, _ := ParseNeighborSolicitation(solicitation[54:])
			m, _ := options.LinkAddress(NDPSourceLinkAddress)
			sink += uint64(m[5]) + uint64(h.Target().BitLen())
			PutNeighborAdvertisement(out, &neighbor, src6, dst6)
			PutRouterAdvertisement(out, &ra, src6, dst6)
			PutRouterSolicitation(out, MAC{2}, src6, dst6)
		},
		"EchoAndARP": func() {
			PutICMPv4(out, ICMPFields{Type: ICMPv4EchoReply}, data4)
			PutICMPv6(out, ICMPFields{Type: ICMPv6EchoReply}, src6, dst6, data4)
			PutARP(out, ARPFields{Op: ARPReply, SenderIP: src4, TargetIP: dst4})
			a, _ := ParseARP(out)
			f := a.Fields()
			sink += uint64(f.Op)
		},
		"Martian": func() {
			if IsMartianSource(src6) || IsMartianDestination(dst4) {
				t.Error("martian")
			}
		},
	}
}

func TestNothingAllocates(t *testing.T) {
	for name, f := range hotPaths(t) {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkHeaders(b *testing.B) {
	for name, f := range hotPaths(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
