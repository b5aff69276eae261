package dhcp

import (
	"encoding/binary"
	"net/netip"

	"sbxnet/netstack/header"
)

// Tests write requests and read replies byte by byte, so that a mistake of the
// library's cannot agree with itself.

// Message types (RFC 2132 §9.6).
const (
	discover4 = 1 + iota
	offer4
	request4
	decline4
	ack4
	nak4
	release4
	inform4
)

// Options (RFC 2132, RFC 3046, RFC 3397).
const (
	optPad          = 0
	optMask         = 1
	optRouter       = 3
	optDNS          = 6
	optHostname     = 12
	optDomain       = 15
	optMTU          = 26
	optBroadcast    = 28
	optRequested    = 50
	optLease        = 51
	optOverload     = 52
	optType         = 53
	optServer       = 54
	optParameters   = 55
	optMaxSize      = 57
	optRenewal      = 58
	optRebinding    = 59
	optClientID     = 61
	optRelay        = 82
	optDomainSearch = 119
	optEnd          = 255
)

// Where the fields of a message are (RFC 2131 §2).
const (
	at4Flags, at4Client, at4Your = 10, 12, 16
	at4Relay, at4Hardware        = 24, 28
	at4Options                   = 240
	magicCookie                  = 0x63825363
	leastMessage4                = 300 // RFC 1542 §2.1
)

// wire4 is a reply taken apart.
type wire4 struct {
	kind       byte
	giaddr     netip.Addr
	chaddr     header.MAC
	server     netip.Addr
	identifier []byte
	options    map[byte][]byte // those that come in pieces are joined
	order      []byte
}

// readWire4 reads a reply, and reports whether it is one.
func readWire4(b []byte) (w wire4, ok bool) {
	if len(b) < leastMessage4 || b[0] != 2 || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[at4Cookie:]) != magicCookie {
		return w, false
	}
	w.options = make(map[byte][]byte)
	w.giaddr, w.chaddr = netip.AddrFrom4([4]byte(b[at4Relay:])), header.MAC(b[at4Hardware:])
	for b = b[at4Options:]; len(b) > 0 && b[0] != optEnd; {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return w, false
		}
		end := 2 + int(b[1])
		w.options[b[0]] = append(w.options[b[0]], b[2:end]...)
		w.order = append(w.order, b[0])
		b = b[end:]
	}
	if len(b) == 0 || len(w.options[optType]) != 1 || len(w.options[optServer]) != 4 {
		return w, false
	}
	w.kind, w.server, w.identifier = w.options[optType][0], netip.AddrFrom4([4]byte(w.options[optServer])), w.options[optClientID]
	return w, true
}

// Message types (RFC 8415 §7.3).
const (
	solicit6            = 1
	advertise6          = 2
	request6            = 3
	confirm6            = 4
	renew6              = 5
	rebind6             = 6
	reply6              = 7
	release6            = 8
	decline6            = 9
	informationRequest6 = 11
)

// Options (RFC 8415 §21, RFC 3646).
const (
	opt6ClientID    = 1
	opt6ServerID    = 2
	opt6IANA        = 3
	opt6IATA        = 4
	opt6Address     = 5
	opt6Requested   = 6
	opt6Preference  = 7
	opt6RelayMsg    = 9
	opt6Status      = 13
	opt6RapidCommit = 14
	opt6DNS         = 23
	opt6Domains     = 24
	opt6IAPD        = 25
)

// wire6 is options being written.
type wire6 []byte

func (w *wire6) option(code uint16, data []byte) {
	*w = binary.BigEndian.AppendUint16(*w, code)
	*w = binary.BigEndian.AppendUint16(*w, uint16(len(data)))
	*w = append(*w, data...)
}

// opt6 is one option.
func opt6(code uint16, data []byte) []byte {
	var w wire6
	w.option(code, data)
	return w
}

// eachOption6 calls f with each option in b until it returns false. It reports
// whether all were good.
func eachOption6(b []byte, f func(code uint16, data []byte) bool) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-4 || !f(code, b[4:4+n]) {
			return false
		}
		b = b[4+n:]
	}
	return true
}
