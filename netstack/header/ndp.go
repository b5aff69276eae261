package header

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// NDPHopLimit is the hop limit of every neighbour discovery message: one that
// arrives with less came through a router and is dropped (RFC 4861 §3.1). The
// caller checks it; the parsers here see no IP header.
const NDPHopLimit = 255

// Lengths of neighbour discovery messages before their options, in bytes, the
// 8 that all ICMPv6 messages share included.
const (
	routerSolicitLen   = 8
	routerAdvertLen    = 16
	neighborSolicitLen = 24
	neighborAdvertLen  = 24
	redirectLen        = 40
	linkAddressLen     = 8  // source or target link-layer address option
	prefixOptionLen    = 32 // RFC 4861 §4.6.2
	mtuOptionLen       = 8
	nonceOptionLen     = 8 // with the shortest nonce
	rdnssFixedLen      = 8
	rdnssAddressLen    = 16
	neighborSolicited  = 1 << 30 // flags in Rest, RFC 4861 §4.4
	neighborRouter     = 1 << 31
	neighborOverride   = 1 << 29
)

// parseNDP checks what all neighbour discovery messages must satisfy besides
// their addresses and hop limit: type, code 0, length, and that the options
// fill the message exactly, none of length zero (RFC 4861 §6.1, §7.1).
func parseNDP(m ICMPv6, kind uint8, n int) (NDPOptions, bool) {
	if len(m) < n || m.Type() != kind || m.Code() != 0 {
		return NDPOptions{}, false
	}
	options := NDPOptions{m[n:]}
	for check := options; ; {
		if len(check.rest) == 0 {
			return options, true
		}
		if _, _, ok := check.Next(); !ok {
			return NDPOptions{}, false
		}
	}
}

// ParseRouterSolicitation checks a router solicitation (RFC 4861 §4.1), which
// has nothing but options.
func ParseRouterSolicitation(m ICMPv6) (options NDPOptions, ok bool) {
	return parseNDP(m, ICMPv6RouterSolicitation, routerSolicitLen)
}

// NeighborSolicitation is a view of a neighbour solicitation (RFC 4861 §4.3).
type NeighborSolicitation []byte

// ParseNeighborSolicitation reports false for a multicast target too.
func ParseNeighborSolicitation(m ICMPv6) (h NeighborSolicitation, options NDPOptions, ok bool) {
	options, ok = parseNDP(m, ICMPv6NeighborSolicitation, neighborSolicitLen)
	if !ok || m[8] == 0xff {
		return nil, NDPOptions{}, false
	}
	return NeighborSolicitation(m[:neighborSolicitLen]), options, true
}

// Target is the address whose owner is sought.
func (h NeighborSolicitation) Target() netip.Addr { return netip.AddrFrom16([16]byte(h[8:24])) }

// NeighborAdvertisement is a view of a neighbour advertisement (RFC 4861 §4.4).
type NeighborAdvertisement []byte

// ParseNeighborAdvertisement reports false for a multicast target too.
func ParseNeighborAdvertisement(m ICMPv6) (h NeighborAdvertisement, options NDPOptions, ok bool) {
	options, ok = parseNDP(m, ICMPv6NeighborAdvertisement, neighborAdvertLen)
	if !ok || m[8] == 0xff {
		return nil, NDPOptions{}, false
	}
	return NeighborAdvertisement(m[:neighborAdvertLen]), options, true
}

// Router reports whether the sender is a router.
func (h NeighborAdvertisement) Router() bool { return ICMPv6(h).Rest()&neighborRouter != 0 }

// Solicited reports whether this answers a solicitation.
func (h NeighborAdvertisement) Solicited() bool { return ICMPv6(h).Rest()&neighborSolicited != 0 }

// Override reports whether the address given should replace a cached one.
func (h NeighborAdvertisement) Override() bool { return ICMPv6(h).Rest()&neighborOverride != 0 }

// Target is the address that the sender has.
func (h NeighborAdvertisement) Target() netip.Addr { return netip.AddrFrom16([16]byte(h[8:24])) }

// Redirect is a view of a redirect (RFC 4861 §4.5), which the stack ignores.
type Redirect []byte

// ParseRedirect splits a redirect.
func ParseRedirect(m ICMPv6) (h Redirect, options NDPOptions, ok bool) {
	options, ok = parseNDP(m, ICMPv6Redirect, redirectLen)
	if !ok {
		return nil, NDPOptions{}, false
	}
	return Redirect(m[:redirectLen]), options, true
}

