package dhcp

import (
	"errors"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

const (
	maxOptions   = 128 // in one message, those inside others included; clients send a dozen
	maxRequested = 128 // option codes in one list
	maxDUID      = 130 // RFC 8415 §11.1: a type and at most 128 bytes
	maxIA        = 16  // identity associations in one message; one is usual
	maxIAAddrs   = 16  // addresses in each
	iaFixed      = 12  // IAID, T1, T2
	iaAddrFixed  = 24  // address, lifetimes
	leastMessage = 4   // type and transaction
)

var errMalformed = errors.New("malformed option")

// association is an identity association of a request (RFC 8415 §21.4).
type association struct {
	kind  dhcpv6.OptionCode // OptionIANA, OptionIATA or OptionIAPD
	id    [4]byte
	addrs []netip.Addr // of IA_NA
}

// message6 is a request: as the library reads it, and what answers depend on.
// Slices point into the datagram.
type message6 struct {
	*dhcpv6.Message
	client, server []byte // DUIDs; nil: not there
	ias            []association
	options        int // read so far
	rapid          bool
}

// parse6 reads a request, and reports whether it is well-formed. Identifiers
// that may come once only count the first time (RFC 8415 §16).
//
// The library takes options apart one after the other, but it is shown only
// those that matter, and these one level deep: an option of no concern to us
// cannot make the message bad, and what the library takes quadratic time or
// recursion for (lists of domains, messages within messages) is not read.
func parse6(b []byte) (*message6, bool) {
	if len(b) < leastMessage || len(b) > MaxMessage {
		return nil, false
	}
	d, err := dhcpv6.MessageFromBytes(b[:leastMessage])
	if err != nil {
		return nil, false
	}
	m := &message6{Message: d}
	return m, m.Options.FromBytesWithParser(b[leastMessage:], m.option) == nil
}

// option reads one option of a message. A DUID is opaque (RFC 8415 §11): the
// library would reject some whose content does not fit their type.
func (m *message6) option(code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
	if m.options++; m.options > maxOptions {
		return nil, errMalformed
	}
	switch code {
	case dhcpv6.OptionClientID:
		return opaque(code, data), noteDUID(&m.client, data)
	case dhcpv6.OptionServerID:
		return opaque(code, data), noteDUID(&m.server, data)
	case dhcpv6.OptionIANA, dhcpv6.OptionIATA, dhcpv6.OptionIAPD:
		return m.association(code, data)
	case dhcpv6.OptionORO:
		if len(data) > 2*maxRequested {
			return nil, errMalformed
		}
		return dhcpv6.ParseOption(code, data)
	case dhcpv6.OptionRapidCommit:
		if len(data) != 0 {
			return nil, errMalformed
		}
		m.rapid = true
	}
	return opaque(code, data), nil
}

func opaque(code dhcpv6.OptionCode, data []byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}
}

// noteDUID notes a DUID if it is the first.
func noteDUID(to *[]byte, data []byte) error {
	if len(data) < 3 || len(data) > maxDUID {
		return errMalformed
	}
	if *to == nil {
		*to = data
	}
	return nil
}

// association notes an identity association. Two with one IAID are one too
// many.
func (m *message6) association(code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
	fixed := iaFixed
	if code == dhcpv6.OptionIATA {
		fixed = 4
	}
	if len(data) < fixed || len(m.ias) == maxIA {
		return nil, errMalformed
	}
	o, err := dhcpv6.ParseOption(code, data[:fixed])
	if err != nil {
		return nil, err
	}
	a := association{kind: code, id: iaid(o)}
	for i := range m.ias {
		if m.ias[i].kind == code && m.ias[i].id == a.id {
			return nil, errMalformed
		}
	}
	var inside dhcpv6.Options
	err = inside.FromBytesWithParser(data[fixed:], func(code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
		return m.inside(&a, code, data)
	})
	m.ias = append(m.ias, a)
	return o, err
}

func iaid(o dhcpv6.Option) [4]byte {
	switch o := o.(type) {
	case *dhcpv6.OptIANA:
		return o.IaId
	case *dhcpv6.OptIATA:
		return o.IaId
	case *dhcpv6.OptIAPD:
		return o.IaId
	}
	return [4]byte{}
}

// inside reads one option of an identity association: an address, without the
// options that it may have in turn.
func (m *message6) inside(a *association, code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
	if m.options++; m.options > maxOptions {
		return nil, errMalformed
	}
	if code != dhcpv6.OptionIAAddr {
		return opaque(code, data), nil
	}
	if len(data) < iaAddrFixed || len(a.addrs) == maxIAAddrs {
		return nil, errMalformed
	}
	o, err := dhcpv6.ParseOption(code, data[:iaAddrFixed])
	if addr, ok := o.(*dhcpv6.OptIAAddress); ok && err == nil {
		a.addrs = append(a.addrs, addrOf(addr.IPv6Addr))
	}
	return o, err
}

// wants reports whether the client asked for an option, or did not say which it
// wants.
func (m *message6) wants(code dhcpv6.OptionCode) bool {
	return m.GetOneOption(dhcpv6.OptionORO) == nil || m.IsOptionRequested(code)
}

// status6 is a status with a text for people.
func status6(code iana.StatusCode, text string) dhcpv6.Option {
	return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text}
}

// address6 is an address (RFC 8415 §21.6). Lifetime 0 takes it away.
func address6(a netip.Addr, lifetime time.Duration) dhcpv6.Option {
	lifetime = lifetime.Truncate(time.Second)
	return &dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice(), PreferredLifetime: lifetime, ValidLifetime: lifetime}
}

// association6 answers an identity association. With t1 and t2 zero the client
// chooses (RFC 8415 §21.4).
func association6(a *association, t1, t2 time.Duration, inside ...dhcpv6.Option) dhcpv6.Option {
	t1, t2 = t1.Truncate(time.Second), t2.Truncate(time.Second)
	switch a.kind {
	case dhcpv6.OptionIATA:
		return &dhcpv6.OptIATA{IaId: a.id, Options: dhcpv6.IdentityOptions{Options: inside}}
	case dhcpv6.OptionIAPD:
		return &dhcpv6.OptIAPD{IaId: a.id, T1: t1, T2: t2, Options: dhcpv6.PDOptions{Options: inside}}
	}
	return &dhcpv6.OptIANA{IaId: a.id, T1: t1, T2: t2, Options: dhcpv6.IdentityOptions{Options: inside}}
}
