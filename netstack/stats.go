package netstack

import (
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/reassembly"
	"sbxnet/netstack/tcp"
)

// Stats counts what happened since the stack was made. Frames are counted as
// the link delivers and takes them, a super-segment as one.
type Stats struct {
	FramesIn, BytesIn uint64
	FramesOut         uint64 // TCP's too; frames on hold are counted when they go

	ARPIn, IPv4In, IPv6In         uint64 // packets, before any check beyond Ethernet's
	TCPIn, UDPIn, ICMPIn          uint64 // handed over, after all checks
	UDPOut, EchoRepliesOut        uint64 // datagrams or trains; echo replies
	ICMPErrorsOut, ICMPErrorsIn   uint64
	RouterAdvertisementsOut       uint64
	FragmentsIn, FragmentsOut     uint64
	DatagramsReassembled          uint64
	Drops                         Drops
	ARP, ND                       neighbor.Stats
	Reassembly4, Reassembly6      reassembly.Stats
	TCP                           tcp.Stats
	ReassemblyBytes, NeighborsNow int    // now
	LoopbackFlows                 int    // now: remembered flows to 127.0.0.0/8 in the sandbox
	LoopbackForgotten             uint64 // of those, for want of room
}

// Drops counts packets that went no further, by cause.
type Drops struct {
	Malformed        uint64 // a length, version or option that cannot be
	NotForUs         uint64 // Ethernet destination of another station
	EthernetSource   uint64 // a group's, or our own, as the sender
	EtherType        uint64 // neither IPv4, IPv6 nor ARP
	IPChecksum       uint64
	TransportCheck   uint64 // TCP, UDP or ICMP checksum
	SourceRoute      uint64 // IPv4 source routing option
	MartianSource    uint64
	MartianTarget    uint64 // a destination that no packet may have
	Land             uint64 // source equal to destination
	Group            uint64 // broadcast or multicast, which the stack does not take part in
	TTL              uint64 // ran out on the way outside
	ExtensionHeader  uint64 // IPv6 extension headers that cannot be followed
	Reassembly       uint64 // fragments refused; see also Reassembly4, Reassembly6
	Protocol         uint64 // transport protocol not known
	NoSuchHost       uint64 // on the link, but not our address
	Refused          uint64 // UDP or echo that nobody takes
	EndpointFull     uint64 // UDP that an endpoint's owner had no room for
	NotSolicited     uint64 // neighbour discovery that fails RFC 4861's checks
	ICMPIgnored      uint64 // types that need no answer
	ICMPQuote        uint64 // errors that quote nothing of ours
	ICMPRateLimited  uint64 // errors not sent
	NoRoute          uint64 // output without a next hop
	Unresolved       uint64 // output that could not wait for its next hop
	TooBig           uint64 // output that no IP packet holds, or DF forbids
	AddressConflicts uint64 // another station uses one of our addresses
}

// Stats returns the counters. It is for reporting, not for every packet.
func (s *Stack) Stats() Stats {
	st := s.stats
	st.ARP, st.ND = s.arp.Stats(), s.nd.Stats()
	st.Reassembly4, st.Reassembly6 = s.reassembly4.Stats(), s.reassembly6.Stats()
	_, bytes4 := s.reassembly4.Held()
	_, bytes6 := s.reassembly6.Held()
	st.ReassemblyBytes = bytes4 + bytes6
	st.NeighborsNow = s.arp.Len() + s.nd.Len()
	st.LoopbackFlows = len(s.loopback.young) + len(s.loopback.old)
	st.LoopbackForgotten = s.loopback.forgotten
	st.TCP = s.tcp.Stats()
	return st
}
