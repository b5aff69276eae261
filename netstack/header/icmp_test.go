package header

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestEchoOfLinux(t *testing.T) {
	_, b4 := packet4(t, vectorEcho4)
	m, body, ok := ParseICMPv4(b4)
	if !ok || m.Fields() != (ICMPFields{Type: ICMPv4EchoRequest, Rest: EchoRest(0x1234, 1)}) ||
		m.EchoID() != 0x1234 || m.EchoSeq() != 1 || string(body) != "pingdata" || !m.ChecksumValid() || m.IsError() {
		t.Errorf("%+v %q valid %v", m.Fields(), body, m.ChecksumValid())
	}
	out := bytes.Repeat([]byte{0xee}, ICMPLen)
	if PutICMPv4(out, m.Fields(), body); !bytes.Equal(out, m[:ICMPLen]) {
		t.Errorf("emitted %x, want %x", out, m[:ICMPLen])
	}

	h6, b6 := packet6(t, vectorEcho6)
	m6, body, ok := ParseICMPv6(b6)
	if !ok || m6.Fields() != (ICMPFields{Type: ICMPv6EchoRequest, Rest: EchoRest(0x1234, 1)}) ||
		m6.EchoID() != 0x1234 || m6.EchoSeq() != 1 || string(body) != "pingdata" ||
		!m6.ChecksumValid(h6.Source(), h6.Destination()) || m6.IsError() {
		t.Errorf("%+v %q", m6.Fields(), body)
	}
	if PutICMPv6(out, m6.Fields(), h6.Source(), h6.Destination(), body); !bytes.Equal(out, m6[:ICMPLen]) {
		t.Errorf("emitted %x, want %x", out, m6[:ICMPLen])
	}
	if m6.ChecksumValid(h6.Source(), addr("fd00::2")) {
		t.Error("valid with another pseudo-header")
	}
	everyPrefixRefused(t, b4[:ICMPLen], func(b []byte) bool { _, _, ok := ParseICMPv4(b); return ok })
	everyPrefixRefused(t, b6[:ICMPLen], func(b []byte) bool { _, _, ok := ParseICMPv6(b); return ok })
}

func TestFieldsOfErrors(t *testing.T) {
	b := make([]byte, ICMPLen)
	PutICMPv4(b, ICMPFields{Type: ICMPv4Unreachable, Code: ICMPv4FragmentationNeeded, Rest: 1400}, nil)
	if m := ICMPv4(b); m.MTU() != 1400 || !m.IsError() || !m.ChecksumValid() {
		t.Errorf("MTU %d", m.MTU())
	}
	PutICMPv4(b, ICMPFields{Type: ICMPv4ParameterProblem, Rest: 20 << 24}, nil)
	if m := ICMPv4(b); m.Pointer() != 20 || !m.IsError() {
		t.Errorf("pointer %d", m.Pointer())
	}
	src, dst := addr("fd00::2"), addr("fd00::100")
	PutICMPv6(b, ICMPFields{Type: ICMPv6PacketTooBig, Rest: 1280}, src, dst, nil)
	if m := ICMPv6(b); m.MTU() != 1280 || !m.IsError() || !m.ChecksumValid(src, dst) {
		t.Errorf("MTU %d", m.MTU())
	}
	PutICMPv6(b, ICMPFields{Type: ICMPv6ParameterProblem, Code: ICMPv6UnrecognizedOption, Rest: 42}, src, dst, nil)
	if m := ICMPv6(b); m.Pointer() != 42 || m.Code() != 2 {
		t.Errorf("pointer %d", m.Pointer())
	}
}

func TestQuotedPacketOfLinux(t *testing.T) {
	_, b4 := packet4(t, vectorPortUnreachable4)
	m, body, ok := ParseICMPv4(b4)
	if !ok || m.Type() != ICMPv4Unreachable || m.Code() != ICMPv4PortUnreachable || !m.ChecksumValid() {
		t.Fatalf("%+v", m.Fields())
	}
	q, ok := ParseQuotedIPv4(body)
	want := netip.MustParseAddrPort("127.0.0.1:46349")
	if !ok || q.Protocol != ProtocolUDP || q.Source != want || q.Destination.Port() != 9 || q.HeadLen != 8 || q.Fragment {
		t.Errorf("%+v %v", q, ok)
	}
	h6, b6 := packet6(t, vectorPortUnreachable6)
	m6, body, ok := ParseICMPv6(b6)
	if !ok || m6.Type() != ICMPv6Unreachable || m6.Code() != ICMPv6PortUnreachable || !m6.ChecksumValid(h6.Source(), h6.Destination()) {
		t.Fatalf("%+v", m6.Fields())
	}
	q, ok = ParseQuotedIPv6(body)
	want = netip.MustParseAddrPort("[::1]:46616")
	if !ok || q.Protocol != ProtocolUDP || q.Source != want || q.Destination.Port() != 9 || q.HeadLen != 8 {
		t.Errorf("%+v %v", q, ok)
	}
}

