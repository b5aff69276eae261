package tcp

import "errors"

// What [Handler.Closed] is told, never wrapped.
var (
	ErrReset       = errors.New("connection reset by peer") // an RST that was in sequence
	ErrRefused     = errors.New("connection refused")       // an RST or ICMP error in answer to our SYN, or an RST to our SYN-ACK
	ErrTimeout     = errors.New("connection timed out")     // retransmissions, probes or keep-alives without an answer
	ErrUnreachable = errors.New("no route to host")         // the same, and ICMP errors said why
	ErrAborted     = errors.New("connection aborted")       // by this side: Abort, Close with unread data, Listener.Close
)

// What [Engine.Listen] and [Engine.Dial] return, never wrapped.
var (
	ErrInUse   = errors.New("address already in use") // by a listener, or a connection between the same ends
	ErrNoPorts = errors.New("no free local port")     // to the remote end
	ErrTooMany = errors.New("too many connections")   // Limits.Connections
	ErrAddress = errors.New("invalid address")        // or port 0, or ends of different families
)

// ErrNotStill is what [Conn.Release] returns, never wrapped.
var ErrNotStill = errors.New("connection has something under way")

// Refusal says how an attempt to connect is turned down, or why the network
// reports that one of our segments did not arrive.
type Refusal uint8

// The ways to refuse. All but Reset and Silent are ICMP destination unreachable.
const (
	Reset           Refusal = iota // RST: nobody listens
	NetUnreachable                 // ICMP net unreachable; ICMPv6 no route
	HostUnreachable                // ICMP host unreachable; ICMPv6 address unreachable
	PortUnreachable                // ICMP port unreachable
	Prohibited                     // ICMP administratively prohibited
	Silent                         // nothing is sent; the peer's SYNs time out
)
