package portfwd

import (
	"net/netip"

	"golang.org/x/sys/unix"

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

// ICMP and ICMPv6 types (RFC 792, RFC 4443).
const (
	timeExceeded4 = 11
	timeExceeded6 = 3
)

// isTimeExceeded reports whether a datagram ran out of hops on its way.
func isTimeExceeded(r *hostsock.Report) bool {
	return r.Origin == unix.SO_EE_ORIGIN_ICMP && r.Type == timeExceeded4 ||
		r.Origin == unix.SO_EE_ORIGIN_ICMP6 && r.Type == timeExceeded6
}

func (f *udpFlow) report(r *hostsock.Report) {
	from := offender(r, f.peer.Addr())
	switch {
	case isTimeExceeded(r):
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
