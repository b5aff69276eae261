package header

import (
	"bytes"
	"testing"
)

func TestTCPOptionsOfHostilePeers(t *testing.T) {
	ts := []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	withTS := func(b ...byte) []byte { return append(b, ts...) }
	onlyTS := TCPOptions{Timestamp: true, TSVal: 1, TSEcr: 2}
	for _, c := range []struct {
		name string
		b    []byte
		want TCPOptions
	}{
		{"none", nil, TCPOptions{}},
		{"usual layout", withTS(1, 1), onlyTS},
		{"timestamp first", append(withTS(), 1, 1), onlyTS},
		{"timestamp behind one nop", append(withTS(1), 0), onlyTS},
		{"unknown kinds skipped", withTS(254, 4, 9, 9, 30, 2, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8), onlyTS},
		{"end stops", withTS(0, 1), TCPOptions{}},
		{"length 0 stops", withTS(254, 0), TCPOptions{}},
		{"length 1 stops", withTS(254, 1), TCPOptions{}},
		{"length past the end stops", []byte{2, 4, 5, 0xb4, 254, 10, 1, 1}, TCPOptions{HasMSS: true, MSS: 1460}},
		{"kind without length", []byte{1, 1, 1, 2}, TCPOptions{}},
		{"MSS cut short", []byte{2, 4, 5}, TCPOptions{}},
		{"MSS of wrong length skipped", withTS(2, 3, 5), onlyTS},
		{"MSS 0 is a value", []byte{2, 4, 0, 0}, TCPOptions{HasMSS: true}},
		{"MSS twice: last", []byte{2, 4, 0, 1, 2, 4, 5, 0xb4}, TCPOptions{HasMSS: true, MSS: 1460}},
		{"window scale of wrong length", withTS(3, 4, 1, 1), onlyTS},
		{"window scale 0", []byte{3, 3, 0}, TCPOptions{HasWindowScale: true}},
		{"window scale above 14", []byte{3, 3, 255}, TCPOptions{HasWindowScale: true, WindowScale: 14}},
		{"SACK-permitted of wrong length", withTS(4, 3, 0), onlyTS},
		{"timestamp of wrong length", []byte{1, 1, 8, 9, 0, 0, 0, 1, 0, 0, 0, 2}, TCPOptions{}},
		{"SACK of no block", withTS(5, 2), onlyTS},
		{"SACK of half a block", withTS(5, 6, 1, 2, 3, 4), onlyTS},
		{"SACK of one block", []byte{1, 1, 5, 10, 0, 0, 0, 3, 0, 0, 0, 9},
			TCPOptions{NumSACK: 1, SACK: [4]SACKBlock{{3, 9}}}},
		{"SACK twice: last, nothing of the first", []byte{5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 6, 5, 10, 0, 0, 0, 3, 0, 0, 0, 9},
			TCPOptions{NumSACK: 1, SACK: [4]SACKBlock{{3, 9}}}},
	} {
		if got := ParseTCPOptions(c.b); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// More bytes than a header can hold must be as harmless.
func TestTCPOptionsTakeFourSACKBlocksAtMost(t *testing.T) {
	b := []byte{5, 2 + 6*8}
	for i := range 6 {
		b = append(b, 0, 0, 0, byte(2*i), 0, 0, 0, byte(2*i+1))
	}
	o := ParseTCPOptions(b)
	if o.NumSACK != 4 || o.SACK[3] != (SACKBlock{6, 7}) {
		t.Errorf("%+v", o)
	}
}

func TestTCPSYNOptionsLayout(t *testing.T) {
	all := TCPOptions{HasMSS: true, MSS: 1460, SACKPermitted: true, Timestamp: true, TSVal: 1, TSEcr: 2, HasWindowScale: true, WindowScale: 7}
	for bits := range 16 {
		o := TCPOptions{}
		var want []byte
		if bits&1 != 0 {
			o.HasMSS, o.MSS = true, all.MSS
			want = append(want, 2, 4, 0x05, 0xb4)
		}
		if bits&2 != 0 {
			o.SACKPermitted = true
			want = append(want, 4, 2)
		}
		if bits&4 != 0 {
			o.Timestamp, o.TSVal, o.TSEcr = true, 1, 2
			want = append(want, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2)
		}
		if bits&8 != 0 {
			o.HasWindowScale, o.WindowScale = true, 7
			want = append(want, 1, 3, 3, 7)
		}
		for len(want)%4 != 0 {
			want = append(want, 1)
		}
		b := bytes.Repeat([]byte{0xee}, TCPMaxOptionsLen)
		n := PutTCPSYNOptions(b, &o)
		if !bytes.Equal(b[:n], want) || n != o.SYNLen() {
			t.Errorf("%+v: %x (SYNLen %d), want %x", o, b[:n], o.SYNLen(), want)
		}
		if b[n] != 0xee {
			t.Errorf("%+v: wrote past the length it returned", o)
		}
		if got := ParseTCPOptions(b[:n]); got != o {
			t.Errorf("%+v came back as %+v", o, got)
		}
	}
}

func TestTCPOptionsTakeAsManySACKBlocksAsFit(t *testing.T) {
	blocks := [4]SACKBlock{{100, 200}, {300, 400}, {500, 600}, {0xfffffff0, 10}}
	for _, timestamp := range []bool{false, true} {
		for num := range 7 {
			o := TCPOptions{Timestamp: timestamp, SACK: blocks, NumSACK: num}
			fit, want := min(num, 4), 0
			if timestamp {
				o.TSVal, o.TSEcr = 0xdeadbeef, 7
				fit, want = min(num, 3), 12
			}
			if fit > 0 {
				want += 4 + 8*fit
			}
			b := bytes.Repeat([]byte{0xee}, TCPMaxOptionsLen+1)
			n := PutTCPOptions(b, &o)
			if n != want || n != o.Len() || n%4 != 0 || n > TCPMaxOptionsLen || b[n] != 0xee {
				t.Fatalf("timestamp %v, %d blocks: %d bytes, Len %d, want %d", timestamp, num, n, o.Len(), want)
			}
			back := ParseTCPOptions(b[:n])
			if back.NumSACK != fit || back.Timestamp != timestamp || back.TSVal != o.TSVal || back.TSEcr != o.TSEcr {
				t.Fatalf("%+v came back as %+v", o, back)
			}
			for i := range fit { // the first are kept: the newest
				if back.SACK[i] != blocks[i] {
					t.Fatalf("block %d is %v, want %v", i, back.SACK[i], blocks[i])
				}
			}
		}
	}
}

func TestNegativeNumSACKWritesNone(t *testing.T) {
	o := TCPOptions{NumSACK: -1}
	if n := PutTCPOptions(make([]byte, 40), &o); n != 0 || o.Len() != 0 {
		t.Errorf("%d bytes, Len %d", n, o.Len())
	}
}

func FuzzTCPOptions(f *testing.F) {
	f.Add(unhex(f, vectorSYN4)[54:])
	f.Add(unhex(f, vectorData4)[54:66])
	f.Add([]byte{1, 1, 5, 18, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0, 30})
	f.Add([]byte{3, 3, 255, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		o := ParseTCPOptions(b)
		if o.WindowScale > MaxWindowScale || uint(o.NumSACK) > MaxSACKBlocks {
			t.Fatalf("%+v", o)
		}
		var slow TCPOptions
		if slow.parse(b); slow != o {
			t.Fatalf("the fast path gives %+v, the slow one %+v", o, slow)
		}
		// What goes on a SYN comes back as it was.
		out := make([]byte, TCPMaxOptionsLen)
		syn := o
		syn.SACK, syn.NumSACK = [MaxSACKBlocks]SACKBlock{}, 0
		if n := PutTCPSYNOptions(out, &syn); n != syn.SYNLen() || ParseTCPOptions(out[:n]) != syn {
			t.Fatalf("SYN: %+v came back as %+v", syn, ParseTCPOptions(out[:n]))
		}
		// And so does what goes elsewhere, but for a fourth block.
		data := TCPOptions{Timestamp: o.Timestamp, TSVal: o.TSVal, TSEcr: o.TSEcr, SACK: o.SACK, NumSACK: o.NumSACK}
		n := PutTCPOptions(out, &data)
		if data.Timestamp && data.NumSACK == MaxSACKBlocks {
			data.NumSACK--
			data.SACK[data.NumSACK] = SACKBlock{}
		}
		if n != data.Len() || ParseTCPOptions(out[:n]) != data {
			t.Fatalf("%+v came back as %+v", data, ParseTCPOptions(out[:n]))
		}
	})
}
