package sim

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// tcpPacket is a TCP segment in its frame, taken apart.
type tcpPacket struct {
	src, dst netip.AddrPort
	tcp      header.TCP
	payload  []byte
	opt      header.TCPOptions
	ipLen    int
}

// length is SEG.LEN.
func (p *tcpPacket) length() uint32 {
	n := uint32(len(p.payload))
	if p.tcp.Flags().Has(header.SYN) {
		n++
	}
	if p.tcp.Flags().Has(header.FIN) {
		n++
	}
	return n
}

func (p *tcpPacket) checksumValid() bool {
	return p.tcp.ChecksumValid(p.src.Addr(), p.dst.Addr(), p.payload)
}

func (p *tcpPacket) end() seq.Value { return p.tcp.Seq().Add(p.length()) }

// addresses are the IP addresses of a frame that is known to carry IP.
func addresses(b []byte) (src, dst netip.Addr) {
	ip := b[header.EthernetLen:]
	if ip[0]>>4 == 4 {
		h := header.IPv4(ip[:header.IPv4MinLen])
		return h.Source(), h.Destination()
	}
	h := header.IPv6(ip)
	return h.Source(), h.Destination()
}

// splitIP returns the transport part of a frame that carries a whole IP packet
// without options or extension headers, which is all that the stack emits here.
func splitIP(b []byte) (src, dst netip.Addr, protocol uint8, payload []byte, ok bool) {
	e, packet, ok := header.ParseEthernet(b)
	if !ok {
		return
	}
	switch e.Type() {
	case header.EtherTypeIPv4:
		h, payload, ok := header.ParseIPv4(packet)
		if !ok || !h.ChecksumValid() || h.IsFragment() {
			return src, dst, 0, nil, false
		}
		return h.Source(), h.Destination(), h.Protocol(), payload, true
	case header.EtherTypeIPv6:
		h, payload, ok := header.ParseIPv6(packet)
		if !ok {
			return src, dst, 0, nil, false
		}
		return h.Source(), h.Destination(), h.NextHeader(), payload, true
	}
	return src, dst, 0, nil, false
}

// parseTCP takes a frame apart, and reports false if it carries no TCP.
func parseTCP(b []byte) (p tcpPacket, ok bool) {
	src, dst, protocol, payload, ok := splitIP(b)
	if !ok || protocol != header.ProtocolTCP {
		return p, false
	}
	p.tcp, p.payload, ok = header.ParseTCP(payload)
	if !ok {
		return p, false
	}
	p.src = netip.AddrPortFrom(src, p.tcp.SourcePort())
	p.dst = netip.AddrPortFrom(dst, p.tcp.DestinationPort())
	p.opt = p.tcp.Options()
	p.ipLen = len(b) - header.EthernetLen
	return p, true
}

// frameOf makes a frame of an IP payload, to a station.
func frameOf(to header.MAC, src, dst netip.Addr, protocol uint8, payload []byte) []byte {
	n := header.EthernetLen + header.IPv4MinLen
	kind := header.EtherTypeIPv4
	if !dst.Is4() {
		n, kind = header.EthernetLen+header.IPv6Len, header.EtherTypeIPv6
	}
	b := make([]byte, n, n+len(payload))
	header.PutEthernet(b, header.EthernetFields{Destination: to, Source: routerMAC, Type: kind})
	if dst.Is4() {
		header.PutIPv4(b[header.EthernetLen:], header.IPv4Fields{Source: src, Destination: dst, Protocol: protocol,
			TTL: 64, DontFragment: true, PayloadLen: len(payload)})
	} else {
		header.PutIPv6(b[header.EthernetLen:], header.IPv6Fields{Source: src, Destination: dst, NextHeader: protocol,
			HopLimit: 64, PayloadLen: len(payload)})
	}
	return append(b, payload...)
}

// icmpFrame makes an ICMP error about a packet that quote begins with. kind and
// code are of quote's family.
func icmpFrame(to header.MAC, dst netip.Addr, kind, code uint8, rest uint32, quote []byte) []byte {
	f := header.ICMPFields{Type: kind, Code: code, Rest: rest}
	quote = quote[:min(len(quote), 500)]
	m := make([]byte, header.ICMPLen, header.ICMPLen+len(quote))
	if dst.Is4() {
		header.PutICMPv4(m, f, quote)
		return frameOf(to, router4, dst, header.ProtocolICMP, append(m, quote...))
	}
	header.PutICMPv6(m, f, router6, dst, quote)
	return frameOf(to, router6, dst, header.ProtocolICMPv6, append(m, quote...))
}

// tooBig is a router's answer to a frame that is too big for it.
func tooBig(to header.MAC, packet []byte, mtu int) []byte {
	src, _ := addresses(packet)
	quote := packet[header.EthernetLen:]
	if src.Is4() {
		return icmpFrame(to, src, header.ICMPv4Unreachable, header.ICMPv4FragmentationNeeded, uint32(mtu), quote)
	}
	return icmpFrame(to, src, header.ICMPv6PacketTooBig, 0, uint32(mtu), quote)
}

// stripOptions overwrites TCP options of the given kinds with no-operations, as
// middleboxes do, and mends the checksum if it was complete.
func stripOptions(p *tcpPacket, kinds []byte) {
	b := p.tcp.OptionBytes()
	for i := 0; i < len(b) && b[i] != header.TCPOptionEnd; {
		n := 1
		if b[i] != header.TCPOptionNop {
			if i+1 >= len(b) || b[i+1] < 2 || i+int(b[i+1]) > len(b) {
				return
			}
			n = int(b[i+1])
		}
		for _, k := range kinds {
			if b[i] == k && k != header.TCPOptionNop {
				for j := range b[i : i+n] {
					b[i+j] = header.TCPOptionNop
				}
				break
			}
		}
		i += n
	}
	p.opt = p.tcp.Options()
	p.tcp.SetChecksum(p.src.Addr(), p.dst.Addr(), p.payload)
}
