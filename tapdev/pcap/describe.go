package pcap

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sbxnet/netstack/frame"
)

// Describe says in one line, much as tcpdump does, what a frame is. head is its
// beginning, from the Ethernet header on; length is that of the whole frame in
// bytes. It may be given anything: what is cut short or makes no sense is called
// so.
func Describe(head []byte, length int, o frame.Offload) string {
	if len(head) < 14 {
		return fmt.Sprintf("[truncated Ethernet, length %d]", length)
	}
	var s string
	switch b := head[14:]; binary.BigEndian.Uint16(head[12:]) {
	case 0x0800:
		s = describeIPv4(b)
	case 0x86dd:
		s = describeIPv6(b)
	case 0x0806:
		s = describeARP(b)
	default:
		s = fmt.Sprintf("%s > %s, ethertype 0x%04x", net.HardwareAddr(head[6:12]), net.HardwareAddr(head[:6]), binary.BigEndian.Uint16(head[12:]))
	}
	s += fmt.Sprintf(", frame %d", length)
	if o.GSOType != frame.GSONone {
		segments := 0
		if payload := length - int(o.HeaderLen); o.GSOSize > 0 && payload > 0 {
			segments = (payload + int(o.GSOSize) - 1) / int(o.GSOSize)
		}
		s += fmt.Sprintf(" (%d segments of %d)", segments, o.GSOSize)
	}
	return s
}

func describeARP(b []byte) string {
	if len(b) < 28 {
		return "ARP [truncated]"
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	switch op := binary.BigEndian.Uint16(b[6:]); op {
	case 1:
		return fmt.Sprintf("ARP who-has %s tell %s", target, sender)
	case 2:
		return fmt.Sprintf("ARP %s is-at %s", sender, net.HardwareAddr(b[8:14]))
	default:
		return fmt.Sprintf("ARP operation %d", op)
	}
}

func describeIPv4(b []byte) string {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 || len(b) < int(b[0]&15)*4 {
		return "IP [bad header]"
	}
	header := int(b[0]&15) * 4
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	payload := int(binary.BigEndian.Uint16(b[2:])) - header
	if offset := int(binary.BigEndian.Uint16(b[6:])&0x1fff) * 8; offset > 0 {
		return fmt.Sprintf("IP %s > %s: fragment at %d of ID %d, protocol %d", src, dst, offset, binary.BigEndian.Uint16(b[4:]), b[9])
	}
	s := "IP " + describeTransport(b[9], src, dst, b[header:], payload)
	if b[6]&0x20 != 0 {
		s += ", first fragment"
	}
	return s
}

func describeIPv6(b []byte) string {
	if len(b) < 40 || b[0]>>4 != 6 {
		return "IP6 [bad header]"
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, payload, rest := b[6], int(binary.BigEndian.Uint16(b[4:])), b[40:]
	for next == 0 || next == 43 || next == 60 { // options and routing headers
		if len(rest) < 8 || len(rest) < int(rest[1])*8+8 {
			return fmt.Sprintf("IP6 %s > %s: [truncated extension header]", src, dst)
		}
		n := int(rest[1])*8 + 8
		next, rest, payload = rest[0], rest[n:], payload-n
	}
	return "IP6 " + describeTransport(next, src, dst, rest, payload)
}

// describeTransport describes n bytes of transport header and payload, of which
// b is the beginning.
func describeTransport(proto byte, src, dst netip.Addr, b []byte, n int) string {
	switch {
	case proto == 6 && len(b) >= 20:
		return describeTCP(src, dst, b, n)
	case proto == 17 && len(b) >= 8:
		s := fmt.Sprintf("%s > %s: UDP", endpoint(src, b), endpoint(dst, b[2:]))
		if name := dnsName(b); name != "" {
			s += " DNS " + name
		}
		return fmt.Sprintf("%s, length %d", s, n-8)
	case proto == 1 && len(b) >= 4, proto == 58 && len(b) >= 4:
		return fmt.Sprintf("%s > %s: %s, length %d", src, dst, describeICMP(proto, b), n)
	}
	return fmt.Sprintf("%s > %s: protocol %d, length %d", src, dst, proto, n)
}

func endpoint(a netip.Addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

func describeTCP(src, dst netip.Addr, b []byte, n int) string {
	var flags strings.Builder
	for i, c := range "FSRP.UEW" {
		if b[13]&(1<<i) != 0 {
			flags.WriteRune(c)
		}
	}
	header := int(b[12]>>4) * 4
	s := fmt.Sprintf("%s > %s: Flags [%s], seq %d", endpoint(src, b), endpoint(dst, b[2:]), flags.String(), binary.BigEndian.Uint32(b[4:]))
	if b[13]&0x10 != 0 {
		s += fmt.Sprintf(", ack %d", binary.BigEndian.Uint32(b[8:]))
	}
	return s + fmt.Sprintf(", win %d, length %d", binary.BigEndian.Uint16(b[14:]), n-header)
}

// describeICMP names the messages that a sandbox's link commonly carries.
func describeICMP(proto byte, b []byte) string {
	names := map[byte]string{0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded", 12: "parameter problem"}
	family := "ICMP"
	if proto == 58 {
		family = "ICMP6"
		names = map[byte]string{
			1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request",
			129: "echo reply", 130: "multicast listener query", 133: "router solicitation", 134: "router advertisement",
			135: "neighbor solicitation", 136: "neighbor advertisement", 143: "multicast listener report",
		}
	}
	s := names[b[0]]
	if s == "" {
		s = fmt.Sprintf("type %d", b[0])
	}
	if b[1] != 0 {
		s += fmt.Sprintf(" code %d", b[1])
	}
	if strings.HasPrefix(s, "echo") && len(b) >= 8 {
		s += fmt.Sprintf(" id %d seq %d", binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]))
	}
	return family + " " + s
}

// dnsName is the name that the first question of a DNS message asks for, "" if
// b, which starts at the UDP header, is no DNS message or too short.
func dnsName(b []byte) string {
	if binary.BigEndian.Uint16(b) != 53 && binary.BigEndian.Uint16(b[2:]) != 53 || len(b) < 8+12+1 {
		return ""
	}
	var name strings.Builder
	for b = b[8+12:]; len(b) > 0 && b[0] != 0; b = b[1+int(b[0]):] {
		if int(b[0]) > 63 || len(b) < 1+int(b[0]) {
			return ""
		}
		for _, c := range b[1 : 1+int(b[0])] {
			if c <= ' ' || c > '~' {
				c = '?' // a name must not break the line
			}
			name.WriteByte(c)
		}
		name.WriteByte('.')
	}
	return name.String()
}
