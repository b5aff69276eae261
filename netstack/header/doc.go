// Package header reads and writes the headers of every protocol on the link:
// Ethernet, ARP, IPv4, IPv6 with its extension headers, ICMP, ICMPv6, neighbour
// discovery, UDP and TCP.
//
// A header is a view: a named byte slice, such as [TCP], over the frame it came
// from. Nothing is copied and nothing is allocated, neither to parse nor to
// emit. Each protocol has two halves, which the tests hold against each other:
//
//   - ParseX checks every length that the accessors of the view rely on and
//     returns the view, cut to the header, and the payload, cut to the length
//     that the header declares, so that link-layer padding is gone. It reports
//     false for bytes that cannot be that header. On a view that did not come
//     from ParseX the accessors may panic.
//   - PutX writes a header from a struct of fields to the front of a slice and
//     returns its length. It panics, as binary.BigEndian.PutUint16 does, if the
//     slice is too short: its caller chose the size, no peer did.
//
// Parsing judges form, not sense. Whether a checksum is right, an address
// plausible ([IsMartianSource]), a flag combination legal, is asked separately,
// because the answer depends on what the link has verified and on who asks.
//
// Multi-byte fields are in host byte order in Go and in network byte order in
// the slice. Lengths and offsets are in bytes, also where the wire counts in
// other units. Addresses are netip.Addr, never with a zone.
//
// Every byte parsed here may come from a hostile guest. Walks over options and
// extension headers are bounded, by bytes and by count, and an element of
// length zero ends them.
package header
