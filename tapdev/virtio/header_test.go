package virtio

import (
	"encoding/binary"
	"errors"
	"testing"

	"sbxnet/netstack/frame"
)

// tcpFrame is an IPv4 TCP frame with a header of 20+options bytes.
func tcpFrame(options, payload int) []byte {
	b := make([]byte, 14+20+20+options+payload)
	b[12] = 0x08
	b[14] = 0x45
	b[23] = 6
	b[34+12] = byte((20+options)/4) << 4
	return b
}

func tcpOffload(options int) frame.Offload {
	return frame.Offload{
		NeedsChecksum: true, GSOType: frame.GSOTCPv4, GSOSize: 1448,
		ChecksumStart: 34, ChecksumOffset: 16, HeaderLen: uint16(54 + options),
	}
}

func TestParseGivesBackWhatWasEncoded(t *testing.T) {
	udp := tcpFrame(0, 5000)
	udp[12], udp[13] = 0x86, 0xdd
	v6 := tcpFrame(12, 5000)
	v6[12], v6[13] = 0x86, 0xdd
	six := tcpOffload(12)
	six.GSOType, six.ECN = frame.GSOTCPv6, true
	sum := frame.Offload{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, HeaderLen: 54}
	datagram := frame.Offload{NeedsChecksum: true, GSOType: frame.GSOUDP, GSOSize: 1200, ChecksumStart: 54, ChecksumOffset: 6, HeaderLen: 62}
	for name, c := range map[string]struct {
		data []byte
		want frame.Offload
	}{
		"nothing":  {tcpFrame(0, 10), frame.Offload{}},
		"checksum": {tcpFrame(0, 10), sum},
		"TCPv4":    {tcpFrame(0, 1449), tcpOffload(0)},
		"TCPv6":    {v6, six},
		"UDP":      {udp, datagram},
	} {
		t.Run(name, func(t *testing.T) {
			var b [Size]byte
			Encode(b[:], &c.want, len(c.data))
			got, err := Parse(b[:], c.data)
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
			if ne := binary.NativeEndian; ne.Uint16(b[2:]) != c.want.HeaderLen {
				t.Errorf("hdr_len %d, want %d", ne.Uint16(b[2:]), c.want.HeaderLen)
			}
		})
	}
}

// The values are those of linux/virtio_net.h; they are spelled out here so that
// a wrong constant does not agree with itself.
func TestEncodeMatchesKernelLayout(t *testing.T) {
	o := tcpOffload(12)
	o.ECN = true
	var b [Size]byte
	Encode(b[:], &o, 9000)
	ne := binary.NativeEndian
	if b[0] != 1 || b[1] != 0x81 || ne.Uint16(b[2:]) != 66 || ne.Uint16(b[4:]) != 1448 || ne.Uint16(b[6:]) != 34 || ne.Uint16(b[8:]) != 16 {
		t.Errorf("% x", b)
	}
	o.GSOType = frame.GSOUDP
	Encode(b[:], &o, 9000)
	if b[1] != 5 {
		t.Errorf("gso_type %d for UDP, want 5 (UDP_L4, no ECN bit)", b[1])
	}
	Encode(b[:LegacySize], &frame.Offload{HeaderLen: 42}, 60)
	if b[0] != 0 || b[1] != 0 || ne.Uint16(b[2:]) != 42 {
		t.Errorf("% x: hdr_len must be there without any offload", b)
	}
}

func TestEncodeDoesNotAskToCutOneSegment(t *testing.T) {
	o := tcpOffload(0)
	for payload, want := range map[int]byte{1447: 0, 1448: 0, 1449: 1} {
		var b [Size]byte
		Encode(b[:], &o, 54+payload)
		if b[1] != want || (b[4] != 0 || b[5] != 0) != (want != 0) {
			t.Errorf("%d bytes in segments of 1448: gso_type %d", payload, b[1])
		}
	}
}

func TestParseDoesNotBelieveHeaderLength(t *testing.T) {
	o := tcpOffload(12)
	data := tcpFrame(12, 3000)
	var b [Size]byte
	Encode(b[:], &o, len(data))
	for _, lie := range []uint16{0, 14, 54, 65535} {
		binary.NativeEndian.PutUint16(b[2:], lie)
		if got, err := Parse(b[:], data); err != nil || got.HeaderLen != 66 {
			t.Errorf("hdr_len %d: %d, %v; want 66 from the data offset", lie, got.HeaderLen, err)
		}
	}
}

func TestParseRefusesImpossibleHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b, data []byte) []byte
		want   error
	}{
		"frame too short":           {func(b, d []byte) []byte { return d[:13] }, ErrShort},
		"field beyond frame":        {func(b, d []byte) []byte { return d[:51] }, ErrChecksum},
		"start beyond frame":        {func(b, d []byte) []byte { b[6], b[7] = 0xff, 0xff; return d }, ErrChecksum},
		"offset beyond frame":       {func(b, d []byte) []byte { b[8], b[9] = 0xff, 0xff; return d }, ErrChecksum},
		"start within Ethernet":     {func(b, d []byte) []byte { binary.NativeEndian.PutUint16(b[6:], 13); return d }, ErrChecksum},
		"segments without checksum": {func(b, d []byte) []byte { b[0] = 0; return d }, ErrGSO},
		"segment size 0":            {func(b, d []byte) []byte { b[4], b[5] = 0, 0; return d }, ErrGSO},
		"data offset 16":            {func(b, d []byte) []byte { d[34+12] = 0x40; return d }, ErrGSO},
		"data offset beyond frame":  {func(b, d []byte) []byte { d[34+12] = 0xf0; return d[:60] }, ErrGSO},
		"UFO":                       {func(b, d []byte) []byte { b[1] = 3; return d }, ErrGSO},
		"unknown type":              {func(b, d []byte) []byte { b[1] = 77; return d }, ErrGSO},
		"UDP with TCP's field":      {func(b, d []byte) []byte { b[1] = 5; return d }, ErrGSO},
		"TCPv6 in an IPv4 frame":    {func(b, d []byte) []byte { b[1] = 4; return d }, ErrGSO},
	} {
		t.Run(name, func(t *testing.T) {
			o, data := tcpOffload(0), tcpFrame(0, 3000)
			var b [Size]byte
			Encode(b[:], &o, len(data))
			data = c.change(b[:], data)
			if got, err := Parse(b[:], data); !errors.Is(err, c.want) || got != (frame.Offload{}) {
				t.Errorf("%+v, %v; want %v", got, err, c.want)
			}
		})
	}
	if _, err := Parse(make([]byte, 9), tcpFrame(0, 0)); !errors.Is(err, ErrShort) {
		t.Errorf("header of 9 bytes: %v", err)
	}
}

func TestParsePassesOnThatChecksumWasVerified(t *testing.T) {
	b := [Size]byte{0: 2}
	if got, err := Parse(b[:], tcpFrame(0, 1)); err != nil || got != (frame.Offload{ChecksumValid: true}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, payload := range []int{0, 1448, 1449, 40000} {
		o, data := tcpOffload(0), tcpFrame(0, payload)
		var b [Size]byte
		Encode(b[:], &o, len(data))
		f.Add(b[:], data[:min(len(data), 2000)])
	}
	f.Fuzz(func(t *testing.T, b, data []byte) {
		o, err := Parse(b, data)
		if err != nil {
			if o != (frame.Offload{}) {
				t.Fatalf("%+v with %v", o, err)
			}
			return
		}
		if o.NeedsChecksum && int(o.ChecksumStart)+int(o.ChecksumOffset)+2 > len(data) {
			t.Fatalf("checksum outside the frame: %+v", o)
		}
		if int(o.HeaderLen) > len(data) {
			t.Fatalf("headers outside the frame: %+v", o)
		}
		if o.GSOType != frame.GSONone && (!o.NeedsChecksum || o.GSOSize == 0 || int(o.HeaderLen)+int(o.GSOSize) >= len(data)) {
			t.Fatalf("nothing to cut: %+v of %d", o, len(data))
		}
		// What was accepted survives being encoded again, but for what is said
		// on input only.
		o.ChecksumValid = false
		var again [Size]byte
		Encode(again[:], &o, len(data))
		if p, err := Parse(again[:], data); err != nil || p != o {
			t.Fatalf("%+v, %v; first %+v", p, err, o)
		}
	})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	o, data := tcpOffload(0), tcpFrame(0, 3000)
	b := make([]byte, Size)
	if n := testing.AllocsPerRun(100, func() {
		Encode(b, &o, len(data))
		if _, err := Parse(b, data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	o := tcpOffload(0)
	h := make([]byte, Size)
	for b.Loop() {
		Encode(h, &o, 64000)
	}
}

func BenchmarkParse(b *testing.B) {
	o, data := tcpOffload(0), tcpFrame(0, 64000)
	h := make([]byte, Size)
	Encode(h, &o, len(data))
	for b.Loop() {
		if _, err := Parse(h, data); err != nil {
			b.Fatal(err)
		}
	}
}
