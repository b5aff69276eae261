package portfwd

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
	"sbxnet/portfwd/hostsock"
)

// reportsPerTurn bounds the entries taken from one error queue at once.
const reportsPerTurn = 16

// reportErrors empties the socket's error queue and tells the sandbox what the
// network said about its datagrams. It also takes an error that has no entry
// in the queue.
func (f *udpFlow) reportErrors() {
	for range reportsPerTurn {
		r, ok := f.errors.Next(f.fd)
		if !ok {
			hostsock.PendingError(f.fd)
			return
		}
		f.report(&r)
	}
}

// isTimeExceeded reports whether a packet ran out of hops on its way. Code 1 is
// the destination's, which did not get all fragments: no hop to tell of.
func isTimeExceeded(r *hostsock.Report) bool {
	switch r.Origin {
	case unix.SO_EE_ORIGIN_ICMP:
		return r.Type == header.ICMPv4TimeExceeded && r.Code == header.ICMPv4TTLExceeded
	case unix.SO_EE_ORIGIN_ICMP6:
		return r.Type == header.ICMPv6TimeExceeded && r.Code == header.ICMPv6HopLimitExceeded
	}
	return false
}

// hopsLeft is the TTL that a packet of the sandbox's goes on with: the gateway
// is a router, and takes one off. What is for the gateway itself may come with
// as little as 1.
func hopsLeft(ttl uint8) uint8 { return max(ttl, 2) - 1 }

func (f *udpFlow) report(r *hostsock.Report) {
	from := offender(r, f.peer.Addr())
	switch {
	case isTimeExceeded(r):
		f.stack.SendUDPTimeExceeded(f.sandbox, f.peer, r.PayloadLen, from)
	case r.Errno == unix.EMSGSIZE:
		f.stack.SendUDPTooBig(f.sandbox, f.peer, r.PayloadLen, int(r.Info), from)
	default:
		f.udp.unreachable(f.udpKey, r.PayloadLen, unreachableReason(r), from)
	}
}

// unreachableReason is what an ICMP error, or a local one, means. The code says
// more than the errno that the kernel makes of it.
func unreachableReason(r *hostsock.Report) tcp.Refusal {
	switch r.Origin {
	case unix.SO_EE_ORIGIN_ICMP:
		return unreachableReason4(r.Code)
	case unix.SO_EE_ORIGIN_ICMP6:
		return unreachableReason6(r.Code)
	}
	return connectRefusal(r.Errno)
}

func unreachableReason4(code uint8) tcp.Refusal {
	switch code {
	case 0, 6, 11:
		return tcp.NetUnreachable
	case 2, 3:
		return tcp.PortUnreachable
	case 9, 10, 13, 14, 15:
		return tcp.Prohibited
	}
	return tcp.HostUnreachable
}

func unreachableReason6(code uint8) tcp.Refusal {
	switch code {
	case 0:
		return tcp.NetUnreachable
	case 1, 5, 6:
		return tcp.Prohibited
	case 4:
		return tcp.PortUnreachable
	}
	return tcp.HostUnreachable
}

// offender is who the sandbox is told that an error about a packet to peer is
// from: whoever sent it, but never an address of the host's loopback.
func offender(r *hostsock.Report, peer netip.Addr) netip.Addr {
	if !r.Offender.IsValid() || neverRouted(r.Offender) || r.Offender.Is4() != peer.Is4() {
		return netip.Addr{}
	}
	return r.Offender
}
