package header

// Protocol numbers, as in IPv4's protocol and IPv6's next header field
// (IANA, Assigned Internet Protocol Numbers).
const (
	ProtocolHopByHop    = 0 // IPv6 hop-by-hop options
	ProtocolICMP        = 1
	ProtocolIGMP        = 2
	ProtocolTCP         = 6
	ProtocolUDP         = 17
	ProtocolRouting     = 43 // IPv6 routing header
	ProtocolFragment    = 44 // IPv6 fragment header
	ProtocolICMPv6      = 58
	ProtocolNoNext      = 59 // IPv6: nothing follows
	ProtocolDestination = 60 // IPv6 destination options
)

// Congestion notification codepoints in an IP header (RFC 3168 §5).
const (
	NotECT = 0
	ECT1   = 1
	ECT0   = 2
	CE     = 3
)
