package dhcp

import (
	"bytes"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Respond6 takes in the payload of a datagram that came to [Servers6] and
// [ServerPort6] from an address, which has to be link-local (RFC 8415 §13.1),
// at a station. It returns the reply if there is one; Reply.From has no address
// then: the server's own link-local one is the caller's to know. req stays the
// caller's.
func (s *Server) Respond6(req []byte, from netip.Addr, station header.MAC, now timer.Instant) (Reply, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := parse6(req)
	if !ok || !s.cfg.IPv6.served() {
		s.stats.Malformed++
		return Reply{}, false
	}
	s.stats.In6++
	s.pool6.now = now
	if !from.IsLinkLocalUnicast() || !from.Is6() || !s.concerns6(m) {
		s.stats.Ignored++
		return Reply{}, false
	}
	x := exchange6{Server: s, m: m, station: station}
	if !x.answer() {
		s.stats.Ignored++
		return Reply{}, false
	}
	s.stats.Out6++
	return Reply{
		From: netip.AddrPortFrom(netip.Addr{}, ServerPort6), To: netip.AddrPortFrom(from, ClientPort6), Payload: x.out.ToBytes(),
	}, true
}

// concerns6 holds a message to what its type must and must not contain (RFC
// 8415 §16).
func (s *Server) concerns6(m *message6) bool {
	ours := bytes.Equal(m.server, s.duid)
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		return m.client != nil && m.server == nil
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return m.client != nil && ours
	case dhcpv6.MessageTypeInformationRequest:
		return (m.server == nil || ours) && len(m.ias) == 0
	}
	return false
}

// exchange6 is one request being answered.
type exchange6 struct {
	*Server
	m       *message6
	station header.MAC
	out     *dhcpv6.Message
}

// answer writes the reply, and reports whether there is one.
func (x *exchange6) answer() bool {
	switch x.m.MessageType {
	case dhcpv6.MessageTypeSolicit:
		return x.solicited()
	case dhcpv6.MessageTypeConfirm:
		return x.confirmed()
	}
	x.begin(dhcpv6.MessageTypeReply)
	switch x.m.MessageType {
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		x.assign(bound, false)
	case dhcpv6.MessageTypeRelease:
		x.give(x.pool6.release)
	case dhcpv6.MessageTypeDecline:
		x.give(func(l *lease) { x.stats.Declined++; x.pool6.decline(l) })
	}
	if x.m.MessageType != dhcpv6.MessageTypeRelease && x.m.MessageType != dhcpv6.MessageTypeDecline {
		x.parameters()
	}
	return true
}

// begin starts a reply: type, transaction, identifiers.
func (x *exchange6) begin(kind dhcpv6.MessageType) {
	x.out = &dhcpv6.Message{MessageType: kind, TransactionID: x.m.TransactionID}
	if x.m.client != nil {
		x.out.AddOption(opaque(dhcpv6.OptionClientID, x.m.client))
	}
	x.out.AddOption(opaque(dhcpv6.OptionServerID, x.duid))
}

// solicited advertises, or assigns at once to a client that is in a hurry (RFC
// 8415 §18.3.1). There is no other server to wait for: preference 255.
func (x *exchange6) solicited() bool {
	if x.m.rapid {
		x.begin(dhcpv6.MessageTypeReply)
		x.out.AddOption(opaque(dhcpv6.OptionRapidCommit, nil))
		x.assign(bound, true)
	} else {
		x.begin(dhcpv6.MessageTypeAdvertise)
		x.out.AddOption(dhcpv6.OptPreference(255))
		x.assign(offered, true)
	}
	x.parameters()
	return true
}

// confirmed says whether all addresses fit the link. Without addresses there is
// nothing to say (RFC 8415 §18.3.3).
func (x *exchange6) confirmed() bool {
	some, all := false, true
	for i := range x.m.ias {
		for _, a := range x.m.ias[i].addrs {
			some = true
			all = all && x.cfg.IPv6.Prefix.Contains(a)
		}
	}
	if !some {
		return false
	}
	x.begin(dhcpv6.MessageTypeReply)
	if all {
		x.out.AddOption(status6(iana.StatusSuccess, ""))
	} else {
		x.stats.Refused++
		x.out.AddOption(status6(iana.StatusNotOnLink, "not an address of this link"))
	}
	return true
}