func TestQuotedSegmentTellsItsSequenceNumberOnlyIfQuoted(t *testing.T) {
	packet := unhex(t, vectorData4)[EthernetLen:]
	for n := range len(packet) + 1 {
		q, ok := ParseQuotedIPv4(packet[:n:n])
		if ok != (n >= 20) {
			t.Fatalf("%d bytes quoted: %v", n, ok)
		}
		v, hasSeq := q.TCPSeq()
		if hasSeq != (n >= 28) || hasSeq && v != 0x6347313e {
			t.Errorf("%d bytes quoted: sequence %#x, %v", n, uint32(v), hasSeq)
		}
		if q.HasPorts() != (n >= 24) || q.HasPorts() && q.Destination.Port() != 0xcea7 {
			t.Errorf("%d bytes quoted: ports %v %v", n, q.Source, q.Destination)
		}
	}
	packet6 := unhex(t, vectorSYN6)[EthernetLen:]
	for n := range len(packet6) + 1 {
		q, ok := ParseQuotedIPv6(packet6[:n:n])
		if ok != (n >= 40) {
			t.Fatalf("%d bytes quoted: %v", n, ok)
		}
		if v, hasSeq := q.TCPSeq(); hasSeq != (n >= 48) || hasSeq && v != 0x7a00b313 {
			t.Errorf("%d bytes quoted: sequence %#x, %v", n, uint32(v), hasSeq)
		}
	}
}

func TestQuotedBytesBeyondTheQuotedLengthAreNotThePacket(t *testing.T) {
	b := make([]byte, 40)
	PutIPv4(b, IPv4Fields{Protocol: ProtocolTCP, Source: addr("10.0.2.2"), Destination: addr("10.0.2.100"), PayloadLen: 4})
	copy(b[20:], []byte{0, 80, 0, 81, 0xde, 0xad, 0xbe, 0xef}) // the last four are an RFC 4884 extension
	q, ok := ParseQuotedIPv4(b)
	if _, hasSeq := q.TCPSeq(); !ok || q.HeadLen != 4 || hasSeq || q.Source.Port() != 80 {
		t.Errorf("%+v %v", q, ok)
	}
	b6 := make([]byte, 60)
	PutIPv6(b6, IPv6Fields{NextHeader: ProtocolTCP, Source: addr("fd00::2"), Destination: addr("fd00::100"), PayloadLen: 4})
	q, ok = ParseQuotedIPv6(b6)
	if _, hasSeq := q.TCPSeq(); !ok || q.HeadLen != 4 || hasSeq {
		t.Errorf("%+v %v", q, ok)
	}
}

