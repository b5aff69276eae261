package dhcp

import (
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"sbxnet/netstack/header"
)

const (
	leastRequest4  = 240 // bytes of a message up to its options (RFC 2131 §2)
	leastDatagram4 = 576 // RFC 2131 §2: every client takes it
	broadcastFlag  = 0x8000
	hardwareLen    = 6 // of Ethernet
	udpIPv4        = header.IPv4MinLen + header.UDPLen

	// Where the fields are that may hold options as well, and where they end.
	at4ServerName, at4File, at4Cookie = 44, 108, 236
)

// message4 is a request: as the library reads it, and what answers depend on.
type message4 struct {
	*dhcpv4.DHCPv4
	kind        dhcpv4.MessageType
	ciaddr      netip.Addr
	giaddr      netip.Addr
	chaddr      header.MAC
	requested   netip.Addr // zero: not there
	server      netip.Addr // zero: not there
	identifier  []byte     // nil: not there
	maxDatagram int
}

// parse4 reads a request. It reports whether it is well-formed and from an
// Ethernet station.
//
// The library's work is linear in the size of b, as long as no option but those
// that readOptions looks at is decoded: its list of domains is not.
func parse4(b []byte) (*message4, bool) {
	if len(b) < leastRequest4 || len(b) > MaxMessage || b[0] != byte(dhcpv4.OpcodeBootRequest) {
		return nil, false
	}
	d, err := dhcpv4.FromBytes(ended(b))
	if err != nil || d.HWType != iana.HWTypeEthernet || len(d.ClientHWAddr) != hardwareLen {
		return nil, false
	}
	m := &message4{DHCPv4: d, ciaddr: addrOf(d.ClientIPAddr), giaddr: addrOf(d.GatewayIPAddr), chaddr: header.MAC(d.ClientHWAddr)}
	return m, m.chaddr.IsUnicast() && m.readOverload(b) && m.readOptions()
}

// ended is a copy of b with an end option after it. Clients that leave theirs
// out are tolerated, and an option without its length is seen to be cut short.
func ended(b []byte) []byte { return append(slices.Clip(b), dhcpv4.OptionEnd.Code()) }

// readOverload reads the options in the fields for names, if there are any (RFC
// 2132 §9.3); the file field is the first of them (RFC 2131 §4.1). Options that
// come more than once are joined (RFC 3396 §7).
func (m *message4) readOverload(b []byte) bool {
	o, there := m.Options[dhcpv4.OptionOptionOverload.Code()]
	if !there {
		return true
	}
	if len(o) != 1 || o[0] < 1 || o[0] > 3 {
		return false
	}
	where := o[0]
	return (where&1 == 0 || m.Options.FromBytes(ended(b[at4File:at4Cookie])) == nil) &&
		(where&2 == 0 || m.Options.FromBytes(ended(b[at4ServerName:at4File])) == nil)
}

// readOptions takes out what answers depend on.
func (m *message4) readOptions() bool {
	m.kind = m.MessageType()
	if m.kind == dhcpv4.MessageTypeNone || len(m.relayed()) > 255 ||
		!m.readAddr(dhcpv4.OptionRequestedIPAddress, &m.requested) || !m.readAddr(dhcpv4.OptionServerIdentifier, &m.server) {
		return false
	}
	if m.Options.Has(dhcpv4.OptionClientIdentifier) {
		m.identifier = m.Options.Get(dhcpv4.OptionClientIdentifier)
		if len(m.identifier) < 2 || len(m.identifier) > 255 { // RFC 2132 §9.14
			return false
		}
	}
	m.maxDatagram = leastDatagram4
	if m.Options.Has(dhcpv4.OptionMaximumDHCPMessageSize) {
		size, err := m.MaxMessageSize()
		if err != nil {
			return false
		}
		m.maxDatagram = max(leastDatagram4, int(size))
	}
	return true
}

// readAddr reads an option that is one address, if it is there.
func (m *message4) readAddr(code dhcpv4.OptionCode, to *netip.Addr) bool {
	if !m.Options.Has(code) {
		return true
	}
	*to = addrOf(dhcpv4.GetIP(code, m.Options))
	return to.IsValid()
}

// relayed is what a relay wants back as it is (RFC 3046 §2.2).
func (m *message4) relayed() []byte { return m.Options.Get(dhcpv4.OptionRelayAgentInformation) }

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
func (m *message4) wants(code dhcpv4.OptionCode) bool {
	return !m.Options.Has(dhcpv4.OptionParameterRequestList) ||
		slices.Contains(m.Options.Get(dhcpv4.OptionParameterRequestList), code.Code())
}

// reply4 is a reply being made, with room for so many bytes of options.
type reply4 struct {
	*dhcpv4.DHCPv4
	room int
}

// begin4 starts a reply of at most limit bytes to m: fields that are the
// request's stay, others are zero (RFC 2131 §4.3.1, table 3).
func begin4(m *message4, kind dhcpv4.MessageType, server netip.Addr, limit int) *reply4 {
	r := &reply4{room: limit - leastRequest4 - 1, DHCPv4: &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: iana.HWTypeEthernet, TransactionID: m.TransactionID, Flags: m.Flags,
		GatewayIPAddr: m.GatewayIPAddr, ClientHWAddr: m.ClientHWAddr, Options: make(dhcpv4.Options),
	}}
	if !m.giaddr.IsUnspecified() {
		r.option(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, m.relayed()))
	}
	r.option(dhcpv4.OptMessageType(kind))
	r.option(dhcpv4.OptServerIdentifier(server.AsSlice()))
	return r
}

// option adds an option, or leaves it out if it is empty or does not fit. One
// that is long takes several pieces (RFC 3396 §5).
func (r *reply4) option(o dhcpv4.Option) {
	data := o.Value.ToBytes()
	pieces := (len(data) + 254) / 255
	if n := len(data) + 2*pieces; n > 0 && n <= r.room {
		r.room -= n
		r.Options[o.Code.Code()] = data
	}
}

// addrOf is an address as the library has it; zero if there is none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// ipsOf is addresses as the library wants them.
func ipsOf(addrs []netip.Addr) []net.IP {
	ips := make([]net.IP, len(addrs))
	for i, a := range addrs {
		ips[i] = a.AsSlice()
	}
	return ips
}
