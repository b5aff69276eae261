package header

import (
	"bytes"
	"testing"
)

func TestTCPSegmentOfLinuxWithPartialChecksum(t *testing.T) {
	ip, segment := packet4(t, vectorData4)
	h, payload, ok := ParseTCP(segment)
	want := TCPFields{SourcePort: 0x9690, DestinationPort: 0xcea7, Seq: 0x6347313e, Ack: 0x8fd15a29,
		Flags: PSH | ACK, Window: 0x40, Checksum: 0xfe2d, OptionsLen: 12}
	if !ok || h.Fields() != want || string(payload) != "hello" {
		t.Fatalf("%+v %q, want %+v", h.Fields(), payload, want)
	}
	if o := h.Options(); o != (TCPOptions{Timestamp: true, TSVal: 0xde5f6aab, TSEcr: 0x8a6d3f71}) {
		t.Errorf("options %+v", o)
	}
	src, dst := ip.Source(), ip.Destination()
	kernel := bytes.Clone(h)
	h[16], h[17] = 0, 0
	if h.SetPartialChecksum(src, dst, len(payload)); !bytes.Equal(h, kernel) {
		t.Errorf("partial checksum %#04x, the kernel's %#04x", h.Checksum(), want.Checksum)
	}
	if h.SetChecksum(src, dst, payload); !h.ChecksumValid(src, dst, payload) {
		t.Errorf("checksum %#04x is not valid", h.Checksum())
	}
	payload[0] ^= 1
	if h.ChecksumValid(src, dst, payload) {
		t.Error("damaged payload passes")
	}
}

func TestTCPSYNOfLinuxIsWhatWeWouldSend(t *testing.T) {
	ip4, segment4 := packet4(t, vectorSYN4)
	ip6, segment6 := packet6(t, vectorSYN6)
	for _, c := range []struct {
		segment  []byte
		mss      uint16
		src, dst string
	}{
		{segment4, 65495, ip4.Source().String(), ip4.Destination().String()},
		{segment6, 65476, ip6.Source().String(), ip6.Destination().String()},
	} {
		h, payload, ok := ParseTCP(c.segment)
		if !ok || len(payload) != 0 || h.Flags() != SYN {
			t.Fatalf("%v, %d bytes of payload, flags %v", ok, len(payload), h.Flags())
		}
		o := h.Options()
		want := TCPOptions{HasMSS: true, MSS: c.mss, SACKPermitted: true, Timestamp: true, TSVal: o.TSVal, HasWindowScale: true, WindowScale: 10}
		if o != want {
			t.Errorf("options %+v, want %+v", o, want)
		}
		out := bytes.Repeat([]byte{0xee}, len(h))
		f := h.Fields()
		f.OptionsLen = o.SYNLen()
		n := PutTCP(out, f)
		n += PutTCPSYNOptions(out[n:], &o)
		TCP(out).SetPartialChecksum(addr(c.src), addr(c.dst), 0)
		if n != len(h) || !bytes.Equal(out, h) {
			t.Errorf("emitted %x, the kernel %x", out, []byte(h))
		}
	}
}

func TestTCPDataOffsetIsBelievedOnlyWithinTheSegment(t *testing.T) {
	_, segment := packet4(t, vectorSYN4)
	everyPrefixRefused(t, segment, func(b []byte) bool { _, _, ok := ParseTCP(b); return ok })
	for _, offset := range []byte{0, 1, 4, 11, 15} {
		b := bytes.Clone(segment)
		b[12] = offset << 4
		if _, _, ok := ParseTCP(b); ok {
			t.Errorf("data offset %d of a segment of 40 bytes accepted", offset)
		}
	}
	b := bytes.Clone(segment)
	b[12] = 5 << 4
	if h, payload, ok := ParseTCP(b); !ok || len(h) != 20 || len(payload) != 20 {
		t.Errorf("%d + %d bytes, %v, want 20 + 20", len(h), len(payload), ok)
	}
}

func TestTCPFlags(t *testing.T) {
	for f, want := range map[TCPFlags]string{
		0:               "none",
		SYN:             "SYN",
		SYN | ACK:       "SYN|ACK",
		FIN | PSH | ACK: "FIN|PSH|ACK",
		ECE | CWR | SYN: "SYN|ECE|CWR",
		0xff:            "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR",
	} {
		if f.String() != want {
			t.Errorf("%#x is %q, want %q", uint8(f), f.String(), want)
		}
	}
	if f := SYN | ACK; !f.Has(SYN) || !f.Has(SYN|ACK) || f.Has(SYN|FIN) || !f.Any(SYN|FIN) || f.Any(FIN|RST) {
		t.Error("Has, Any")
	}
}

func TestTCPSettersChangeOnlyTheirField(t *testing.T) {
	_, segment := packet4(t, vectorData4)
	h, _, _ := ParseTCP(segment)
	want := h.Fields()
	h.SetSeq(0xfffffff0)
	h.SetFlags(FIN | ACK | CWR)
	want.Seq, want.Flags = 0xfffffff0, FIN|ACK|CWR
	if h.Fields() != want {
		t.Errorf("%+v, want %+v", h.Fields(), want)
	}
}

func TestPutTCPRefusesOptionsThatDoNotFit(t *testing.T) {
	for _, n := range []int{-4, 1, 6, 44} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes of options: no panic", n)
				}
			}()
			PutTCP(make([]byte, 100), TCPFields{OptionsLen: n})
		}()
	}
}

func FuzzTCP(f *testing.F) {
	f.Add(unhex(f, vectorSYN4)[34:])
	f.Add(unhex(f, vectorData4)[34:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := ParseTCP(b)
		if !ok {
			return
		}
		if len(h)+len(payload) != len(b) {
			t.Fatalf("%d + %d bytes of %d", len(h), len(payload), len(b))
		}
		out := make([]byte, len(h))
		n := PutTCP(out, h.Fields())
		copy(out[n:], h.OptionBytes())
		// The reserved bits beside the data offset are not carried over.
		want := bytes.Clone(h)
		want[12] &= 0xf0
		if !bytes.Equal(out, want) {
			t.Fatalf("emitted %x, parsed %x", out, want)
		}
		src, dst := addr("10.0.2.100"), addr("192.0.2.1")
		if TCP(out).SetChecksum(src, dst, payload); !TCP(out).ChecksumValid(src, dst, payload) {
			t.Fatal("own checksum is not valid")
		}
		if h.Flags().String() == "" {
			t.Fatal("flags without a name")
		}
	})
}
