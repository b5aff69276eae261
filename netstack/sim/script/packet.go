package script

import (
	"fmt"
	"net/netip"

	"sbxnet/netstack/header"
)

// packet is a frame taken apart: a TCP segment, or an ICMP error in words.
type packet struct {
	src, dst netip.AddrPort
	tcp      header.TCP
	payload  []byte
	icmp     string
}

// The ICMP errors that scripts can name, by family.
var (
	errors4 = map[string][2]uint8{
		"net-unreachable": {3, 0}, "host-unreachable": {3, 1}, "port-unreachable": {3, 3}, "frag-needed": {3, 4},
		"prohibited": {3, 13}, "source-quench": {4, 0}, "ttl-exceeded": {11, 0},
	}
	errors6 = map[string][2]uint8{
		"net-unreachable": {1, 0}, "host-unreachable": {1, 3}, "port-unreachable": {1, 4}, "frag-needed": {2, 0},
		"prohibited": {1, 1}, "ttl-exceeded": {3, 0},
	}
)

func errorName(names map[string][2]uint8, kind, code uint8) string {
	for name, k := range names {
		if k == [2]uint8{kind, code} {
			return name
		}
	}
	return fmt.Sprintf("%d/%d", kind, code)
}

func parsePacket(b []byte) (p packet, ok bool) {
	e, rest, ok := header.ParseEthernet(b)
	if !ok {
		return p, false
	}
	var src, dst netip.Addr
	var protocol uint8
	var payload []byte
	switch e.Type() {
	case header.EtherTypeIPv4:
		h, body, ok := header.ParseIPv4(rest)
		if !ok || !h.ChecksumValid() {
			return p, false
		}
		src, dst, protocol, payload = h.Source(), h.Destination(), h.Protocol(), body
	case header.EtherTypeIPv6:
		h, body, ok := header.ParseIPv6(rest)
		if !ok {
			return p, false
		}
		src, dst, protocol, payload = h.Source(), h.Destination(), h.NextHeader(), body
	default:
		return p, false
	}
	p.src, p.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	switch protocol {
	case header.ProtocolTCP:
		if p.tcp, p.payload, ok = header.ParseTCP(payload); !ok {
			return p, false
		}
		p.src = netip.AddrPortFrom(src, p.tcp.SourcePort())
		p.dst = netip.AddrPortFrom(dst, p.tcp.DestinationPort())
	case header.ProtocolICMP:
		m, _, ok := header.ParseICMPv4(payload)
		if !ok {
			return p, false
		}
		p.icmp = errorName(errors4, m.Type(), m.Code())
	case header.ProtocolICMPv6:
		m, _, ok := header.ParseICMPv6(payload)
		if !ok {
			return p, false
		}
		p.icmp = errorName(errors6, m.Type(), m.Code())
	}
	return p, true
}

// frameOf puts a transport payload into a frame from the peer to the stack.
func frameOf(src, dst netip.Addr, protocol uint8, payload []byte) []byte {
	if dst.Is4() {
		b := make([]byte, header.EthernetLen+header.IPv4MinLen, header.EthernetLen+header.IPv4MinLen+len(payload))
		header.PutEthernet(b, header.EthernetFields{Destination: stackMAC, Source: peerMAC, Type: header.EtherTypeIPv4})
		header.PutIPv4(b[header.EthernetLen:], header.IPv4Fields{Source: src, Destination: dst, Protocol: protocol, TTL: 64,
			DontFragment: true, PayloadLen: len(payload)})
		return append(b, payload...)
	}
	b := make([]byte, header.EthernetLen+header.IPv6Len, header.EthernetLen+header.IPv6Len+len(payload))
	header.PutEthernet(b, header.EthernetFields{Destination: stackMAC, Source: peerMAC, Type: header.EtherTypeIPv6})
	header.PutIPv6(b[header.EthernetLen:], header.IPv6Fields{Source: src, Destination: dst, NextHeader: protocol, HopLimit: 64,
		PayloadLen: len(payload)})
	return append(b, payload...)
}

// segmentFrame makes the frame of a segment that the peer sends.
func (m *machine) segmentFrame(f *flow, s segment) ([]byte, error) {
	options, err := putOptions(s.options, f.iss, f.tsVal)
	if err != nil {
		return nil, err
	}
	fields := header.TCPFields{
		SourcePort: f.peer.Port(), DestinationPort: f.local.Port(), Seq: m.peerISN.Add(uint32(s.seq)), Flags: s.flags,
		Window: 65535, OptionsLen: len(options),
	}
	if s.flags.Has(header.ACK) {
		fields.Ack = f.iss.Add(uint32(max(s.ack, 0)))
		if s.ack < -1 {
			fields.Ack = f.iss.Sub(uint32(-s.ack))
		}
	}
	if s.win >= 0 {
		fields.Window = uint16(s.win)
	}
	b := make([]byte, header.TCPMinLen, header.TCPMinLen+len(options)+s.end-s.seq)
	header.PutTCP(b, fields)
	b = append(b, options...)
	payload := pattern(s.seq-1, s.end-s.seq)
	header.TCP(b).SetChecksum(f.peer.Addr(), f.local.Addr(), payload)
	return frameOf(f.peer.Addr(), f.local.Addr(), header.ProtocolTCP, append(b, payload...)), nil
}

// icmpFrame makes an ICMP error about a segment that the stack sent, with the
// sequence number that is given.
func (m *machine) icmpFrame(f *flow, name string, mtu, quoted int) ([]byte, error) {
	names := errors4
	if !f.local.Addr().Is4() {
		names = errors6
	}
	k, ok := names[name]
	if !ok {
		return nil, fmt.Errorf("what is ICMP error %q?", name)
	}
	t := make([]byte, header.TCPMinLen)
	header.PutTCP(t, header.TCPFields{SourcePort: f.local.Port(), DestinationPort: f.peer.Port(), Seq: f.iss.Add(uint32(quoted))})
	quote := frameOf(f.local.Addr(), f.peer.Addr(), header.ProtocolTCP, t)[header.EthernetLen:]
	fields := header.ICMPFields{Type: k[0], Code: k[1], Rest: uint32(mtu)}
	b := make([]byte, header.ICMPLen)
	if f.local.Addr().Is4() {
		header.PutICMPv4(b, fields, quote)
		return frameOf(f.peer.Addr(), f.local.Addr(), header.ProtocolICMP, append(b, quote...)), nil
	}
	header.PutICMPv6(b, fields, f.peer.Addr(), f.local.Addr(), quote)
	return frameOf(f.peer.Addr(), f.local.Addr(), header.ProtocolICMPv6, append(b, quote...)), nil
}