// assign answers each identity association (RFC 8415 §18.3.1, §18.3.2,
// §18.3.4, §18.3.5).
func (x *exchange6) assign(state leaseState, soliciting bool) {
	for i := range x.m.ias {
		a := &x.m.ias[i]
		switch a.kind {
		case dhcpv6.OptionIATA:
			x.refuse(a, iana.StatusNoAddrsAvail, "no temporary addresses here")
		case dhcpv6.OptionIAPD:
			x.refuse(a, iana.StatusNoPrefixAvail, "no prefixes here")
		default:
			x.assignOne(a, state, soliciting)
		}
	}
}

func (x *exchange6) assignOne(a *association, state leaseState, soliciting bool) {
	p, c := &x.pool6, x.client(a)
	known := p.current(c) != nil
	off := anyOffLink(a.addrs, x.cfg.IPv6.Prefix)
	switch {
	case x.m.MessageType == dhcpv6.MessageTypeRequest && off:
		x.refuse(a, iana.StatusNotOnLink, "not an address of this link")
		return
	case !known && !soliciting && x.m.MessageType != dhcpv6.MessageTypeRequest:
		// RENEW or REBIND of what we do not know: see the package comment.
		if !x.adoptable(a, c) {
			x.unknown(a)
			return
		}
	}
	l := p.choose(c, firstOf(a.addrs))
	if l == nil {
		x.stats.Exhausted++
		x.refuse(a, iana.StatusNoAddrsAvail, "all addresses are taken")
		return
	}
	until := p.now.Add(x.cfg.Lease)
	if state == offered {
		until = p.now.Add(offerTime)
	}
	p.give(l, c, state, until)
	inside := []dhcpv6.Option{address6(l.addr, x.cfg.Lease)}
	for _, other := range a.addrs {
		if !soliciting && other != l.addr {
			inside = append(inside, address6(other, 0))
		}
	}
	x.out.AddOption(association6(a, x.cfg.Lease/2, x.cfg.Lease*4/5, inside...))
}

// adoptable reports whether a client that is not known can go on with the first
// of its addresses.
func (x *exchange6) adoptable(a *association, c client) bool {
	l := x.pool6.at(firstOf(a.addrs))
	return l != nil && x.pool6.choose(c, l.addr) == l
}

// unknown answers a client whose addresses it cannot keep: they are taken away
// where that is for sure, else the client is told to request anew.
func (x *exchange6) unknown(a *association) {
	if x.m.MessageType == dhcpv6.MessageTypeRenew || len(a.addrs) == 0 {
		x.refuse(a, iana.StatusNoBinding, "not known here")
		return
	}
	x.stats.Refused++
	var inside []dhcpv6.Option
	for _, addr := range a.addrs {
		inside = append(inside, address6(addr, 0))
	}
	x.out.AddOption(association6(a, 0, 0, inside...))
}

// give takes addresses back, in the way that f does (RFC 8415 §18.3.7,
// §18.3.8).
func (x *exchange6) give(f func(*lease)) {
	x.out.AddOption(status6(iana.StatusSuccess, ""))
	for i := range x.m.ias {
		a := &x.m.ias[i]
		l := x.pool6.current(x.client(a))
		if a.kind != dhcpv6.OptionIANA || l == nil {
			x.refuse(a, iana.StatusNoBinding, "not known here")
			continue
		}
		for _, addr := range a.addrs {
			if addr == l.addr {
				f(l)
				break
			}
		}
	}
}

// refuse answers an identity association with a status.
func (x *exchange6) refuse(a *association, status iana.StatusCode, text string) {
	x.stats.Refused++
	x.out.AddOption(association6(a, 0, 0, status6(status, text)))
}

// parameters tells what the network is like (RFC 3646).
func (x *exchange6) parameters() {
	if dns := x.cfg.IPv6.DNS; len(dns) > 0 && x.m.wants(dhcpv6.OptionDNSRecursiveNameServer) {
		x.out.AddOption(dhcpv6.OptDNS(ipsOf(dns)...))
	}
	if len(x.domains.Labels) > 0 && x.m.wants(dhcpv6.OptionDomainSearchList) {
		x.out.AddOption(dhcpv6.OptDomainSearchList(x.domains))
	}
}

// client is who asks for an identity association.
func (x *exchange6) client(a *association) client {
	id := string(x.m.client)
	return client{id: id, key: id + string(a.id[:]), station: x.station}
}

func firstOf(addrs []netip.Addr) netip.Addr {
	if len(addrs) == 0 {
		return netip.Addr{}
	}
	return addrs[0]
}

// anyOffLink reports whether any address is not of the prefix.
func anyOffLink(addrs []netip.Addr, p netip.Prefix) bool {
	for _, a := range addrs {
		if !p.Contains(a) {
			return true
		}
	}
	return false
}
