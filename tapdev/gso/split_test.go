package gso

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"sbxnet/netstack/frame"
)

func TestSplitGivesCompleteSegments(t *testing.T) {
	for _, c := range []struct {
		spec spec
		size uint16
	}{
		{spec{payload: pattern(5000), flags: 0x10, frag: df}, 1448},
		{spec{payload: pattern(5000), pieces: 3000, flags: 0x18, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}, 1448},
		{spec{payload: pattern(4344), pieces: 1448, flags: 0x11, id: 0xffff}, 1448},
		{spec{payload: pattern(60000), pieces: 1, flags: 0x10, v6: true, seq: 0xffffff00}, 1428},
		{spec{payload: pattern(3001), pieces: 3000, flags: 0x10, v6: true, extIPv6: true}, 1000},
		{spec{payload: pattern(9999), udp: true, pieces: 9998}, 1472},
		{spec{payload: pattern(700), udp: true, v6: true}, 7},
		{spec{payload: pattern(2), flags: 0x10}, 1},
	} {
		f := c.spec.super(c.size)
		t.Run(fmt.Sprintf("%+v", f.Offload), func(t *testing.T) {
			before := f.AppendTo(nil)
			segments := splitAll(&f)
			want := (len(c.spec.payload) + int(c.size) - 1) / int(c.size)
			if len(segments) != want {
				t.Fatalf("%d segments, want %d", len(segments), want)
			}
			var payload []byte
			for i, b := range segments {
				if w := wrongChecksum(b, int(f.ChecksumStart)); w != "" {
					t.Errorf("segment %d: %s checksum", i, w)
				}
				checkLengths(t, b, int(f.ChecksumStart), c.spec.udp)
				payload = append(payload, b[f.HeaderLen:]...)
				checkSegment(t, c.spec, i, len(segments), int(c.size), b, int(f.ChecksumStart))
			}
			if !bytes.Equal(payload, c.spec.payload) {
				t.Error("payload differs")
			}
			if !bytes.Equal(before, f.AppendTo(nil)) {
				t.Error("the super-segment was changed")
			}
		})
	}
}

func checkLengths(t *testing.T, b []byte, start int, udp bool) {
	t.Helper()
	ip := b[14:]
	if ip[0]>>4 == 4 && int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
		t.Errorf("total length %d of %d bytes", binary.BigEndian.Uint16(ip[2:]), len(ip))
	}
	if ip[0]>>4 == 6 && int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
		t.Errorf("payload length %d of %d bytes", binary.BigEndian.Uint16(ip[4:]), len(ip)-40)
	}
	if udp && int(binary.BigEndian.Uint16(b[start+4:])) != len(b)-start {
		t.Errorf("UDP length %d of %d bytes", binary.BigEndian.Uint16(b[start+4:]), len(b)-start)
	}
}

func checkSegment(t *testing.T, s spec, i, n, size int, b []byte, start int) {
	t.Helper()
	if !s.v6 {
		if id := binary.BigEndian.Uint16(b[18:]); id != s.id+uint16(i) {
			t.Errorf("segment %d: identification %d", i, id)
		}
	}
	if s.udp {
		return
	}
	if seq := binary.BigEndian.Uint32(b[start+4:]); seq != s.seq+uint32(i*size) {
		t.Errorf("segment %d: sequence number %d", i, seq)
	}
	want := s.flags
	if i < n-1 {
		want &^= flagFIN | flagPSH
	}
	if i > 0 {
		want &^= flagCWR
	}
	if got := b[start+13]; got != want {
		t.Errorf("segment %d: flags %#x, want %#x", i, got, want)
	}
}

func TestSplitSaysCongestionWindowReducedOnceAndEchoOnAll(t *testing.T) {
	const ece = 0x40
	f := spec{payload: pattern(300), flags: flagCWR | ece | flagACK | flagPSH | flagFIN}.super(100)
	f.ECN = true
	var got []byte
	for _, b := range splitAll(&f) {
		got = append(got, b[34+13])
	}
	want := []byte{flagCWR | ece | flagACK, ece | flagACK, ece | flagACK | flagPSH | flagFIN}
	if !bytes.Equal(got, want) {
		t.Errorf("flags %#x, want %#x", got, want)
	}
}

