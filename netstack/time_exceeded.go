package netstack

import (
	"net/netip"

	"sbxnet/netstack/tcp"
)

// What makes traceroute work beyond the gateway: the sandbox's TTL is known to
// those who send its packets on, and a router's word that it ran out is passed
// back. The gateway's own word is sent by the stack itself, see ttlSuffices.

// InputTTL is the TTL or hop limit of the packet that is being handed over: to
// Handler.OpenTCP, above all, since a connection does not say.
func (s *Stack) InputTTL() uint8 { return s.in.ttl }

// SendUDPTimeExceeded tells the sandbox that a datagram of payloadLen bytes of
// payload, which it sent from flowSrc to flowDst, ran out of hops at the router
// from; with the zero Addr, at the gateway (RFC 792, RFC 4443 §3.3). Errors are
// limited in rate.
func (s *Stack) SendUDPTimeExceeded(flowSrc, flowDst netip.AddrPort, payloadLen int, from netip.Addr) {
	s.sendUDPError(errTTL, flowSrc, flowDst, payloadLen, from)
}

// SendEchoTimeExceeded tells the sandbox that its echo request from src to dst
// ran out of hops, as [Stack.SendUDPTimeExceeded] does of a datagram.
func (s *Stack) SendEchoTimeExceeded(src, dst netip.Addr, id, seq uint16, from netip.Addr) {
	s.sendEchoError(errTTL, src, dst, id, seq, from)
}

// RefuseTimeExceeded turns a held connection down because its SYN ran out of
// hops at the router from.
func (s *Stack) RefuseTimeExceeded(c *tcp.Conn, from netip.Addr) {
	// The engine knows the SYN's sequence number and asks back for the error.
	s.exceeded.sending, s.exceeded.from = true, from
	c.Refuse(tcp.HostUnreachable)
	s.exceeded.sending, s.exceeded.from = false, netip.Addr{}
}
