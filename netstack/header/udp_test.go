package header

import (
	"bytes"
	"testing"
)

func TestUDPOfLinuxWithPartialChecksum(t *testing.T) {
	h4, transport4 := packet4(t, vectorUDP4)
	h6, transport6 := packet6(t, vectorUDP6)
	for _, c := range []struct {
		name     string
		b        []byte
		want     UDPFields
		src, dst string
	}{
		{"v4", transport4, UDPFields{SourcePort: 0xb50d, DestinationPort: 9, PayloadLen: 3, Checksum: 0xfe1e}, h4.Source().String(), h4.Destination().String()},
		{"v6", transport6, UDPFields{SourcePort: 0xb618, DestinationPort: 9, PayloadLen: 3, Checksum: 0x001e}, h6.Source().String(), h6.Destination().String()},
	} {
		h, payload, ok := ParseUDP(c.b)
		if !ok || h.Fields() != c.want || string(payload) != "abc" {
			t.Fatalf("%s: %+v %q, want %+v", c.name, h.Fields(), payload, c.want)
		}
		src, dst := addr(c.src), addr(c.dst)
		kernel := bytes.Clone(h)
		h[6], h[7] = 0, 0
		if h.SetPartialChecksum(src, dst); !bytes.Equal(h, kernel) {
			t.Errorf("%s: partial checksum %#04x, the kernel's %#04x", c.name, h.Checksum(), c.want.Checksum)
		}
		if h.ChecksumValid(src, dst, payload) {
			t.Errorf("%s: a partial checksum is valid", c.name)
		}
		if h.SetChecksum(src, dst, payload); !h.ChecksumValid(src, dst, payload) {
			t.Errorf("%s: checksum %#04x is not valid", c.name, h.Checksum())
		}
		out := make([]byte, UDPLen)
		if PutUDP(out, h.Fields()); !bytes.Equal(out, h) {
			t.Errorf("%s: emitted %x, want %x", c.name, out, []byte(h))
		}
	}
}

func TestUDPLengthIsBelievedOnlyWithinThePacket(t *testing.T) {
	b := make([]byte, 20)
	PutUDP(b, UDPFields{SourcePort: 1, DestinationPort: 2, PayloadLen: 4})
	if _, payload, ok := ParseUDP(b); !ok || len(payload) != 4 || cap(payload) != 4 {
		t.Errorf("payload of %d bytes, %v, want 4", len(payload), ok)
	}
	for _, n := range []byte{0, 7, 21, 255} {
		b[5] = n
		if _, _, ok := ParseUDP(b); ok {
			t.Errorf("length %d of 20 accepted", n)
		}
	}
	b[5] = 8
	everyPrefixRefused(t, b[:8], func(b []byte) bool { _, _, ok := ParseUDP(b); return ok })
}

func TestUDPChecksumZeroMeansNoneOverIPv4Only(t *testing.T) {
	b := make([]byte, UDPLen)
	PutUDP(b, UDPFields{SourcePort: 1, DestinationPort: 2})
	if !UDP(b).ChecksumValid(addr("10.0.2.100"), addr("10.0.2.2"), nil) {
		t.Error("refused over IPv4")
	}
	if UDP(b).ChecksumValid(addr("fd00::100"), addr("fd00::2"), nil) {
		t.Error("accepted over IPv6")
	}
}

func TestUDPChecksumThatComesOutZeroIsSentAsOnes(t *testing.T) {
	src, dst := addr("10.0.2.100"), addr("10.0.2.2")
	b := make([]byte, UDPLen)
	for port := range 0x10000 {
		PutUDP(b, UDPFields{SourcePort: uint16(port), DestinationPort: 53})
		UDP(b).SetChecksum(src, dst, nil)
		if UDP(b).Checksum() == 0xffff {
			if !UDP(b).ChecksumValid(src, dst, nil) {
				t.Error("0xffff is not valid")
			}
			return
		}
		if UDP(b).Checksum() == 0 {
			t.Fatalf("port %d: sent as 0", port)
		}
	}
	t.Error("no port makes the sum come out zero")
}

func FuzzUDP(f *testing.F) {
	f.Add(unhex(f, vectorUDP4)[34:])
	f.Add([]byte{0, 1, 0, 2, 0, 7, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := ParseUDP(b)
		if !ok {
			return
		}
		if h.Len() != UDPLen+len(payload) || h.Len() > len(b) {
			t.Fatalf("length %d, payload %d, of %d", h.Len(), len(payload), len(b))
		}
		out := make([]byte, UDPLen)
		if PutUDP(out, h.Fields()); !bytes.Equal(out, h) {
			t.Fatalf("emitted %x, parsed %x", out, []byte(h))
		}
		src, dst := addr("fd00::100"), addr("fd00::2")
		if UDP(out).SetChecksum(src, dst, payload); !UDP(out).ChecksumValid(src, dst, payload) {
			t.Fatal("own checksum is not valid")
		}
	})
}
