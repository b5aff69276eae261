package tcp

import (
	"net/netip"

	"sbxnet/netstack/frame"
)

// Output is what TCP needs of the IP layer beneath it.
type Output interface {
	// AppendTCP appends a frame to the output batch whose Ethernet and IP headers
	// are filled in for a TCP segment of tcpLen bytes of header, options included,
	// and payloadLen bytes of payload. It returns the frame and its TCP header's
	// bytes, the last tcpLen of f.Header, which TCP fills in, as it does
	// f.Payload and f.Offload. It may return nil, nil when the next hop is not
	// resolved: the segment then counts as lost. The frame is good until the next
	// call.
	AppendTCP(r *Route, tcpLen, payloadLen int) (f *frame.Frame, tcp []byte)
	// SendUnreachable sends an ICMP error from r's local end that quotes a SYN
	// from r's remote end with sequence number irs.
	SendUnreachable(r *Route, reason Refusal, irs uint32)
}

// Route is the path of one connection, or of one answer to a stray segment. TCP
// owns it; the IP layer may keep what it worked out about it in Cache.
type Route struct {
	Local  netip.AddrPort // the stack's end
	Remote netip.AddrPort // the sandbox's end
	ECN    uint8          // the ECN codepoint of the next segment (RFC 3168 §5), 0…3
	Cache  RouteCache
}

// RouteCache is a place for the IP layer's header template. TCP never looks at
// it; it is zero in a new Route.
type RouteCache struct {
	Header     [54]byte // Ethernet and IP header
	Len        uint8    // how much of Header is valid, 0 for none
	Generation uint32   // of the neighbour entry that Header was made from
}

// The ECN codepoints of the IP header (RFC 3168 §5).
const (
	ecnNotCapable = 0b00
	ecnECT0       = 0b10
	ecnCE         = 0b11
)
