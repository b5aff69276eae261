package dns

import (
	"net/netip"

	miekg "github.com/miekg/dns"
)

// HostName is the name under which the sandbox finds the gateway, and through
// it the host where that is allowed.
const HostName = "host.sbxnet.internal"

const (
	hostTTL = 60 // seconds
	// What the flag day of 2020 settled on; our answers are far below.
	ednsSize = 1232
)

var hostWireName = wireName(HostName)

// asksForHost reports whether the question is about our own name.
func asksForHost(q question) bool { return equalFold(q.name(), hostWireName) }

// answerHost answers a query about our own name: its addresses, or no records
// for any other type or class.
func (s *Server) answerHost(query message) message {
	var m miekg.Msg
	if err := m.Unpack(query); err != nil || len(m.Question) != 1 {
		return query.refusal(rcodeFormErr)
	}
	if m.Opcode != miekg.OpcodeQuery {
		return query.refusal(rcodeNotImp)
	}
	q := m.Question[0]
	r := new(miekg.Msg).SetReply(&m)
	r.RecursionAvailable, r.Authoritative = true, true
	if q.Qclass == miekg.ClassINET || q.Qclass == miekg.ClassANY {
		r.Answer = hostRecords(q, s.gateway4, s.gateway6)
	}
	if opt := m.IsEdns0(); opt != nil { // RFC 6891 §6.1.1
		r.SetEdns0(ednsSize, opt.Do())
	}
	packed, err := r.Pack()
	if err != nil {
		return query.refusal(rcodeServFail)
	}
	return packed
}

func hostRecords(q miekg.Question, v4, v6 netip.Addr) (records []miekg.RR) {
	header := func(t uint16) miekg.RR_Header {
		return miekg.RR_Header{Name: q.Name, Rrtype: t, Class: miekg.ClassINET, Ttl: hostTTL}
	}
	if v4.Is4() && (q.Qtype == miekg.TypeA || q.Qtype == miekg.TypeANY) {
		records = append(records, &miekg.A{Hdr: header(miekg.TypeA), A: v4.AsSlice()})
	}
	if v6.Is6() && (q.Qtype == miekg.TypeAAAA || q.Qtype == miekg.TypeANY) {
		records = append(records, &miekg.AAAA{Hdr: header(miekg.TypeAAAA), AAAA: v6.AsSlice()})
	}
	return records
}
