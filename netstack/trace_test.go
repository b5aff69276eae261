package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// The tests of this package read as packet traces: frames that the sandbox
// sends go in, and what comes out is compared as text, one line a packet:
//
//	9.9.9.9:53 > 10.0.2.100:4000 udp 3
//
// with whatever is out of the ordinary in brackets behind it. Every checksum
// is verified on the way to text.

var (
	stackMAC   = header.MAC{2, 0, 0, 0, 0, 2}
	sandboxMAC = header.MAC{2, 0, 0, 0, 1, 0}
)

// lab is a stack with a script for a sandbox.
type lab struct {
	*testing.T
	*Stack
	batch frame.Batch
	seen  []string // what the handler was told
	open  func(*tcp.Conn)
	at    timer.Instant
}

func (l *lab) OpenTCP(c *tcp.Conn) {
	l.seen = append(l.seen, fmt.Sprintf("open %v > %v", c.RemoteAddr(), c.LocalAddr()))
	if l.open != nil {
		l.open(c)
	}
}

func (l *lab) Datagram(d *Datagram) {
	s := fmt.Sprintf("udp %v > %v %d", d.Src, d.Dst, len(d.Payload))
	if d.SegmentSize != 0 {
		s += fmt.Sprintf(" by %d", d.SegmentSize)
	}
	if d.TOS != 0 {
		s += fmt.Sprintf(" tos %d", d.TOS)
	}
	l.seen = append(l.seen, s)
}

func (l *lab) Echo(e *Echo) {
	l.seen = append(l.seen, fmt.Sprintf("echo %v > %v id %d seq %d %q ttl %d", e.Src, e.Dst, e.ID, e.Seq, e.Payload, e.TTL))
}

func (l *lab) Unreachable(u *Unreachable) {
	l.seen = append(l.seen, fmt.Sprintf("unreachable %v > %v reason %d mtu %d", u.Src, u.Dst, u.Reason, u.MTU))
}

// labConfig is the default sandbox's network, with the neighbours known.
func labConfig() Config {
	return Config{
		HardwareAddr: stackMAC,
		Addresses: []netip.Prefix{
			netip.MustParsePrefix("10.0.2.2/24"), netip.MustParsePrefix("10.0.2.3/24"),
			netip.MustParsePrefix("fd00::2/64"), netip.MustParsePrefix("fd00::3/64"),
		},
		NextHop4: ip("10.0.2.100"), NextHop6: ip("fd00::100"),
		Neighbors: []Neighbor{{ip("10.0.2.100"), sandboxMAC}, {ip("fd00::100"), sandboxMAC}},
		MTU:       1500,
		Caps:      frame.Capabilities{TSO4: true, TSO6: true, USO: true, MaxFrame: 65535 + header.EthernetLen},
		Seed:      [32]byte{1},

		NoDuplicateDetection: true, // most traces begin with something else
	}
}

// newLab starts a stack; change may alter its configuration.
func newLab(t *testing.T, change func(*Config)) *lab {
	t.Helper()
	l := &lab{T: t}
	c := labConfig()
	c.Output, c.Handler = &l.batch, l
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l.Stack = s
	return l
}

// in has the sandbox send IP packets to the stack.
func (l *lab) in(packets ...[]byte) {
	for _, p := range packets {
		l.Input(ethernet(sandboxMAC, stackMAC, p), frame.Offload{}, l.at)
	}
}

// pass lets time go by.
func (l *lab) pass(d time.Duration) {
	for end := l.at.Add(d); l.at < end; {
		l.at = min(end, max(l.NextDeadline(), l.at+1))
		l.Tick(l.at)
	}
}

// out takes the frames that the stack has sent.
func (l *lab) out() [][]byte {
	l.Helper()
	var all [][]byte
	for i := range l.batch.Frames() {
		all = append(all, finish(l.T, &l.batch.Frames()[i]))
	}
	l.batch.Reset()
	l.Reclaim()
	return all
}

// expect compares what the stack has sent, a line a packet.
func (l *lab) expect(want ...string) {
	l.Helper()
	var got []string
	for _, f := range l.out() {
		got = append(got, describe(f))
	}
	compare(l.T, "sent", got, want)
}