// Target is the better first hop.
func (h Redirect) Target() netip.Addr { return netip.AddrFrom16([16]byte(h[8:24])) }

// Destination is the address to be reached by way of Target.
func (h Redirect) Destination() netip.Addr { return netip.AddrFrom16([16]byte(h[24:40])) }

// NeighborFields is what [PutNeighborSolicitation] and
// [PutNeighborAdvertisement] write.
type NeighborFields struct {
	Target                      netip.Addr
	LinkAddress                 MAC            // source's in a solicitation, target's in an advertisement; zero leaves it out
	Nonce                       [NonceLen]byte // solicitations that probe for duplicates (RFC 7527); zero leaves it out
	Router, Solicited, Override bool           // advertisements only
}

// Len is the length of the message, in bytes.
func (f *NeighborFields) Len() int {
	n := neighborSolicitLen
	if !f.LinkAddress.IsZero() {
		n += linkAddressLen
	}
	if f.Nonce != [NonceLen]byte{} {
		n += nonceOptionLen
	}
	return n
}

// PutNeighborSolicitation writes a whole message with its checksum to the
// front of b and returns its length, [NeighborFields.Len].
func PutNeighborSolicitation(b []byte, f *NeighborFields, src, dst netip.Addr) int {
	return putNeighbor(b[:f.Len()], f, ICMPFields{Type: ICMPv6NeighborSolicitation}, NDPSourceLinkAddress, src, dst)
}

// PutNeighborAdvertisement is PutNeighborSolicitation for an advertisement.
func PutNeighborAdvertisement(b []byte, f *NeighborFields, src, dst netip.Addr) int {
	m := ICMPFields{Type: ICMPv6NeighborAdvertisement}
	if f.Router {
		m.Rest |= neighborRouter
	}
	if f.Solicited {
		m.Rest |= neighborSolicited
	}
	if f.Override {
		m.Rest |= neighborOverride
	}
	return putNeighbor(b[:f.Len()], f, m, NDPTargetLinkAddress, src, dst)
}

func putNeighbor(b []byte, f *NeighborFields, m ICMPFields, option uint8, src, dst netip.Addr) int {
	*(*[16]byte)(b[8:24]) = f.Target.As16()
	n := neighborSolicitLen
	if !f.LinkAddress.IsZero() {
		n += putLinkAddress(b[n:], option, f.LinkAddress)
	}
	if f.Nonce != [NonceLen]byte{} {
		putNonce(b[n:], f.Nonce)
	}
	PutICMPv6(b, m, src, dst, b[ICMPLen:])
	return len(b)
}

// PutRouterSolicitation writes a whole message with its checksum to the front
// of b and returns its length: 16, or 8 without link-layer address, which a
// sender without address leaves out by giving the zero MAC.
func PutRouterSolicitation(b []byte, link MAC, src, dst netip.Addr) int {
	n := routerSolicitLen
	if !link.IsZero() {
		n += putLinkAddress(b[n:], NDPSourceLinkAddress, link)
	}
	return PutICMPv6(b, ICMPFields{Type: ICMPv6RouterSolicitation}, src, dst, b[ICMPLen:n]) + n - ICMPLen
}

// RouterAdvertisement is a view of a router advertisement (RFC 4861 §4.2).
//
//	0     1     2          4           5         6                 8
//	|type |code | checksum | hop limit | M, O .. | router lifetime |
//	| reachable time, ms   | retransmission timer, ms              | options
type RouterAdvertisement []byte

// ParseRouterAdvertisement splits a router advertisement.
func ParseRouterAdvertisement(m ICMPv6) (h RouterAdvertisement, options NDPOptions, ok bool) {
	options, ok = parseNDP(m, ICMPv6RouterAdvertisement, routerAdvertLen)
	if !ok {
		return nil, NDPOptions{}, false
	}
	return RouterAdvertisement(m[:routerAdvertLen]), options, true
}

// HopLimit is the hop limit to send with, 0 for no opinion.
func (h RouterAdvertisement) HopLimit() uint8 { return h[4] }

// Managed says that addresses are to be had by DHCPv6.
func (h RouterAdvertisement) Managed() bool { return h[5]&0x80 != 0 }

// OtherConfig says that other configuration is to be had by DHCPv6.
func (h RouterAdvertisement) OtherConfig() bool { return h[5]&0x40 != 0 }

