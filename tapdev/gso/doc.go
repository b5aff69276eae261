// Package gso does in software what a kernel does for links that it offloads:
// it cuts super-segments ([Splitter]), joins small segments of one flow
// ([Coalescer]) and completes checksums ([Finish]).
//
// Payload is never moved: a cut segment points into the super-segment's
// payload, a joined one into its parts'. Only headers are built anew, in memory
// of the Splitter or Coalescer, good until its next call. Both are meant to be
// kept and reused, one per queue; they allocate nothing.
//
// Cutting what was joined gives back the same segments. The one exception is
// the IPv4 identification of datagrams that must not be fragmented, which
// carries no meaning (RFC 6864 §4.1).
package gso
