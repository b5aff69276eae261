package portfwd

import (
	"sbxnet/netstack"
	"sbxnet/portfwd/dhcp"
)

// counters are one shard's, written by its goroutine alone.
type counters struct {
	tcpOutbound, tcpPublished, tcpSpliced, tcpDiverted, tcpDenied, tcpFailed, tcpNoServer, tcpOverLimit, tcpIdle uint64
	toHost, toGuest                                                                                              uint64
	udpOutbound, udpPublished, udpDenied, udpFailed, udpEvicted, udpNotHeld                                      uint64
	datagramsToHost, datagramsToGuest, datagramsLost                                                             uint64
	echoes, echoDenied, echoFailed, echoEvicted                                                                  uint64
	handedOver, handoverLost                                                                                     uint64
	turns                                                                                                        uint64 // of the loop
}

// Stats counts what a forwarder has done since Start, over all shards, but for
// the fields that say "now".
type Stats struct {
	TCP  TCPStats
	UDP  UDPStats
	Echo EchoStats
	DHCP dhcp.Stats // as long as the forwarder exists
	// HandedOver are frames that arrived on another shard than their flow's,
	// HandoverLost those for which there was no room.
	HandedOver, HandoverLost uint64
	// Stacks are those of the shards, in order.
	Stacks []netstack.Stats
}

// TCPStats counts connections, and bytes of payload.
type TCPStats struct {
	Open                int    // now, being connected included, but no diverted ones that both ends have closed
	Outbound, Published uint64 // that were opened
	Spliced             uint64 // of Published, those that did without the link
	Diverted            uint64 // of Outbound, those that left the link with their bulk
	Denied              uint64 // by policy
	Failed              uint64 // by the host's connect
	NoServer            uint64 // published, and refused by every target
	Idle                uint64 // that were ended by Timeouts
	OverLimit           uint64 // for want of descriptors or by Limits.TCP
	ToHost, ToSandbox   uint64 // bytes
}

// UDPStats counts flows and datagrams.
type UDPStats struct {
	Open                                int // now
	Outbound, Published                 uint64
	Denied, Failed                      uint64
	Evicted                             uint64 // ended early by Limits.UDP, or for a descriptor
	HeldBytes                           int    // now: see Limits.HeldBytes
	NotHeld                             uint64 // datagrams that a next target would not get, for want of room
	DatagramsToHost, DatagramsToSandbox uint64 // trains that came joined count once towards the sandbox
	Lost                                uint64 // that the host's sockets did not take
}

// EchoStats counts echo requests.
type EchoStats struct {
	Open     int // now
	Requests uint64
	Denied   uint64 // by policy, or by the host's ping_group_range
	Failed   uint64 // for want of descriptors or a route
	Evicted  uint64 // flows ended early by Limits.Echo
}

func (s *Stats) add(sh *shard) {
	c := &sh.counters
	s.TCP.Open += sh.connections()
	s.TCP.Outbound += c.tcpOutbound
	s.TCP.Published += c.tcpPublished
	s.TCP.Spliced += c.tcpSpliced
	s.TCP.Diverted += c.tcpDiverted
	s.TCP.Denied += c.tcpDenied
	s.TCP.Failed += c.tcpFailed
	s.TCP.NoServer += c.tcpNoServer
	s.TCP.OverLimit += c.tcpOverLimit
	s.TCP.Idle += c.tcpIdle
	s.TCP.ToHost += c.toHost
	s.TCP.ToSandbox += c.toGuest
	s.UDP.Open += len(sh.udp.flows)
	s.UDP.Outbound += c.udpOutbound
	s.UDP.Published += c.udpPublished
	s.UDP.Denied += c.udpDenied
	s.UDP.Failed += c.udpFailed
	s.UDP.Evicted += c.udpEvicted
	s.UDP.HeldBytes += sh.udp.held
	s.UDP.NotHeld += c.udpNotHeld
	s.UDP.DatagramsToHost += c.datagramsToHost
	s.UDP.DatagramsToSandbox += c.datagramsToGuest
	s.UDP.Lost += c.datagramsLost
	s.Echo.Open += len(sh.echo.flows)
	s.Echo.Requests += c.echoes
	s.Echo.Denied += c.echoDenied
	s.Echo.Failed += c.echoFailed
	s.Echo.Evicted += c.echoEvicted
	s.HandedOver += c.handedOver
	s.HandoverLost += c.handoverLost
	s.Stacks = append(s.Stacks, sh.stack.Stats())
}
