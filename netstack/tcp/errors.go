package tcp

import "errors"

// What [Handler.Closed] is told, and what Listen and Dial return.
var (
	ErrReset       = errors.New("connection reset by peer")
	ErrRefused     = errors.New("connection refused")
	ErrTimeout     = errors.New("connection timed out")
	ErrUnreachable = errors.New("no route to host")
	ErrAborted     = errors.New("connection aborted")
	ErrInUse       = errors.New("address already in use")
	ErrNoPorts     = errors.New("no free local port")
	ErrTooMany     = errors.New("too many connections")
	ErrAddress     = errors.New("invalid address")
)

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