// told compares what the handler has been told.
func (l *lab) told(want ...string) {
	l.Helper()
	compare(l.T, "handler", l.seen, want)
	l.seen = nil
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	g, w := strings.Join(got, "\n\t"), strings.Join(want, "\n\t")
	if g != w {
		t.Fatalf("%s:\n\t%s\nwant:\n\t%s", what, g, w)
	}
}

// finish does a link's work: it checks the offload metadata and completes the
// checksum. A super-segment stays whole.
func finish(t *testing.T, f *frame.Frame) []byte {
	t.Helper()
	b := f.AppendTo(nil)
	if int(f.HeaderLen) > len(b) || int(f.HeaderLen) < len(f.Header) {
		t.Fatalf("header length %d of a frame with %d bytes of header in %d", f.HeaderLen, len(f.Header), len(b))
	}
	if !f.NeedsChecksum {
		return b
	}
	start, field := int(f.ChecksumStart), int(f.ChecksumStart)+int(f.ChecksumOffset)
	if field+2 > len(b) {
		t.Fatalf("checksum field at %d of %d bytes", field, len(b))
	}
	c := checksum.Of(b[start:])
	if c == 0 && f.ChecksumOffset == header.UDPChecksumOffset {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[field:], c)
	return b
}

// describe puts a frame in words.
func describe(b []byte) string {
	e, payload, ok := header.ParseEthernet(b)
	if !ok {
		return "runt"
	}
	s := ""
	switch e.Type() {
	case header.EtherTypeARP:
		s = describeARP(payload)
	case header.EtherTypeIPv4:
		s = describeIPv4(payload)
	case header.EtherTypeIPv6:
		s = describeIPv6(payload)
	}
	if e.Source() != stackMAC {
		s += fmt.Sprintf(" [from %v]", e.Source())
	}
	if e.Destination() != sandboxMAC {
		s += fmt.Sprintf(" [to %v]", e.Destination())
	}
	return s
}

func describeARP(b []byte) string {
	h, ok := header.ParseARP(b)
	switch {
	case !ok:
		return "bad arp"
	case h.Op() == header.ARPRequest:
		return fmt.Sprintf("arp who has %v tell %v", h.TargetIP(), h.SenderIP())
	}
	return fmt.Sprintf("arp %v is at %v tells %v", h.SenderIP(), h.SenderMAC(), h.TargetIP())
}

func describeIPv4(b []byte) string {
	h, payload, ok := header.ParseIPv4(b)
	if !ok {
		return "bad ipv4"
	}
	note := ""
	if !h.ChecksumValid() {
		note += " [ip checksum]"
	}
	if h.TTL() != 64 {
		note += fmt.Sprintf(" [ttl %d]", h.TTL())
	}
	if h.DontFragment() != (h.ID() == 0) {
		note += fmt.Sprintf(" [df %v id %d]", h.DontFragment(), h.ID())
	}
	if h.IsFragment() {
		return fmt.Sprintf("%v > %v fragment %d+%d more %v%s", h.Source(), h.Destination(), h.FragmentOffset(),
			len(payload), h.MoreFragments(), note)
	}
	return describeTransport(h.Source(), h.Destination(), h.Protocol(), payload) + note
}

func describeIPv6(b []byte) string {
	h, payload, ok := header.ParseIPv6(b)
	if !ok {
		return "bad ipv6"
	}
	c, ok := header.WalkIPv6(h, payload)
	if !ok {
		return "bad ipv6 extension headers"
	}
	if c.Fragment != nil {
		return fmt.Sprintf("%v > %v fragment %d+%d more %v", h.Source(), h.Destination(), c.Fragment.Offset(),
			len(payload)-c.FragmentOffset-8, c.Fragment.MoreFragments())
	}
	s := describeTransport(h.Source(), h.Destination(), c.Protocol, payload[c.Offset:])
	if h.HopLimit() != 64 {
		s += fmt.Sprintf(" [ttl %d]", h.HopLimit())
	}
	return s
}