func TestQuotedHeaderThatContradictsItselfIsRefused(t *testing.T) {
	good := unhex(t, vectorUDP4)[EthernetLen:]
	for name, change := range map[string]func(b []byte){
		"version":           func(b []byte) { b[0] = 0x65 },
		"header too short":  func(b []byte) { b[0] = 0x44 },
		"header not quoted": func(b []byte) { b[0] = 0x4f },
		"total too short":   func(b []byte) { b[3] = 19 },
	} {
		b := bytes.Clone(good)
		change(b)
		if q, ok := ParseQuotedIPv4(b); ok {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

func TestQuotedLaterFragmentHasNoPorts(t *testing.T) {
	b := make([]byte, 28)
	PutIPv4(b, IPv4Fields{Protocol: ProtocolUDP, FragmentOffset: 1480, Source: addr("10.0.2.2"), Destination: addr("10.0.2.100"), PayloadLen: 8})
	b[20] = 9
	if q, ok := ParseQuotedIPv4(b); !ok || !q.Fragment || q.HasPorts() || q.Source.Port() != 0 || q.HeadLen != 0 {
		t.Errorf("%+v %v", q, ok)
	}
	later := chainCase{first: 44, payload: cat(fragment(17, 1480, false), udp)}
	if q, ok := ParseQuotedIPv6(later.packet()); !ok || !q.Fragment || q.Protocol != ProtocolUDP || q.HasPorts() {
		t.Errorf("%+v %v", q, ok)
	}
}

func TestQuotedExtensionHeadersAreWalkedOver(t *testing.T) {
	c := chainCase{first: 0, payload: cat(padded(44), fragment(60, 0, true), padded(17), udp)}
	if q, ok := ParseQuotedIPv6(c.packet()); !ok || q.Protocol != ProtocolUDP || q.Source.Port() != 1 || q.Destination.Port() != 2 {
		t.Errorf("%+v %v", q, ok)
	}
	for name, c := range map[string]chainCase{
		"cut":       {first: 60, payload: padded(17)[:7]},
		"too long":  {first: 60, payload: []byte{17, 1, 0, 0, 0, 0, 0, 0}},
		"too many":  {first: 60, payload: bytes.Repeat(padded(60), 20)},
		"fragment":  {first: 44, payload: []byte{17, 0, 0}},
		"no packet": {first: 60},
	} {
		if q, ok := ParseQuotedIPv6(c.packet()); ok {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

func TestQuotedEcho(t *testing.T) {
	for _, reply := range []bool{false, true} {
		b4, b6 := unhex(t, vectorEcho4)[EthernetLen:], unhex(t, vectorEcho6)[EthernetLen:]
		if reply {
			b4[20], b6[40] = ICMPv4EchoReply, ICMPv6EchoReply
		}
		q4, ok4 := ParseQuotedIPv4(b4)
		q6, ok6 := ParseQuotedIPv6(b6)
		if !ok4 || !ok6 {
			t.Fatal("refused")
		}
		for _, q := range []Quoted{q4, q6} {
			id, sequence, ok := q.Echo()
			if ok == reply || ok && (id != 0x1234 || sequence != 1) {
				t.Errorf("reply %v: %#x %d %v", reply, id, sequence, ok)
			}
		}
	}
}

func FuzzQuoted(f *testing.F) {
	for _, v := range []string{vectorSYN4, vectorUDP4, vectorSYN6, vectorEcho6, vectorMulticastReport} {
		f.Add(unhex(f, v)[EthernetLen:])
	}
	for _, c := range chains {
		f.Add(c.packet())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q4, ok4 := ParseQuotedIPv4(b)
		q6, ok6 := ParseQuotedIPv6(b)
		if ok4 && ok6 {
			t.Fatal("both families")
		}
		q := q4
		if ok6 {
			q = q6
		}
		if !ok4 && !ok6 {
			return
		}
		if uint(q.HeadLen) > 8 || q.Fragment && q.HeadLen != 0 || !q.HasPorts() && (q.Source.Port() != 0 || q.Destination.Port() != 0) {
			t.Fatalf("%+v", q)
		}
		if _, ok := q.TCPSeq(); ok && !q.HasPorts() {
			t.Fatalf("sequence number without ports: %+v", q)
		}
		q.Echo()
		// A whole packet quotes the same ports as it has.
		if h, payload, ok := ParseIPv4(b); ok && ok4 && !q.Fragment && q.HeadLen != min(8, len(payload)) {
			t.Fatalf("%d bytes of %d quoted of %v", q.HeadLen, len(payload), h.Fields())
		}
	})
}

func FuzzICMP(f *testing.F) {
	f.Add(unhex(f, vectorEcho4)[34:])
	f.Add(unhex(f, vectorSolicitation)[54:])
	f.Fuzz(func(t *testing.T, b []byte) {
		m4, body, ok := ParseICMPv4(b)
		if !ok {
			return
		}
		m6, _, ok6 := ParseICMPv6(b)
		if !ok6 || len(m6) != len(b) || len(m4) != len(b) || len(body) != len(b)-ICMPLen {
			t.Fatal("the families disagree on lengths")
		}
		out := bytes.Clone(b)
		PutICMPv4(out, m4.Fields(), body)
		if !ICMPv4(out).ChecksumValid() || ICMPv4(out).Fields() != m4.Fields() {
			t.Fatalf("%x came back as %x", b, out)
		}
		src, dst := addr("fe80::1"), addr("ff02::1")
		PutICMPv6(out, m6.Fields(), src, dst, body)
		if !ICMPv6(out).ChecksumValid(src, dst) || ICMPv6(out).Fields() != m6.Fields() {
			t.Fatalf("%x came back as %x", b, out)
		}
	})
}
