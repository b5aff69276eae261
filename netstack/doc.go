// Package netstack is a TCP/IP stack without input or output: frames and the
// time go in by function call, frames come out in a batch that the caller owns.
// It stands at the far end of a sandbox's link and plays the network there: the
// gateway, the name server's address, and every address beyond them.
//
// # Theory of operation
//
// A frame goes through [Stack.Input] to its end before the call returns:
//
//	Input ─ Ethernet ─┬─ ARP ──────────────────────────▶ neighbor.Cache
//	                  └─ IPv4, IPv6: form, martians, TTL
//	                       └─ reassembly
//	                            ├─ TCP ─▶ tcp.Engine ─▶ tcp.Handler, Handler.OpenTCP
//	                            ├─ UDP ─▶ UDPEndpoint, else Handler.Datagram
//	                            └─ ICMP ─▶ echo answered, or Handler.Echo
//	                                       errors ─▶ tcp.Engine, Handler.Unreachable
//	                                       neighbour and router discovery (IPv6)
//
// The stack accepts every unicast destination, as a gateway does. Those that are
// its own addresses it answers for; flows to any other that nothing in the
// stack takes are the [Handler]'s, which relays them to the host. Likewise it
// sends from any source that it is told to: that is how a published port shows
// its client's real address.
//
// Answers are appended to Config.Output at once, except TCP's, which wait for
// [Stack.Flush] so that one acknowledgement covers a batch. The owner writes
// the batch to the link, resets it, and calls [Stack.Reclaim]. Until then, the
// memory that frames point into stays as it is. A frame whose next hop is not
// resolved yet waits in the neighbour cache, within bounds.
//
// # Offload
//
// The stack neither computes nor needs a checksum over TCP or UDP payload, and
// handles super-segments of up to 64 KiB as one; frame.Offload says what is left
// to the link. Exceptions are fragments and ICMP, whose checksums are computed
// here: no link does that.
//
// Its own IPv6 addresses it probes for once, when the link is first heard, and
// uses meanwhile; who claims one of them is told otherwise, and the owner learns
// of it by Config.AddressConflict.
//
// # What it never does
//
// It makes no system call, reads no clock, starts no goroutine, takes no lock and
// uses no randomness but that of Config.Seed: the same calls give the same
// frames. One owner makes all calls. Nothing is allocated for a TCP segment or a
// UDP datagram on its usual way.
//
// The sandbox's kernel is trusted with nothing. What is malformed or implausible
// is counted in [Stats] and dropped; everything held on a guest's behalf has a
// bound in [Limits].
package netstack
