package dhcp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

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
	opt6Status      = 13
	opt6RapidCommit = 14
	opt6DNS         = 23
	opt6Domains     = 24
	opt6IAPD        = 25
)

// Status codes (RFC 8415 §21.13).
const (
	success6       = 0
	noAddrsAvail6  = 2
	noBinding6     = 3
	notOnLink6     = 4
	noPrefixAvail6 = 6
)

const (
	maxDUID      = 130 // RFC 8415 §11.1: a type and at most 128 bytes
	maxIA        = 16  // identity associations in one message; one is usual
	maxIAAddrs   = 16  // addresses in each
	iaFixed      = 12  // IAID, T1, T2
	iaAddrFixed  = 24  // address, lifetimes
	leastMessage = 4   // type and transaction
)

// association is an identity association of a request (RFC 8415 §21.4).
type association struct {
	kind  uint16 // opt6IANA, opt6IATA or opt6IAPD
	id    [4]byte
	addrs []netip.Addr // of IA_NA
}

// message6 is a request. Slices point into the datagram.
type message6 struct {
	b              []byte
	kind           byte
	client, server []byte // DUIDs; nil: not there
	ias            []association
	requested      []byte // option codes; nil: not there
	rapid          bool
}

// parse6 reads a request into m, and reports whether it is well-formed. Options
// that may come once only count the first time (RFC 8415 §16).
func parse6(b []byte, m *message6) bool {
	if len(b) < leastMessage || len(b) > MaxMessage {
		return false
	}
	m.b, m.kind = b, b[0]
	return eachOption6(b[leastMessage:], m.option)
}

// eachOption6 calls f with each option in b until it returns false. It reports
// whether all were good.
func eachOption6(b []byte, f func(code uint16, data []byte) bool) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-4 || !f(code, b[4:4+n:4+n]) {
			return false
		}
		b = b[4+n:]
	}
	return true
}

func (m *message6) option(code uint16, data []byte) bool {
	switch code {
	case opt6ClientID, opt6ServerID:
		if len(data) < 3 || len(data) > maxDUID {
			return false
		}
		if code == opt6ClientID && m.client == nil {
			m.client = data
		} else if code == opt6ServerID && m.server == nil {
			m.server = data
		}
	case opt6IANA, opt6IATA, opt6IAPD:
		return m.association(code, data)
	case opt6Requested:
		if len(data)%2 != 0 {
			return false
		}
		if m.requested == nil {
			m.requested = data
		}
	case opt6RapidCommit:
		m.rapid = true
		return len(data) == 0
	}
	return true
}

// association notes an identity association. Two with one IAID are one too
// many.
func (m *message6) association(code uint16, data []byte) bool {
	fixed := iaFixed
	if code == opt6IATA {
		fixed = 4
	}
	if len(data) < fixed || len(m.ias) == maxIA {
		return false
	}
	a := association{kind: code, id: [4]byte(data)}
	for i := range m.ias {
		if m.ias[i].kind == code && m.ias[i].id == a.id {
			return false
		}
	}
	ok := eachOption6(data[fixed:], func(code uint16, data []byte) bool {
		if code != opt6Address {
			return true
		}
		if len(data) < iaAddrFixed || len(a.addrs) == maxIAAddrs {
			return false
		}
		a.addrs = append(a.addrs, netip.AddrFrom16([16]byte(data)))
		return true
	})
	m.ias = append(m.ias, a)
	return ok
}

// wants reports whether the client asked for an option, or did not say which it
// wants.
func (m *message6) wants(code uint16) bool {
	for b := m.requested; len(b) >= 2; b = b[2:] {
		if binary.BigEndian.Uint16(b) == code {
			return true
		}
	}
	return m.requested == nil
}

// builder6 writes a reply, or what is inside an option.
type builder6 []byte

func (r *builder6) option(code uint16, data []byte) {
	*r = binary.BigEndian.AppendUint16(*r, code)
	*r = binary.BigEndian.AppendUint16(*r, uint16(len(data)))
	*r = append(*r, data...)
}

// status appends a status code with a text for people.
func (r *builder6) status(code uint16, text string) {
	r.option(opt6Status, append(binary.BigEndian.AppendUint16(nil, code), text...))
}

// address appends an IA Address option (RFC 8415 §21.6). Lifetime 0 takes the
// address away.
func (r *builder6) address(a netip.Addr, lifetime time.Duration) {
	data := append(make([]byte, 0, iaAddrFixed), a.AsSlice()...)
	data = binary.BigEndian.AppendUint32(data, uint32(lifetime/time.Second)) // preferred
	data = binary.BigEndian.AppendUint32(data, uint32(lifetime/time.Second)) // valid
	r.option(opt6Address, data)
}

// association appends an identity association. With t1 and t2 zero the client
// chooses (RFC 8415 §21.4).
func (r *builder6) association(a *association, t1, t2 time.Duration, inside builder6) {
	data := append(builder6(nil), a.id[:]...)
	if a.kind != opt6IATA {
		data = binary.BigEndian.AppendUint32(data, uint32(t1/time.Second))
		data = binary.BigEndian.AppendUint32(data, uint32(t2/time.Second))
	}
	r.option(a.kind, append(data, inside...))
}
