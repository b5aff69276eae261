package header

import (
	"bytes"
	"testing"
)

func TestIPv6HeaderOfLinux(t *testing.T) {
	h, payload := packet6(t, vectorSYN6)
	want := IPv6Fields{FlowLabel: 0xb8815, NextHeader: ProtocolTCP, HopLimit: 64,
		Source: addr("::1"), Destination: addr("::1"), PayloadLen: 40}
	if h.Fields() != want || len(payload) != 40 {
		t.Errorf("%+v, want %+v", h.Fields(), want)
	}
	out := bytes.Repeat([]byte{0xee}, IPv6Len)
	if n := PutIPv6(out, want); n != IPv6Len || !bytes.Equal(out, h) {
		t.Errorf("emitted %x, want %x", out, []byte(h))
	}
	everyPrefixRefused(t, unhex(t, vectorSYN6)[EthernetLen:], func(b []byte) bool { _, _, ok := ParseIPv6(b); return ok })
}

func TestIPv6TrafficClassStraddlesBytes(t *testing.T) {
	b := make([]byte, IPv6Len)
	f := IPv6Fields{DSCP: 0x2d, ECN: CE, FlowLabel: 0xfedcb, HopLimit: 1, Source: addr("fd00::1"), Destination: addr("fd00::2")}
	PutIPv6(b, f)
	h := IPv6(b)
	if h.DSCP() != 0x2d || h.ECN() != CE || h.TrafficClass() != 0xb7 || h.FlowLabel() != 0xfedcb {
		t.Errorf("%+v, class %#x", h.Fields(), h.TrafficClass())
	}
	h.SetPayloadLen(1280)
	h.SetNextHeader(ProtocolUDP)
	h.SetHopLimit(9)
	f.PayloadLen, f.NextHeader, f.HopLimit = 1280, ProtocolUDP, 9
	if h.Fields() != f {
		t.Errorf("%+v, want %+v", h.Fields(), f)
	}
}

func TestIPv6PaddingIsCutOffAndLengthBelieved(t *testing.T) {
	packet := unhex(t, vectorUDP6)[EthernetLen:]
	_, payload, ok := ParseIPv6(append(bytes.Clone(packet), 0, 0, 0))
	if !ok || len(payload) != 11 || cap(payload) != 11 {
		t.Errorf("payload of %d bytes, %v, want 11", len(payload), ok)
	}
	packet[5]++
	if _, _, ok := ParseIPv6(packet); ok {
		t.Error("a payload length past the end was accepted")
	}
	packet[5]--
	packet[0] = 0x45
	if _, _, ok := ParseIPv6(packet); ok {
		t.Error("version 4 was accepted")
	}
}

func FuzzIPv6(f *testing.F) {
	for _, v := range []string{vectorSYN6, vectorMulticastReport, vectorPortUnreachable6} {
		f.Add(unhex(f, v)[EthernetLen:])
	}
	for _, c := range chains {
		f.Add(c.packet())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := ParseIPv6(b)
		if !ok {
			return
		}
		out := make([]byte, IPv6Len)
		if PutIPv6(out, h.Fields()); !bytes.Equal(out, h) {
			t.Fatalf("emitted %x, parsed %x", out, []byte(h))
		}
		c, ok := WalkIPv6(h, payload)
		if !ok {
			if c.Problem && c.Pointer >= uint32(IPv6Len+len(payload)) {
				t.Fatalf("pointer %d in a packet of %d", c.Pointer, IPv6Len+len(payload))
			}
			return
		}
		if c.Problem || c.Offset < 0 || c.Offset > len(payload) || c.Offset > MaxIPv6ExtensionLen {
			t.Fatalf("%+v of a payload of %d", c, len(payload))
		}
		whole := append(bytes.Clone(h), payload...)
		switch {
		case c.Fragment != nil:
			if whole[c.NextHeaderAt] != ProtocolFragment || !bytes.Equal(payload[c.FragmentOffset:][:IPv6FragmentLen], c.Fragment) {
				t.Fatalf("%+v does not point at its fragment header", c)
			}
			out := make([]byte, IPv6FragmentLen)
			PutIPv6Fragment(out, c.Fragment.Fields())
			if back, _, _ := ParseIPv6Fragment(out); back.Fields() != c.Fragment.Fields() {
				t.Fatalf("%+v came back as %+v", c.Fragment.Fields(), back.Fields())
			}
		case c.Offset == 0 && c.Protocol != h.NextHeader():
			t.Fatalf("%+v without extension headers", c)
		}
	})
}
