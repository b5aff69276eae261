package header

import (
	"bytes"
	"testing"
)

// chainCase is an IPv6 payload and what the walk over it should find.
type chainCase struct {
	name    string
	first   uint8 // next header of the fixed header
	payload []byte
	to      string // destination, fd00::2 if empty
	ok      bool
	want    IPv6Chain // Fragment is compared apart
	isFrag  bool
}

func (c *chainCase) packet() []byte {
	to := c.to
	if to == "" {
		to = "fd00::2"
	}
	b := make([]byte, IPv6Len)
	PutIPv6(b, IPv6Fields{NextHeader: c.first, HopLimit: 64, Source: addr("fd00::100"), Destination: addr(to), PayloadLen: len(c.payload)})
	return append(b, c.payload...)
}

// cat joins pieces of a packet.
func cat(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }

// padded is an options header of 8 bytes with nothing but PadN.
func padded(next uint8) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// option is an options header of 8 bytes with one option of no data.
func option(next, kind uint8) []byte { return []byte{next, 0, kind, 0, 1, 2, 0, 0} }

func fragment(next uint8, offset int, more bool) []byte {
	b := make([]byte, IPv6FragmentLen)
	PutIPv6Fragment(b, IPv6FragmentFields{NextHeader: next, Offset: offset, MoreFragments: more, ID: 7})
	return b
}

func routing(next, segmentsLeft uint8) []byte { return []byte{next, 0, 0, segmentsLeft, 0, 0, 0, 0} }

var udp = []byte{0, 1, 0, 2, 0, 8, 0, 0}

var chains = []chainCase{
	{name: "no extension", first: 17, payload: udp, ok: true, want: IPv6Chain{Protocol: 17}},
	{name: "no next header", first: 59, ok: true, want: IPv6Chain{Protocol: 59}},
	{name: "ESP is an upper layer", first: 50, payload: udp, ok: true, want: IPv6Chain{Protocol: 50}},
	{name: "one of each", first: 0, payload: cat(padded(60), padded(43), routing(60, 0), padded(17), udp), ok: true,
		want: IPv6Chain{Protocol: 17, Offset: 32}},
	{name: "no next header behind options", first: 60, payload: padded(59), ok: true, want: IPv6Chain{Protocol: 59, Offset: 8}},
	{name: "router alert", first: 0, payload: cat([]byte{58, 0, 5, 2, 0, 0, 1, 0}, udp), ok: true, want: IPv6Chain{Protocol: 58, Offset: 8}},
	{name: "Pad1 only", first: 60, payload: cat([]byte{17, 0, 0, 0, 0, 0, 0, 0}, udp), ok: true, want: IPv6Chain{Protocol: 17, Offset: 8}},
	{name: "long options", first: 60, payload: cat([]byte{17, 1, 1, 12, 13: 0, 15: 0}, udp), ok: true, want: IPv6Chain{Protocol: 17, Offset: 16}},

	{name: "hop-by-hop second", first: 60, payload: cat(padded(0), padded(17), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6UnrecognizedNextHeader, Pointer: 40}},
	{name: "hop-by-hop twice", first: 0, payload: cat(padded(0), padded(17), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6UnrecognizedNextHeader, Pointer: 40}},
	{name: "source route", first: 43, payload: cat(routing(17, 1), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6ErroneousHeader, Pointer: 42}},
	{name: "options cut", first: 60, payload: padded(17)[:7]},
	{name: "options longer than packet", first: 60, payload: cat([]byte{17, 9, 0, 0}, udp)},
	{name: "option longer than header", first: 60, payload: cat([]byte{17, 0, 1, 5, 0, 0, 0, 0}, udp)},
	{name: "option without length", first: 60, payload: cat([]byte{17, 0, 1, 3, 0, 0, 0, 1}, udp)},
	{name: "too many headers", first: 60, payload: cat(bytes.Repeat(padded(60), 8), padded(17), udp)},
	{name: "as many headers as may be", first: 60, payload: cat(bytes.Repeat(padded(60), 7), padded(17), udp), ok: true,
		want: IPv6Chain{Protocol: 17, Offset: 64}},
	{name: "too many bytes", first: 60, payload: cat([]byte{17, 64}, make([]byte, 518), udp)},

	{name: "too many bytes in two headers", first: 60,
		payload: cat([]byte{60, 32}, make([]byte, 262), []byte{17, 32}, make([]byte, 262), udp)},
	{name: "many bytes", first: 60, payload: cat([]byte{17, 32}, make([]byte, 262), udp), ok: true,
		want: IPv6Chain{Protocol: 17, Offset: 264}},
	{name: "routing header cut", first: 43, payload: routing(17, 0)[:6]},
	{name: "nothing behind the first fragment's headers", first: 44, payload: fragment(59, 0, true), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 59, Offset: 8, NextHeaderAt: 6}},
	{name: "ICMPv6 header not in the first fragment", first: 44, payload: fragment(58, 0, true),
		want: IPv6Chain{Problem: true, Code: ICMPv6IncompleteChain}},

	{name: "unknown option, skip", first: 60, payload: cat(option(17, 0x1e), udp), ok: true, want: IPv6Chain{Protocol: 17, Offset: 8}},
	{name: "unknown option, discard", first: 60, payload: cat(option(17, 0x5e), udp)},
	{name: "unknown option, report", first: 60, payload: cat(option(17, 0x9e), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6UnrecognizedOption, Pointer: 42}},
	{name: "unknown option, report if unicast", first: 60, payload: cat(padded(60), option(17, 0xde), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6UnrecognizedOption, Pointer: 50}},
	{name: "unknown option, report to multicast too", first: 60, payload: cat(option(17, 0x9e), udp), to: "ff02::1",
		want: IPv6Chain{Problem: true, Code: ICMPv6UnrecognizedOption, Pointer: 42}},
	{name: "unknown option, silent to multicast", first: 60, payload: cat(option(17, 0xde), udp), to: "ff02::1"},

	{name: "first fragment", first: 44, payload: cat(fragment(17, 0, true), udp), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 17, Offset: 8, NextHeaderAt: 6}},
	{name: "later fragment", first: 44, payload: cat(fragment(17, 1480, true), udp), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 17, Offset: 8, NextHeaderAt: 6}},
	{name: "later fragment's data is not a header", first: 44, payload: cat(fragment(60, 8, false), []byte{1}), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 60, Offset: 8, NextHeaderAt: 6}},
	{name: "fragment behind options", first: 0, payload: cat(padded(44), fragment(17, 0, true), udp), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 17, Offset: 16, FragmentOffset: 8, NextHeaderAt: 40}},
	{name: "options behind the fragment header", first: 44, payload: cat(fragment(60, 0, true), padded(17), udp), ok: true, isFrag: true,
		want: IPv6Chain{Protocol: 17, Offset: 16, NextHeaderAt: 6}},
	{name: "atomic fragment is whole", first: 44, payload: cat(fragment(17, 0, false), udp), ok: true, want: IPv6Chain{Protocol: 17, Offset: 8}},
	{name: "fragment header cut", first: 44, payload: fragment(17, 0, true)[:7]},
	{name: "two fragment headers", first: 44, payload: cat(fragment(44, 0, true), fragment(17, 0, true), udp)},
	{name: "atomic, then a fragment", first: 44, payload: cat(fragment(44, 0, false), fragment(17, 0, true), udp)},
	{name: "length not a multiple of 8", first: 44, payload: cat(fragment(17, 0, true), udp, []byte{1}),
		want: IPv6Chain{Problem: true, Code: ICMPv6ErroneousHeader, Pointer: 4}},
	{name: "past 65535", first: 44, payload: cat(fragment(17, 65528, false), udp),
		want: IPv6Chain{Problem: true, Code: ICMPv6ErroneousHeader, Pointer: 42}},
	{name: "UDP header not in the first fragment", first: 44, payload: fragment(17, 0, true),
		want: IPv6Chain{Problem: true, Code: ICMPv6IncompleteChain}},
	{name: "TCP header cut by the first fragment", first: 44, payload: cat(fragment(6, 0, true), make([]byte, 16)),
		want: IPv6Chain{Problem: true, Code: ICMPv6IncompleteChain}},
	{name: "options cut by the first fragment", first: 44, payload: cat(fragment(60, 0, true), []byte{17, 1, 0, 0, 0, 0, 0, 0}),
		want: IPv6Chain{Problem: true, Code: ICMPv6IncompleteChain}},
}