func describeTransport(src, dst netip.Addr, protocol uint8, b []byte) string {
	switch protocol {
	case header.ProtocolUDP:
		return describeUDP(src, dst, b, true)
	case header.ProtocolTCP:
		h, payload, ok := header.ParseTCP(b)
		if !ok || !h.ChecksumValid(src, dst, payload) {
			return "bad tcp"
		}
		return fmt.Sprintf("%v > %v tcp %v %d", netip.AddrPortFrom(src, h.SourcePort()),
			netip.AddrPortFrom(dst, h.DestinationPort()), h.Flags(), len(payload))
	case header.ProtocolICMP:
		m, body, ok := header.ParseICMPv4(b)
		if !ok || !m.ChecksumValid() {
			return "bad icmp"
		}
		return fmt.Sprintf("%v > %v ", src, dst) + describeICMPv4(m, body)
	case header.ProtocolICMPv6:
		m, body, ok := header.ParseICMPv6(b)
		if !ok || !m.ChecksumValid(src, dst) {
			return "bad icmpv6"
		}
		return fmt.Sprintf("%v > %v ", src, dst) + describeICMPv6(m, body)
	}
	return fmt.Sprintf("%v > %v protocol %d", src, dst, protocol)
}

func describeUDP(src, dst netip.Addr, b []byte, whole bool) string {
	h, payload, ok := header.ParseUDP(b)
	if whole && (!ok || !h.ChecksumValid(src, dst, payload)) {
		return "bad udp"
	}
	h = header.UDP(b)
	return fmt.Sprintf("%v > %v udp %d", netip.AddrPortFrom(src, h.SourcePort()),
		netip.AddrPortFrom(dst, h.DestinationPort()), h.Len()-header.UDPLen)
}

func describeICMPv4(m header.ICMPv4, body []byte) string {
	if m.Type() == header.ICMPv4EchoReply {
		return fmt.Sprintf("echo reply id %d seq %d %q", m.EchoID(), m.EchoSeq(), body)
	}
	q, ok := header.ParseQuotedIPv4(body)
	if !ok {
		return fmt.Sprintf("icmp %d/%d", m.Type(), m.Code())
	}
	return fmt.Sprintf("icmp %d/%d rest %d about %v > %v protocol %d", m.Type(), m.Code(), m.Rest(),
		q.Source, q.Destination, q.Protocol)
}

func describeICMPv6(m header.ICMPv6, body []byte) string {
	switch m.Type() {
	case header.ICMPv6EchoReply:
		return fmt.Sprintf("echo reply id %d seq %d %q", m.EchoID(), m.EchoSeq(), body)
	case header.ICMPv6NeighborAdvertisement:
		h, options, ok := header.ParseNeighborAdvertisement(m)
		mac, has := options.LinkAddress(header.NDPTargetLinkAddress)
		return fmt.Sprintf("na %v at %v router %v solicited %v override %v valid %v", h.Target(), mac, h.Router(),
			h.Solicited(), h.Override(), ok && has)
	case header.ICMPv6NeighborSolicitation:
		h, options, ok := header.ParseNeighborSolicitation(m)
		if _, probe := options.Nonce(); probe {
			return fmt.Sprintf("ns %v with a nonce", h.Target())
		}
		mac, has := options.LinkAddress(header.NDPSourceLinkAddress)
		return fmt.Sprintf("ns %v by %v valid %v", h.Target(), mac, ok && has)
	case header.ICMPv6RouterAdvertisement:
		return "ra"
	}
	q, ok := header.ParseQuotedIPv6(body)
	if !ok {
		return fmt.Sprintf("icmp %d/%d rest %d", m.Type(), m.Code(), m.Rest())
	}
	return fmt.Sprintf("icmp %d/%d rest %d about %v > %v protocol %d", m.Type(), m.Code(), m.Rest(),
		q.Source, q.Destination, q.Protocol)
}

