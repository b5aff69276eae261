package dhcp

import (
	"bytes"
	"net/netip"

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
	var m message6
	if !s.cfg.IPv6.served() || !parse6(req, &m) {
		s.stats.Malformed++
		return Reply{}, false
	}
	s.stats.In6++
	s.pool6.now = now
	if !from.IsLinkLocalUnicast() || !from.Is6() || !s.concerns6(&m) {
		s.stats.Ignored++
		return Reply{}, false
	}
	x := exchange6{Server: s, m: &m, station: station}
	if !x.answer() {
		s.stats.Ignored++
		return Reply{}, false
	}
	s.stats.Out6++
	return Reply{
		From: netip.AddrPortFrom(netip.Addr{}, ServerPort6), To: netip.AddrPortFrom(from, ClientPort6), Payload: x.out,
	}, true
}

// concerns6 holds a message to what its type must and must not contain (RFC
// 8415 §16).
func (s *Server) concerns6(m *message6) bool {
	ours := bytes.Equal(m.server, s.duid)
	switch m.kind {
	case solicit6, confirm6, rebind6:
		return m.client != nil && m.server == nil
	case request6, renew6, release6, decline6:
		return m.client != nil && ours
	case informationRequest6:
		return (m.server == nil || ours) && len(m.ias) == 0
	}
	return false
}

// exchange6 is one request being answered.
type exchange6 struct {
	*Server
	m       *message6
	station header.MAC
	out     builder6
}

// answer writes the reply, and reports whether there is one.
func (x *exchange6) answer() bool {
	switch x.m.kind {
	case solicit6:
		return x.solicited()
	case confirm6:
		return x.confirmed()
	}
	x.begin(reply6)
	switch x.m.kind {
	case request6, renew6, rebind6:
		x.assign(bound, false)
	case release6:
		x.give(x.pool6.release)
	case decline6:
		x.give(func(l *lease) { x.stats.Declined++; x.pool6.decline(l) })
	}
	if x.m.kind != release6 && x.m.kind != decline6 {
		x.parameters()
	}
	return true
}

// begin starts a reply: type, transaction, identifiers.
func (x *exchange6) begin(kind byte) {
	x.out = append(append(x.out, kind), x.m.b[1:leastMessage]...)
	if x.m.client != nil {
		x.out.option(opt6ClientID, x.m.client)
	}
	x.out.option(opt6ServerID, x.duid)
}

// solicited advertises, or assigns at once to a client that is in a hurry (RFC
// 8415 §18.3.1). There is no other server to wait for: preference 255.
func (x *exchange6) solicited() bool {
	if x.m.rapid {
		x.begin(reply6)
		x.out.option(opt6RapidCommit, nil)
		x.assign(bound, true)
	} else {
		x.begin(advertise6)
		x.out.option(opt6Preference, []byte{255})
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
	x.begin(reply6)
	if all {
		x.out.status(success6, "")
	} else {
		x.stats.Refused++
		x.out.status(notOnLink6, "not an address of this link")
	}
	return true
}

// assign answers each identity association (RFC 8415 §18.3.1, §18.3.2,
// §18.3.4, §18.3.5).
func (x *exchange6) assign(state leaseState, soliciting bool) {
	for i := range x.m.ias {
		a := &x.m.ias[i]
		switch a.kind {
		case opt6IATA:
			x.refuse(a, noAddrsAvail6, "no temporary addresses here")
		case opt6IAPD:
			x.refuse(a, noPrefixAvail6, "no prefixes here")
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
	case x.m.kind == request6 && off:
		x.refuse(a, notOnLink6, "not an address of this link")
		return
	case !known && !soliciting && x.m.kind != request6:
		// RENEW or REBIND of what we do not know: see the package comment.
		if !x.adoptable(a, c) {
			x.unknown(a)
			return
		}
	}
	l := p.choose(c, firstOf(a.addrs))
	if l == nil {
		x.stats.Exhausted++
		x.refuse(a, noAddrsAvail6, "all addresses are taken")
		return
	}
	until := p.now.Add(x.cfg.Lease)
	if state == offered {
		until = p.now.Add(offerTime)
	}
	p.give(l, c, state, until)
	var inside builder6
	inside.address(l.addr, x.cfg.Lease)
	for _, other := range a.addrs {
		if !soliciting && other != l.addr {
			inside.address(other, 0)
		}
	}
	x.out.association(a, x.cfg.Lease/2, x.cfg.Lease*4/5, inside)
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
	if x.m.kind == renew6 || len(a.addrs) == 0 {
		x.refuse(a, noBinding6, "not known here")
		return
	}
	x.stats.Refused++
	var inside builder6
	for _, addr := range a.addrs {
		inside.address(addr, 0)
	}
	x.out.association(a, 0, 0, inside)
}

// give takes addresses back, in the way that f does (RFC 8415 §18.3.7,
// §18.3.8).
func (x *exchange6) give(f func(*lease)) {
	x.out.status(success6, "")
	for i := range x.m.ias {
		a := &x.m.ias[i]
		l := x.pool6.current(x.client(a))
		if a.kind != opt6IANA || l == nil {
			x.refuse(a, noBinding6, "not known here")
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
func (x *exchange6) refuse(a *association, status uint16, text string) {
	x.stats.Refused++
	var inside builder6
	inside.status(status, text)
	x.out.association(a, 0, 0, inside)
}

// parameters tells what the network is like (RFC 3646).
func (x *exchange6) parameters() {
	if dns := x.cfg.IPv6.DNS; len(dns) > 0 && x.m.wants(opt6DNS) {
		var data []byte
		for _, a := range dns {
			data = append(data, a.AsSlice()...)
		}
		x.out.option(opt6DNS, data)
	}
	if len(x.domains) > 0 && x.m.wants(opt6Domains) {
		x.out.option(opt6Domains, x.domains)
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
