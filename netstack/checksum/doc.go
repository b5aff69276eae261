// Package checksum is the Internet checksum (RFC 1071) and its incremental
// update (RFC 1624).
//
// A [Sum] is the ones'-complement sum of the bytes seen so far, taken as
// big-endian 16-bit words. It remembers whether it has seen an odd number of
// bytes, so a datagram may be added in pieces of any length:
//
//	field := checksum.PseudoHeader(src, dst, 17, n).Add(header).Add(payload).Checksum()
//
// Three forms of the same number go over the wire or over the link, and the
// names here keep them apart: [Sum.Fold] is the folded sum, not complemented
// (what an offloading link wants in the field); [Sum.Checksum] is its
// complement (what goes on the wire); [Sum.Valid] asks of a sum that included
// the wire's checksum whether it comes out right.
//
// The stack itself never sums payload that the link can sum; this package is
// what the links fall back on, and it runs at the speed of memory.
package checksum