func ip(s string) netip.Addr       { return netip.MustParseAddr(s) }
func port(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// ethernet makes a frame of an IP packet, or of an ARP message.
func ethernet(from, to header.MAC, packet []byte) []byte {
	kind := header.EtherTypeARP
	if len(packet) > 0 && packet[0]>>4 == 4 {
		kind = header.EtherTypeIPv4
	} else if len(packet) > 0 && packet[0]>>4 == 6 {
		kind = header.EtherTypeIPv6
	}
	b := make([]byte, header.EthernetLen, header.EthernetLen+len(packet))
	header.PutEthernet(b, header.EthernetFields{Destination: to, Source: from, Type: kind})
	return append(b, packet...)
}

// packetOf makes an IP packet with TTL 64.
func packetOf(src, dst netip.Addr, protocol uint8, payload []byte) []byte {
	b := make([]byte, ipLen(dst), ipLen(dst)+len(payload))
	if dst.Is4() {
		header.PutIPv4(b, header.IPv4Fields{Source: src, Destination: dst, Protocol: protocol, TTL: 64,
			DontFragment: true, PayloadLen: len(payload)})
	} else {
		header.PutIPv6(b, header.IPv6Fields{Source: src, Destination: dst, NextHeader: protocol, HopLimit: 64,
			PayloadLen: len(payload)})
	}
	return append(b, payload...)
}

// udp makes a UDP datagram in an IP packet.
func udp(src, dst string, payload string) []byte {
	from, to := port(src), port(dst)
	b := make([]byte, header.UDPLen)
	header.PutUDP(b, header.UDPFields{SourcePort: from.Port(), DestinationPort: to.Port(), PayloadLen: len(payload)})
	header.UDP(b).SetChecksum(from.Addr(), to.Addr(), []byte(payload))
	return packetOf(from.Addr(), to.Addr(), header.ProtocolUDP, append(b, payload...))
}

// segment makes a TCP segment without payload in an IP packet.
func segment(src, dst string, flags header.TCPFlags) []byte {
	from, to := port(src), port(dst)
	b := make([]byte, header.TCPMinLen)
	header.PutTCP(b, header.TCPFields{SourcePort: from.Port(), DestinationPort: to.Port(), Seq: 1000, Flags: flags, Window: 65535})
	header.TCP(b).SetChecksum(from.Addr(), to.Addr(), nil)
	return packetOf(from.Addr(), to.Addr(), header.ProtocolTCP, b)
}

// icmp makes an ICMP or ICMPv6 message in an IP packet.
func icmp(src, dst string, kind, code uint8, rest uint32, body []byte) []byte {
	from, to := ip(src), ip(dst)
	b := make([]byte, header.ICMPLen)
	f := header.ICMPFields{Type: kind, Code: code, Rest: rest}
	if to.Is4() {
		header.PutICMPv4(b, f, body)
		return packetOf(from, to, header.ProtocolICMP, append(b, body...))
	}
	header.PutICMPv6(b, f, from, to, body)
	return packetOf(from, to, header.ProtocolICMPv6, append(b, body...))
}

// echo makes an echo request with identifier 7 and sequence number 1.
func echo(src, dst string, payload string) []byte {
	kind := uint8(header.ICMPv6EchoRequest)
	if ip(dst).Is4() {
		kind = header.ICMPv4EchoRequest
	}
	return icmp(src, dst, kind, 0, header.EchoRest(7, 1), []byte(payload))
}

// ttl changes a packet's TTL or hop limit.
func ttl(n uint8, packet []byte) []byte {
	b := bytes.Clone(packet)
	if b[0]>>4 == 4 {
		header.IPv4(b[:20]).SetTTL(n)
	} else {
		header.IPv6(b).SetHopLimit(n)
	}
	return b
}

// reread changes an IPv4 packet's fields and mends its header checksum.
func reread(packet []byte, change func(f *header.IPv4Fields)) []byte {
	h, payload, ok := header.ParseIPv4(packet)
	if !ok {
		panic("not an IPv4 packet")
	}
	f := h.Fields()
	change(&f)
	f.PayloadLen = len(payload)
	b := make([]byte, f.HeaderLen(), f.HeaderLen()+len(payload))
	header.PutIPv4(b, f)
	return append(b, payload...)
}

// insert puts an extension header of the given kind behind the fixed header of
// an IPv6 packet. Its first byte is filled in.
func insert(packet []byte, kind uint8, extension ...byte) []byte {
	b := append(bytes.Clone(packet[:40]), extension...)
	b[40] = b[6]
	b[6] = kind
	b = append(b, packet[40:]...)
	header.IPv6(b).SetPayloadLen(len(b) - 40)
	return b
}