// Lifetime is how long the sender is a default router, 0 for not at all.
func (h RouterAdvertisement) Lifetime() time.Duration {
	return time.Duration(binary.BigEndian.Uint16(h[6:8])) * time.Second
}

// ReachableTime is how long a neighbour counts as reachable, 0 for no opinion.
func (h RouterAdvertisement) ReachableTime() time.Duration {
	return time.Duration(binary.BigEndian.Uint32(h[8:12])) * time.Millisecond
}

// RetransTimer is the time between solicitations, 0 for no opinion.
func (h RouterAdvertisement) RetransTimer() time.Duration {
	return time.Duration(binary.BigEndian.Uint32(h[12:16])) * time.Millisecond
}

// PrefixInformation is a prefix information option (RFC 4861 §4.6.2). An
// infinite lifetime is [InfiniteLifetime].
type PrefixInformation struct {
	Prefix             netip.Prefix
	OnLink, Autonomous bool
	Valid, Preferred   time.Duration // whole seconds
}

// InfiniteLifetime is what all ones in a 32-bit lifetime mean.
const InfiniteLifetime = 0xffffffff * time.Second

// RouterAdvertisementFields is what [PutRouterAdvertisement] writes. Of the
// options only those present are written: a valid Prefix, an MTU other than 0,
// at least one server, a link address other than zero.
type RouterAdvertisementFields struct {
	HopLimit             uint8
	Managed, OtherConfig bool
	Lifetime             time.Duration // whole seconds, at most 65535
	ReachableTime        time.Duration // whole milliseconds
	RetransTimer         time.Duration // whole milliseconds
	Prefix               PrefixInformation
	MTU                  uint32        // bytes
	DNSServers           []netip.Addr  // RFC 8106 §5.1, at most 127
	DNSLifetime          time.Duration // whole seconds
	LinkAddress          MAC
}

// Len is the length of the message, in bytes.
func (f *RouterAdvertisementFields) Len() int {
	n := routerAdvertLen
	if !f.LinkAddress.IsZero() {
		n += linkAddressLen
	}
	if f.Prefix.Prefix.IsValid() {
		n += prefixOptionLen
	}
	if f.MTU != 0 {
		n += mtuOptionLen
	}
	if k := len(f.DNSServers); k > 0 {
		n += rdnssFixedLen + k*rdnssAddressLen
	}
	return n
}

// PutRouterAdvertisement writes a whole message with its checksum to the front
// of b and returns its length, [RouterAdvertisementFields.Len]. It panics if
// there are too many servers for the option.
func PutRouterAdvertisement(b []byte, f *RouterAdvertisementFields, src, dst netip.Addr) int {
	b = b[:f.Len()]
	binary.BigEndian.PutUint32(b[8:12], milliseconds(f.ReachableTime))
	binary.BigEndian.PutUint32(b[12:16], milliseconds(f.RetransTimer))
	n := routerAdvertLen
	if !f.LinkAddress.IsZero() {
		n += putLinkAddress(b[n:], NDPSourceLinkAddress, f.LinkAddress)
	}
	if f.Prefix.Prefix.IsValid() {
		n += putPrefix(b[n:], &f.Prefix)
	}
	if f.MTU != 0 {
		n += putMTU(b[n:], f.MTU)
	}
	if len(f.DNSServers) > 0 {
		putRDNSS(b[n:], f.DNSServers, f.DNSLifetime)
	}
	rest := uint32(f.HopLimit)<<24 | uint32(min(seconds(f.Lifetime), 0xffff))
	if f.Managed {
		rest |= 0x80 << 16
	}
	if f.OtherConfig {
		rest |= 0x40 << 16
	}
	PutICMPv6(b, ICMPFields{Type: ICMPv6RouterAdvertisement, Rest: rest}, src, dst, b[ICMPLen:])
	return len(b)
}

// seconds clamps d to what 32 bits of seconds hold.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d, 0), InfiniteLifetime) / time.Second)
}

// milliseconds clamps d to what 32 bits of milliseconds hold.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d, 0), 0xffffffff*time.Millisecond) / time.Millisecond)
}

// SolicitedNode is the multicast group that the owner of a listens to for
// neighbour solicitations (RFC 4291 §2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Groups that neighbour discovery uses (RFC 4291 §2.7.1).
var (
	AllNodes   = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})
	AllRouters = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 2})
)

// LinkLocalAddress is the fe80::/64 address that a station forms from its MAC
// by the modified EUI-64 (RFC 4291 appendix A).
func LinkLocalAddress(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}
