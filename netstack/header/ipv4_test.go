package header

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

func TestIPv4HeaderOfLinux(t *testing.T) {
	h, _ := packet4(t, vectorData4)
	want := IPv4Fields{ID: 0x71a3, DontFragment: true, TTL: 64, Protocol: ProtocolTCP,
		Source: addr("127.0.0.1"), Destination: addr("127.0.0.1"), Options: []byte{}, PayloadLen: 37}
	if got := h.Fields(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if !h.ChecksumValid() || h.Checksum() != 0xcb19 || h.IsFragment() {
		t.Errorf("checksum %#04x valid %v, fragment %v", h.Checksum(), h.ChecksumValid(), h.IsFragment())
	}
	out := bytes.Repeat([]byte{0xee}, 20)
	if n := PutIPv4(out, want); n != 20 || !bytes.Equal(out, h) {
		t.Errorf("emitted %x, want %x", out, []byte(h))
	}
	if h, _ := packet4(t, vectorPortUnreachable4); h.TOS() != 0xc0 || h.DSCP() != 48 || h.ECN() != NotECT {
		t.Errorf("TOS %#x, DSCP %d, ECN %d, want 0xc0, 48, 0", h.TOS(), h.DSCP(), h.ECN())
	}
}

func TestIPv4PaddingIsCutOff(t *testing.T) {
	packet := unhex(t, vectorUDP4)[EthernetLen:]
	padded := append(bytes.Clone(packet), make([]byte, 15)...) // to Ethernet's least 46
	_, payload, ok := ParseIPv4(padded)
	if !ok || !bytes.Equal(payload, packet[20:]) {
		t.Errorf("payload %x, want %x", payload, packet[20:])
	}
	if cap(payload) != len(payload) {
		t.Error("an append to the payload would write over the padding")
	}
	everyPrefixRefused(t, packet, func(b []byte) bool { _, _, ok := ParseIPv4(b); return ok })
}

func TestIPv4LengthsThatContradictAreRefused(t *testing.T) {
	good := unhex(t, vectorUDP4)[EthernetLen:]
	for name, change := range map[string]func(b []byte){
		"version 6":                    func(b []byte) { b[0] = 0x65 },
		"header of 16 bytes":           func(b []byte) { b[0] = 0x44 },
		"header of 0 bytes":            func(b []byte) { b[0] = 0x40 },
		"header longer than packet":    func(b []byte) { b[0] = 0x4f },
		"header longer than total":     func(b []byte) { b[0] = 0x46; b[3] = 20 },
		"total shorter than header":    func(b []byte) { b[3] = 19 },
		"total 0, as GSO once had it":  func(b []byte) { b[3] = 0 },
		"total longer than the packet": func(b []byte) { b[3]++ },
	} {
		b := bytes.Clone(good)
		change(b)
		if _, _, ok := ParseIPv4(b); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestIPv4FragmentFields(t *testing.T) {
	for _, c := range []struct {
		f        IPv4Fields
		fragment bool
	}{
		{IPv4Fields{}, false},
		{IPv4Fields{DontFragment: true}, false},
		{IPv4Fields{MoreFragments: true}, true},
		{IPv4Fields{FragmentOffset: 8}, true},
		{IPv4Fields{FragmentOffset: 65528}, true},
		{IPv4Fields{MoreFragments: true, FragmentOffset: 1480, ID: 0xbeef, ECN: CE, DSCP: 46}, true},
	} {
		c.f.Source, c.f.Destination, c.f.PayloadLen = addr("10.0.2.100"), addr("192.0.2.1"), 4
		b := make([]byte, 24)
		h, _, ok := ParseIPv4(b[:PutIPv4(b, c.f)+4])
		if !ok {
			t.Fatalf("%+v: refused", c.f)
		}
		c.f.Options = []byte{}
		if got := h.Fields(); !reflect.DeepEqual(got, c.f) || h.IsFragment() != c.fragment || !h.ChecksumValid() {
			t.Errorf("%+v came back as %+v, fragment %v", c.f, got, h.IsFragment())
		}
	}
}

func TestIPv4SettersMendTheChecksum(t *testing.T) {
	h, _ := packet4(t, vectorSYN4)
	h.SetTotalLen(1500)
	h.SetID(0xffff)
	h.SetTOS(0xb8 | ECT0)
	h.SetTTL(3)
	if h.TotalLen() != 1500 || h.ID() != 0xffff || h.TOS() != 0xba || h.TTL() != 3 || h.Protocol() != ProtocolTCP {
		t.Errorf("%+v", h.Fields())
	}
	before := h.Checksum()
	if h.SetChecksum(); !h.ChecksumValid() || h.Checksum() != before {
		t.Errorf("checksum kept up to date %#04x, computed afresh %#04x", before, h.Checksum())
	}
	h[8]++
	if h.ChecksumValid() {
		t.Error("a damaged header has a valid checksum")
	}
}

func TestIPv4SourceRoutesAreDetectedBehindOtherOptions(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []byte
		want    bool
	}{
		{"none", nil, false},
		{"loose", []byte{131, 7, 4, 1, 2, 3, 4}, true},
		{"strict", []byte{137, 7, 4, 1, 2, 3, 4}, true},
		{"behind nops and a timestamp", []byte{1, 1, 68, 8, 5, 0, 0, 0, 0, 0, 131, 3, 4}, true},
		{"router alert", []byte{148, 4, 0, 0}, false},
		{"record route", []byte{7, 7, 4, 0, 0, 0, 0}, false},
		{"as data of another", []byte{7, 8, 131, 7, 4, 1, 2, 3}, false},
		{"behind the end", []byte{0, 131, 3, 4}, false},
		{"behind a length of 0", []byte{68, 0, 131, 3, 4}, false},
		{"behind a length of 1", []byte{68, 1, 131, 3, 4}, false},
		{"behind a length that runs out", []byte{68, 40, 131, 3, 4}, false},
		{"without length byte", []byte{1, 1, 1, 131}, false},
	} {
		b := make([]byte, IPv4MaxLen)
		n := PutIPv4(b, IPv4Fields{Source: addr("10.0.2.100"), Destination: addr("192.0.2.1"), Options: c.options})
		h, _, ok := ParseIPv4(b[:n])
		if !ok || n%4 != 0 || !h.ChecksumValid() {
			t.Fatalf("%s: %x refused", c.name, b[:n])
		}
		if h.HasSourceRoute() != c.want {
			t.Errorf("%s: source route %v, want %v", c.name, h.HasSourceRoute(), c.want)
		}
	}
}

func TestIPv4OptionsInOrder(t *testing.T) {
	b := make([]byte, IPv4MaxLen)
	n := PutIPv4(b, IPv4Fields{Source: addr("10.0.2.100"), Destination: addr("192.0.2.1"),
		Options: []byte{1, 148, 4, 0, 9, 1, 1, 7, 3, 4, 0, 99, 99}})
	options := IPv4(b[:n]).Options()
	kind, data, ok := options.Next()
	if kind != IPv4OptionRouterAlert || !bytes.Equal(data, []byte{0, 9}) || !ok {
		t.Errorf("first option %d %x %v", kind, data, ok)
	}
	kind, data, ok = options.Next()
	if kind != IPv4OptionRecordRoute || !bytes.Equal(data, []byte{4}) || !ok {
		t.Errorf("second option %d %x %v", kind, data, ok)
	}
	if kind, _, ok = options.Next(); ok {
		t.Errorf("option %d behind the end", kind)
	}
}

func TestPutIPv4RefusesWhatDoesNotFit(t *testing.T) {
	for name, f := range map[string]IPv4Fields{
		"options":  {Options: make([]byte, 41)},
		"payload":  {PayloadLen: 65516},
		"negative": {PayloadLen: -1},
	} {
		f.Source, f.Destination = addr("10.0.2.100"), addr("192.0.2.1")
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			PutIPv4(make([]byte, 100), f)
		}()
	}
}

func FuzzIPv4(f *testing.F) {
	for _, v := range []string{vectorSYN4, vectorUDP4, vectorPortUnreachable4} {
		f.Add(unhex(f, v)[EthernetLen:])
	}
	f.Add([]byte{0x47, 0, 0, 28, 0, 0, 0x20, 1, 1, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 131, 7, 4, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := ParseIPv4(b)
		if !ok {
			return
		}
		if len(h)+len(payload) != h.TotalLen() || h.TotalLen() > len(b) {
			t.Fatalf("header %d, payload %d, total %d of %d", len(h), len(payload), h.TotalLen(), len(b))
		}
		h.HasSourceRoute()
		fields := h.Fields()
		out := make([]byte, len(h))
		if n := PutIPv4(out, fields); n != len(h) {
			t.Fatalf("emitted %d bytes of %d", n, len(h))
		}
		// The reserved flag is not carried over, and the checksum is computed.
		want := bytes.Clone(h)
		want[6] &= 0x7f
		IPv4(want).SetChecksum()
		if !bytes.Equal(out, want) {
			t.Fatalf("emitted %x, parsed %x", out, want)
		}
		// An incremental update agrees with a full computation.
		IPv4(out).SetID(binary.BigEndian.Uint16(b))
		if !IPv4(out).ChecksumValid() {
			t.Fatal("checksum wrong after SetID")
		}
	})
}
