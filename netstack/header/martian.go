package header

import "net/netip"

// IsMartianSource reports whether no packet from the link can rightly have a
// as its source: an unspecified, loopback, multicast, broadcast or reserved
// address, or an IPv6 address that holds an IPv4 one (RFC 1812 §5.3.7, RFC
// 4291 §2.5).
//
// Two rightful exceptions are for the caller to let through first: 0.0.0.0 on
// a DHCP request, and :: on duplicate address detection, router solicitation
// and multicast listener reports. Whether a is one of the stack's own
// addresses, or a subnet's directed broadcast, only the caller knows.
func IsMartianSource(a netip.Addr) bool {
	return IsMartianDestination(a) || a.IsMulticast()
}

// IsMartianDestination reports whether a must not be a destination beyond the
// link. These are the addresses that reach the host itself, or nothing at all,
// when they are given to a host socket:
//
//   - IPv4: 0.0.0.0/8 (0.0.0.0 means the host's loopback to Linux), 127.0.0.0/8,
//     240.0.0.0/4 with 255.255.255.255.
//   - IPv6: ::/96, which holds ::, ::1 and IPv4-compatible addresses, and
//     ::ffff:0:0/96, the IPv4-mapped ones, to which Linux makes an IPv4
//     connection, to 127.0.0.1 too.
//
// The zero Addr is martian. Multicast is not, and is asked of a.IsMulticast;
// nor are link-local addresses, see [IsLinkLocal]. 255.255.255.255 is where a
// DHCP request rightly goes: the caller lets that through first.
func IsMartianDestination(a netip.Addr) bool {
	if a.Is4() {
		first := a.As4()[0]
		return first == 0 || first == 127 || first >= 240
	}
	if !a.IsValid() {
		return true
	}
	b := a.As16()
	if [10]byte(b[:10]) != [10]byte{} {
		return false
	}
	return b[10] == 0 && b[11] == 0 || b[10] == 0xff && b[11] == 0xff
}

// IsLinkLocal reports whether a is good on one link only: fe80::/10 or
// 169.254.0.0/16. On the sandbox's link that is an address there; given to a
// host socket it would mean a link of the host, such as a cloud's metadata
// service at 169.254.169.254.
func IsLinkLocal(a netip.Addr) bool { return a.IsLinkLocalUnicast() }
