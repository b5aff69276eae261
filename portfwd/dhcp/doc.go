// Package dhcp answers guests that configure themselves: DHCPv4 (RFC 2131) and
// DHCPv6 (RFC 8415) for the one link that a sandbox has.
//
// # Theory of operation
//
// A [Server] has no socket, goroutine or timer. [Server.Respond4] and
// [Server.Respond6] take the payload of one datagram and the time, and return
// the datagram to send, if any. Leases expire by being looked at, so a server
// that nobody asks costs nothing.
//
//	         DISCOVER, SOLICIT          REQUEST
//	free ───────────────────▶ offered ──────────▶ bound ◀─┐ RENEW, REBIND
//	 ▲  ▲                        │ 60 s            │ │ └──┘
//	 │  └────────────────────────┘                 │ │ DECLINE
//	 └──────────── RELEASE, end of lease ──────────┘ ▼
//	 └──────────────────── 10 min ──────────────── declined
//
// An address remembers its last client while nobody else needs it, so that one
// who comes back gets the same.
//
// # Who gets which address
//
// The sandbox's own address belongs to one station: [Config.Owner], or the
// first that asks. All others, such as virtual machines behind a bridge in the
// sandbox, get the next free ones of the range. A client is known by its client
// identifier, else its Ethernet address; in DHCPv6 by its DUID and IAID. The
// owner keeps its address when it asks under another identifier, as after a
// change of client program.
//
// The server is the only one on its link, and answers accordingly: it lets a
// client that it does not know go on with an address that is free, since it has
// most likely been restarted itself, and says no at once to one that is not.
// The exception is INIT-REBOOT, where RFC 2131 §4.3.2 demands silence.
//
// # Bounds
//
// Everything is the guest's doing. There are at most [MaxLeases] addresses in a
// range, and no memory for a client without an address; work is linear in the
// size of a message, and messages over [MaxMessage] bytes are not read. What is
// malformed is dropped and counted in [Stats].
//
// Messages are read and written by github.com/insomniacslk/dhcp, which expects
// sane input: it takes quadratic time or memory for some options, and rejects
// messages for the content of others. message4.go and message6.go therefore
// have it decode only what matters, in bounded number and length, and keep
// identifiers as the bytes that they are.
//
// DHCPv6 relays, prefix delegation, temporary addresses, reconfiguration and
// authentication are left out: the link has nothing to relay to and one router.
package dhcp