func TestSplitRefusesWhatIsNoSuperSegment(t *testing.T) {
	for name, change := range map[string]func(f *frame.Frame){
		"size 0":                     func(f *frame.Frame) { f.GSOSize = 0 },
		"no type":                    func(f *frame.Frame) { f.GSOType = frame.GSONone },
		"unknown type":               func(f *frame.Frame) { f.GSOType = 9 },
		"wrong family":               func(f *frame.Frame) { f.GSOType = frame.GSOTCPv6 },
		"not IP":                     func(f *frame.Frame) { f.Header[12] = 0x12 },
		"headers in payload":         func(f *frame.Frame) { f.Header = f.Header[:40] },
		"payload in header":          func(f *frame.Frame) { f.Header = append(f.Header, 1) },
		"data offset beyond header":  func(f *frame.Frame) { f.Header[34+12] = 0xf0 },
		"data offset too small":      func(f *frame.Frame) { f.Header[34+12] = 0x40 },
		"transport before IPv4 ends": func(f *frame.Frame) { f.Header[14] = 0x46 },
		"checksum start too small":   func(f *frame.Frame) { f.ChecksumStart = 20 },
		"checksum start beyond":      func(f *frame.Frame) { f.ChecksumStart = 60000 },
		"UDP's checksum field":       func(f *frame.Frame) { f.ChecksumOffset = 6 },
		"more than IP can hold":      func(f *frame.Frame) { f.Payload[1] = make([]byte, 65536) },
	} {
		t.Run(name, func(t *testing.T) {
			f := spec{payload: pattern(300), flags: flagACK}.super(100)
			change(&f)
			var s Splitter
			if s.Start(&f) || s.Next() != nil {
				t.Error("accepted")
			}
		})
	}
}

func TestFinishSendsComputedZeroAsOnesInUDP(t *testing.T) {
	// One payload word makes the sum come out as 0xffff, its complement as 0.
	f := spec{udp: true, payload: []byte{0, 0}}.build()
	g := f
	g.Header = bytes.Clone(f.Header)
	Finish(&g)
	copy(f.Payload[1], g.Header[34+6:34+8])
	if !Finish(&f) || f.NeedsChecksum {
		t.Fatal("not finished")
	}
	if got := binary.BigEndian.Uint16(f.Header[34+6:]); got != 0xffff {
		t.Errorf("checksum %#x, want 0xffff", got)
	}
}

func TestFinishRefusesFieldOutsideHeader(t *testing.T) {
	f := spec{payload: pattern(100)}.build()
	f.ChecksumOffset = 19
	if Finish(&f) {
		t.Error("field half outside the header accepted")
	}
}

func FuzzSplit(f *testing.F) {
	add := func(s spec, size uint16) {
		g := s.super(size)
		f.Add(g.Header, uint16(len(s.payload)), uint16(0), byte(g.GSOType), size, g.ChecksumStart, g.ChecksumOffset, g.HeaderLen)
	}
	add(spec{payload: pattern(3000), flags: 0x10}, 1448)
	add(spec{payload: pattern(3000), udp: true, v6: true}, 1000)
	add(spec{payload: pattern(3000), v6: true, extIPv6: true}, 1000)
	f.Fuzz(func(t *testing.T, header []byte, n, parted uint16, kind byte, size, start, field, headerLen uint16) {
		payload := pattern(int(n))
		g := frame.Frame{Header: bytes.Clone(header)}
		parted = min(parted, n)
		g.Payload = [2][]byte{payload[:parted], payload[parted:]}
		g.Offload = frame.Offload{
			NeedsChecksum: true, GSOType: frame.GSOType(kind), GSOSize: size,
			ChecksumStart: start, ChecksumOffset: field, HeaderLen: headerLen,
		}
		var joined []byte
		for _, b := range splitAll(&g) {
			if len(b) > int(headerLen)+int(size) {
				t.Fatalf("segment of %d bytes, more than %d and headers of %d", len(b), size, headerLen)
			}
			joined = append(joined, b[headerLen:]...)
		}
		if joined != nil && !bytes.Equal(joined, payload) {
			t.Fatal("payload differs")
		}
	})
}
