package spec

import (
	"net/netip"
	"strconv"
	"strings"
)

// Protocol is the transport that a spec publishes.
type Protocol string

// The protocols that can be published.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Spec is one published port, or one range of them: the host's ports HostPort,
// HostPort+1, … lead to the sandbox's Port, Port+1, …, Count of them.
type Spec struct {
	Protocol Protocol
	// HostIP is the host address to listen on. The zero Addr means the host's
	// loopback, 127.0.0.1 and ::1.
	HostIP netip.Addr
	// HostPort is the first port on the host, 0 for one that is free.
	HostPort uint16
	// Port is the first port in the sandbox.
	Port uint16
	// Count is the number of ports, at least 1.
	Count int
	// Child is the address in the sandbox that the ports lead to. The zero Addr
	// means every place where a server may be: the sandbox's addresses and
	// 127.0.0.1. -p has no way to write it.
	Child netip.Addr
	// Interface is the host's network interface that clients must come in by;
	// empty: any. -p has no way to write it.
	Interface string
	// Freebind listens on HostIP whether the host has that address now or not
	// (ip(7), IP_FREEBIND). -p has no way to write it.
	Freebind bool
}

var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// Addresses returns the host addresses that the spec names: HostIP, or both
// loopback addresses, IPv4 first.
func (s Spec) Addresses() []netip.Addr {
	if s.HostIP.IsValid() {
		return []netip.Addr{s.HostIP}
	}
	return loopback
}

// String is the spec as -p takes it, in its shortest form; [Parse] of it gives
// the same spec, but for Child, Interface and Freebind.
func (s Spec) String() string {
	var b strings.Builder
	if s.HostIP.IsValid() {
		b.WriteString(bracketed(s.HostIP))
		b.WriteByte(':')
	}
	if s.HostPort != 0 {
		b.WriteString(portRange(s.HostPort, s.Count))
		b.WriteByte(':')
	}
	b.WriteString(portRange(s.Port, s.Count))
	if s.Protocol != TCP {
		b.WriteByte('/')
		b.WriteString(string(s.Protocol))
	}
	return b.String()
}

// bracketed is an address as it stands before a colon and a port.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

func portRange(first uint16, count int) string {
	s := strconv.Itoa(int(first))
	if count > 1 {
		s += "-" + strconv.Itoa(int(first)+count-1)
	}
	return s
}
