// Package reassembly puts the fragments of IP datagrams back together, for
// either family (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//
// A fragment is copied when it is added and kept in a list sorted by offset,
// which is RFC 815's hole list seen from the other side: what lies between two
// neighbours is a hole. The datagram is complete when the bytes held add up to
// the length that the last fragment declared.
//
// Fragments never overlap (RFC 5722 §4, applied to IPv4 too): one that does,
// or that contradicts the length known so far, condemns the datagram. What was
// held is freed at once, and its key stays condemned until its time is over,
// so that later fragments cannot start it afresh. An exact duplicate is the
// network's doing and is ignored (RFC 8200 §4.5).
//
// A hostile sender can open datagrams and never finish them. Therefore the
// number of datagrams, the fragments of each, and the bytes of all together
// are bounded, a short fragment being charged for all the memory that it takes.
// At the bound the oldest datagram gives way. Each ends after a fixed time that
// counts from its first arrival and is never extended.
//
// The memory of finished datagrams serves the next ones (spares.go): fragments
// of up to 2 KiB cost no allocation in steady use.
//
// The package knows nothing about headers beyond keeping the one that preceded
// the fragment at offset zero, and sends no ICMP message: it says what happened.
package reassembly