func TestIPv6Chains(t *testing.T) {
	for _, c := range chains {
		h, payload, ok := ParseIPv6(c.packet())
		if !ok {
			t.Fatalf("%s: refused", c.name)
		}
		got, ok := WalkIPv6(h, payload)
		if ok != c.ok || (ok && (got.Fragment != nil) != c.isFrag) {
			t.Errorf("%s: ok %v, want %v; %+v", c.name, ok, c.ok, got)
			continue
		}
		if !ok { // of a refused packet only the verdict counts
			got = IPv6Chain{Problem: got.Problem, Code: got.Code, Pointer: got.Pointer}
		}
		got.Fragment = nil
		want := c.want
		if got.Protocol != want.Protocol || got.Offset != want.Offset || got.FragmentOffset != want.FragmentOffset ||
			got.NextHeaderAt != want.NextHeaderAt || got.Problem != want.Problem || got.Code != want.Code || got.Pointer != want.Pointer {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
	}
}

func TestMulticastReportOfLinuxIsReachedBehindRouterAlert(t *testing.T) {
	h, payload := packet6(t, vectorMulticastReport)
	c, ok := WalkIPv6(h, payload)
	if !ok || c.Protocol != ProtocolICMPv6 || c.Offset != 8 || h.HopLimit() != 1 {
		t.Fatalf("%+v %v", c, ok)
	}
	m, _, ok := ParseICMPv6(payload[c.Offset:])
	if !ok || m.Type() != ICMPv6MulticastReportVersion2 || !m.ChecksumValid(h.Source(), h.Destination()) {
		t.Errorf("%+v %v", m.Fields(), ok)
	}
}

func TestIPv6FragmentFields(t *testing.T) {
	for _, f := range []IPv6FragmentFields{
		{NextHeader: 17, Offset: 0, MoreFragments: true, ID: 0xdeadbeef},
		{NextHeader: 6, Offset: 65528, ID: 1},
		{NextHeader: 60, Offset: 8, MoreFragments: true},
		{NextHeader: 17},
	} {
		b := bytes.Repeat([]byte{0xee}, IPv6FragmentLen)
		PutIPv6Fragment(b, f)
		h, rest, ok := ParseIPv6Fragment(b)
		if !ok || len(rest) != 0 || h.Fields() != f || h.IsAtomic() != (f.Offset == 0 && !f.MoreFragments) {
			t.Errorf("%+v came back as %+v, atomic %v", f, h.Fields(), h.IsAtomic())
		}
	}
}
