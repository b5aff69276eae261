package dhcp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sbxnet/netstack/header"
)

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
	optMessage      = 56
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
	at4Flags, at4Client, at4Your        = 10, 12, 16
	at4Relay, at4Hardware               = 24, 28
	at4ServerName, at4File              = 44, 108
	at4Cookie, at4Options               = 236, 240
	broadcastFlag                       = 0x8000
	magicCookie                  uint32 = 0x63825363
	leastMessage4                       = 300 // RFC 1542 §2.1
	leastDatagram4                      = 576 // RFC 2131 §2: every client takes it
	hardwareLen                         = 6   // of Ethernet
	udpIPv4                             = header.IPv4MinLen + header.UDPLen
)

// message4 is a request. Slices point into the datagram, but those of options
// that came in pieces.
type message4 struct {
	b           []byte
	options     [256][]byte // nil: not there
	kind        byte
	ciaddr      netip.Addr
	giaddr      netip.Addr
	chaddr      header.MAC
	requested   netip.Addr // zero: not there
	server      netip.Addr // zero: not there
	identifier  []byte     // nil: not there
	maxDatagram int
}

// parse4 reads a request into m. It reports whether it is well-formed and from
// an Ethernet station.
func parse4(b []byte, m *message4) bool {
	if len(b) < at4Options || len(b) > MaxMessage || b[0] != 1 || b[1] != 1 || b[2] != hardwareLen ||
		binary.BigEndian.Uint32(b[at4Cookie:]) != magicCookie {
		return false
	}
	m.b = b
	if !m.parseOptions(b[at4Options:]) {
		return false
	}
	if o := m.options[optOverload]; o != nil {
		// RFC 2132 §9.3; the file field is read first (RFC 2131 §4.1).
		if len(o) != 1 || o[0] < 1 || o[0] > 3 ||
			o[0]&1 != 0 && !m.parseOptions(b[at4File:at4Cookie]) ||
			o[0]&2 != 0 && !m.parseOptions(b[at4ServerName:at4File]) {
			return false
		}
	}
	m.ciaddr = netip.AddrFrom4([4]byte(b[at4Client:]))
	m.giaddr = netip.AddrFrom4([4]byte(b[at4Relay:]))
	m.chaddr = header.MAC(b[at4Hardware:])
	return m.chaddr.IsUnicast() && m.readOptions()
}

// parseOptions notes the options in b. Those that come more than once are
// joined (RFC 3396 §7).
func (m *message4) parseOptions(b []byte) bool {
	for len(b) > 0 {
		code := b[0]
		if code == optEnd {
			return true
		}
		if code == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		end := 2 + int(b[1])
		data := b[2:end:end] // so that append copies
		b = b[end:]
		if old := m.options[code]; old != nil {
			data = append(old, data...)
		}
		m.options[code] = data
	}
	return true // without an end option: tolerated
}

// readOptions takes out what answers depend on.
func (m *message4) readOptions() bool {
	if o := m.options[optType]; len(o) == 1 {
		m.kind = o[0]
	} else {
		return false
	}
	if !m.readAddr(optRequested, &m.requested) || !m.readAddr(optServer, &m.server) || len(m.options[optRelay]) > 255 {
		return false
	}
	if o := m.options[optClientID]; o != nil {
		if len(o) < 2 || len(o) > 255 { // RFC 2132 §9.14
			return false
		}
		m.identifier = o
	}
	m.maxDatagram = leastDatagram4
	if o := m.options[optMaxSize]; o != nil {
		if len(o) != 2 {
			return false
		}
		m.maxDatagram = max(leastDatagram4, int(binary.BigEndian.Uint16(o)))
	}
	return true
}

// readAddr reads an option that is one address, if it is there.
func (m *message4) readAddr(code byte, to *netip.Addr) bool {
	o := m.options[code]
	if len(o) == 4 {
		*to = netip.AddrFrom4([4]byte(o))
	}
	return o == nil || len(o) == 4
}

// client is who sent the message.
func (m *message4) client() client {
	id := "mac " + string(m.chaddr[:])
	if m.identifier != nil {
		id = "id " + string(m.identifier)
	}
	return client{id: id, key: id, station: m.chaddr}
}

// wants reports whether the client asked for an option, or did not say which it
// wants.
func (m *message4) wants(code byte) bool {
	list := m.options[optParameters]
	for _, c := range list {
		if c == code {
			return true
		}
	}
	return list == nil
}

// builder4 writes a reply of at most limit bytes.
type builder4 struct {
	b     []byte
	limit int
	relay []byte // option 82, to be the last; room for it is kept
}

// begin4 starts the reply to m: fields that are the request's stay, others are
// zero (RFC 2131 §4.3.1, table 3).
func begin4(m *message4, kind byte, server netip.Addr, limit int) builder4 {
	r := builder4{b: make([]byte, at4Options, leastDatagram4), limit: limit}
	r.b[0], r.b[1], r.b[2] = 2, 1, hardwareLen
	copy(r.b[4:8], m.b[4:8])                                       // xid
	copy(r.b[at4Flags:at4Client], m.b[at4Flags:at4Client])         // flags
	copy(r.b[at4Relay:at4ServerName], m.b[at4Relay:at4ServerName]) // giaddr, chaddr
	binary.BigEndian.PutUint32(r.b[at4Cookie:], magicCookie)
	if o := m.options[optRelay]; o != nil && !m.giaddr.IsUnspecified() {
		r.relay, r.limit = o, limit-len(o)-2
	}
	r.option(optType, []byte{kind})
	r.addrs(optServer, server)
	return r
}

// option appends an option, in pieces if it is long (RFC 3396 §5), or leaves it
// out if it does not fit.
func (r *builder4) option(code byte, data []byte) {
	pieces := max(1, (len(data)+254)/255)
	if len(data) == 0 || len(r.b)+2*pieces+len(data)+1 > r.limit {
		return
	}
	for len(data) > 0 {
		n := min(len(data), 255)
		r.b = append(append(r.b, code, byte(n)), data[:n]...)
		data = data[n:]
	}
}

func (r *builder4) addrs(code byte, list ...netip.Addr) {
	var data []byte
	for _, a := range list {
		data = append(data, a.AsSlice()...)
	}
	r.option(code, data)
}

func (r *builder4) seconds(code byte, d time.Duration) {
	r.option(code, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)))
}

// finish ends the options and pads the message to the length that old clients
// and relays expect.
func (r *builder4) finish() []byte {
	if r.relay != nil { // RFC 3046 §2.1, §2.2
		r.b = append(append(r.b, optRelay, byte(len(r.relay))), r.relay...)
	}
	r.b = append(r.b, optEnd)
	if n := leastMessage4 - len(r.b); n > 0 {
		r.b = append(r.b, make([]byte, n)...)
	}
	return r.b
}
