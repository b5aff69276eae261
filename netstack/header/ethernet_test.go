package header

import (
	"bytes"
	"testing"
)

func TestARPRequestOfLinux(t *testing.T) {
	frame := unhex(t, vectorARPRequest)
	e, payload, ok := ParseEthernet(frame)
	if !ok || e.Type() != EtherTypeARP || !e.Destination().IsBroadcast() || e.Source() != (MAC{2, 0, 0, 0, 0, 10}) {
		t.Fatalf("Ethernet: %+v", e.Fields())
	}
	a, ok := ParseARP(payload)
	if !ok {
		t.Fatal("ARP refused")
	}
	want := ARPFields{Op: ARPRequest, SenderMAC: MAC{2, 0, 0, 0, 0, 10}, SenderIP: addr("10.0.2.100"), TargetIP: addr("10.0.2.2")}
	if a.Fields() != want {
		t.Errorf("%+v, want %+v", a.Fields(), want)
	}

	out := bytes.Repeat([]byte{0xee}, len(frame)) // emit must not rely on zeros
	n := PutEthernet(out, e.Fields())
	n += PutARP(out[n:], a.Fields())
	if n != len(frame) || !bytes.Equal(out, frame) {
		t.Errorf("emitted %x, want %x", out[:n], frame)
	}
	everyPrefixRefused(t, payload, func(b []byte) bool { _, ok := ParseARP(b); return ok })
	everyPrefixRefused(t, frame[:EthernetLen], func(b []byte) bool { _, _, ok := ParseEthernet(b); return ok })
}

func TestARPForOtherThanIPv4OverEthernetIsRefused(t *testing.T) {
	good := unhex(t, vectorARPRequest)[EthernetLen:]
	for i := range 6 { // hardware type, protocol type, both lengths
		b := bytes.Clone(good)
		b[i] ^= 2
		if _, ok := ParseARP(b); ok {
			t.Errorf("accepted with byte %d changed", i)
		}
	}
	if _, ok := ParseARP(append(good, make([]byte, 18)...)); !ok {
		t.Error("refused for Ethernet's padding")
	}
}

func TestMACKinds(t *testing.T) {
	for _, c := range []struct {
		m                                      MAC
		text                                   string
		broadcast, multicast, zero, unicastMAC bool
	}{
		{Broadcast, "ff:ff:ff:ff:ff:ff", true, true, false, false},
		{MAC{0x33, 0x33, 0, 0, 0, 1}, "33:33:00:00:00:01", false, true, false, false},
		{MAC{1, 0, 0x5e, 0, 0, 0xfb}, "01:00:5e:00:00:fb", false, true, false, false},
		{MAC{}, "00:00:00:00:00:00", false, false, true, false},
		{MAC{2, 0xab, 0xcd, 0xef, 0x09, 0x90}, "02:ab:cd:ef:09:90", false, false, false, true},
	} {
		if c.m.String() != c.text {
			t.Errorf("String %q, want %q", c.m.String(), c.text)
		}
		if c.m.IsBroadcast() != c.broadcast || c.m.IsMulticast() != c.multicast || c.m.IsZero() != c.zero || c.m.IsUnicast() != c.unicastMAC {
			t.Errorf("%v is taken for something else", c.m)
		}
	}
}

func TestMulticastMAC(t *testing.T) {
	for group, want := range map[string]MAC{
		"224.0.0.251":       {0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb},
		"239.255.255.250":   {0x01, 0x00, 0x5e, 0x7f, 0xff, 0xfa}, // the 24th bit is lost
		"ff02::1":           {0x33, 0x33, 0x00, 0x00, 0x00, 0x01},
		"ff02::1:ff12:3456": {0x33, 0x33, 0xff, 0x12, 0x34, 0x56},
	} {
		if got := MulticastMAC(addr(group)); got != want {
			t.Errorf("%s: %v, want %v", group, got, want)
		}
	}
}

func FuzzEthernetAndARP(f *testing.F) {
	f.Add(unhex(f, vectorARPRequest))
	f.Add(unhex(f, vectorUDP4))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, payload, ok := ParseEthernet(b)
		if !ok {
			return
		}
		out := make([]byte, EthernetLen+ARPLen)
		n := PutEthernet(out, e.Fields())
		if !bytes.Equal(out[:n], e) || len(payload) != len(b)-EthernetLen {
			t.Fatalf("emitted %x, parsed %x", out[:n], []byte(e))
		}
		a, ok := ParseARP(payload)
		if !ok {
			return
		}
		if PutARP(out, a.Fields()); !bytes.Equal(out[:ARPLen], a) {
			t.Fatalf("emitted %x, parsed %x", out[:ARPLen], []byte(a))
		}
	})
}
