package netstack

import (
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// seeds are frames of every kind the stack knows, for fuzzing to start from.
func seeds() [][]byte {
	text := make([]byte, 200)
	v4, v6 := udp("10.0.2.100:1", "9.9.9.9:53", string(text)), udp("[fd00::100]:1", "[2001:db8::1]:53", string(text))
	packets := [][]byte{
		v4, v6, cut4(v4, 1, 0, 64), cut4(v4, 1, 64, 208), cut6(v6, 1, 0, 64), cut6(v6, 1, 64, 208),
		echo("10.0.2.100", "10.0.2.2", "hello"), echo("fd00::100", "fd00::2", "hello"), ttl(1, v4), ttl(1, v6),
		segment("10.0.2.100:1", "9.9.9.9:80", header.SYN), segment("[fd00::100]:1", "[fd00::2]:80", header.SYN),
		segment("127.0.0.1:80", "192.0.2.7:5000", header.SYN|header.ACK),
		icmp("10.0.2.100", "9.9.9.9", 3, 3, 0, udp("9.9.9.9:53", "10.0.2.100:1", "x")),
		icmp("fd00::100", "2001:db8::1", 2, 0, 1300, udp("[2001:db8::1]:53", "[fd00::100]:1", "x")),
		icmp("10.0.2.100", "192.0.2.7", 3, 4, 1200, segment("192.0.2.7:5000", "10.0.2.100:80", header.SYN)),
		insert(v6, header.ProtocolHopByHop, 0, 0, 5, 2, 0, 0, 1, 0), insert(v6, header.ProtocolRouting, 0, 0, 0, 0, 0, 0, 0, 0),
		reread(v4, func(f *header.IPv4Fields) { f.Options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }),
		arp(header.ARPRequest, "10.0.2.100", "10.0.2.2"), arp(header.ARPReply, "10.0.2.50", "10.0.2.2"),
		nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, ip("fd00::100"), ownGroup),
		nd(na, header.NeighborFields{Target: ip("fd00::50"), LinkAddress: sandboxMAC, Solicited: true}, ip("fd00::50"), ip("fd00::2")),
		solicitRouter("fe80::1", sandboxMAC), solicitRouter("::", header.MAC{}),
		probeFor("fd00::2", [header.NonceLen]byte{1, 2, 3, 4, 5, 6}), claimOf("fd00::3"),
	}
	var frames [][]byte
	for _, p := range packets {
		frames = append(frames, ethernet(sandboxMAC, stackMAC, p))
	}
	return frames
}

// FuzzInput gives a stack with every kind of flow open two frames, with offload
// metadata that is made up too, and time in between. Nothing may panic, what
// comes out must be well-formed, and nothing may grow.
func FuzzInput(f *testing.F) {
	all := seeds()
	for i, s := range all {
		f.Add(s, all[(i+1)%len(all)], uint16(i))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, bits uint16) {
		l := newLab(t, func(c *Config) { c.Neighbors, c.NoDuplicateDetection = c.Neighbors[:1], bits&1 != 0 })
		l.open = func(c *tcp.Conn) { c.Accept(&stream{send: []byte("hello")}) }
		if _, err := l.BindUDP(port("10.0.2.3:53"), func(d *Datagram) { l.SendUDP(d.Dst, d.Src, d.Payload, d.SegmentSize) }); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"10.0.2.100:80", "127.0.0.1:80"} {
			if _, err := l.TCP().Dial(port("192.0.2.7:5000"), port(to), &stream{}); err != nil {
				t.Fatal(err)
			}
			l.SendUDP(port("192.0.2.7:5000"), port(to), []byte("x"), 0)
		}
		l.SendUDP(port("10.0.2.3:53"), port("10.0.2.50:80"), []byte("x"), 0)
		l.SendUDP(port("[fd00::3]:53"), port("[fd00::50]:80"), []byte("x"), 0)
		l.Flush()
		for i, data := range [][]byte{first, second, first, second} {
			off := frame.Offload{NeedsChecksum: bits&1 != 0, ChecksumValid: bits&2 != 0, GSOType: frame.GSOType(bits >> 2 & 3),
				GSOSize: bits >> 4, ChecksumStart: bits, ChecksumOffset: bits >> 8}
			l.Input(data, off, l.at)
			l.Flush()
			checkOutput(t, l)
			l.pass(time.Duration(bits>>uint(i)) * time.Millisecond)
			checkOutput(t, l)
		}
	})
}

// checkOutput parses all that the stack sends.
func checkOutput(t *testing.T, l *lab) {
	t.Helper()
	for _, b := range l.out() {
		e, payload, ok := header.ParseEthernet(b)
		if !ok || e.Source() != stackMAC || !e.Destination().IsMulticast() && e.Destination().IsZero() {
			t.Fatalf("bad frame %x", b)
		}
		switch e.Type() {
		case header.EtherTypeIPv4:
			h, _, ok := header.ParseIPv4(payload)
			if !ok || !h.ChecksumValid() || h.TotalLen() != len(payload) {
				t.Fatalf("bad IPv4 packet %x", b)
			}
		case header.EtherTypeIPv6:
			h, rest, ok := header.ParseIPv6(payload)
			if !ok || len(rest) != h.PayloadLen() || len(payload) != header.IPv6Len+len(rest) {
				t.Fatalf("bad IPv6 packet %x", b)
			}
		case header.EtherTypeARP:
			if _, ok := header.ParseARP(payload); !ok {
				t.Fatalf("bad ARP message %x", b)
			}
		default:
			t.Fatalf("unknown EtherType %x", b)
		}
	}
}

// FuzzSameInputSameOutput holds the stack to its word that the same calls give
// the same frames.
func FuzzSameInputSameOutput(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, uint16(100))
	}
	f.Fuzz(func(t *testing.T, data []byte, ms uint16) {
		run := func() (s string) {
			l := newLab(t, func(c *Config) { c.Neighbors, c.NoDuplicateDetection = nil, false })
			l.open = func(c *tcp.Conn) { c.Accept(&stream{send: []byte("hello")}) }
			l.Input(data, frame.Offload{}, 0)
			l.Flush()
			l.pass(time.Duration(ms) * time.Millisecond)
			for _, b := range l.out() {
				s += string(b)
			}
			return s
		}
		if first, second := run(), run(); first != second {
			t.Fatal("two runs differ")
		}
	})
}
