package checksum

import (
	"encoding/binary"
	"testing"
)

func TestExamplesOfRFC1624(t *testing.T) {
	// §4: the case in which RFC 1141's equation gives 0xffff.
	if got := Update16(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("%#04x, want 0x0000", got)
	}
}

func TestUpdateMatchesFullComputation(t *testing.T) {
	header := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	field := Of(header)
	if field != 0xb861 {
		t.Fatalf("checksum %#04x, want 0xb861", field)
	}
	for v := range 0x10000 {
		old := binary.BigEndian.Uint16(header[2:])
		binary.BigEndian.PutUint16(header[2:], uint16(v))
		field = Update16(field, old, uint16(v))
		if field != Of(header) {
			t.Fatalf("length %d: %#04x, want %#04x", v, field, Of(header))
		}
	}
}

func FuzzUpdateAgainstFull(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 0x73}, uint16(0), uint32(0))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1}, uint16(0), uint32(0xffffffff))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint16(2), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, v uint32) {
		if len(b) < 4 {
			return
		}
		i := int(at) % (len(b) - 3) &^ 1
		field := Of(b)

		old := binary.BigEndian.Uint32(b[i:])
		binary.BigEndian.PutUint32(b[i:], v)
		field = Update32(field, old, v)
		check(t, b, field, "Update32")

		old16 := binary.BigEndian.Uint16(b[i:])
		field = Of(b)
		binary.BigEndian.PutUint16(b[i:], uint16(v))
		check(t, b, Update16(field, old16, uint16(v)), "Update16")
	})
}

// check compares an updated field with a full computation, except on data that
// has become all zero, for which the two zeros may differ.
func check(t *testing.T, b []byte, field uint16, what string) {
	t.Helper()
	full := Of(b)
	if field == full {
		return
	}
	if full == 0xffff && field == 0 {
		for _, x := range b {
			if x != 0 {
				t.Fatalf("%s: zeros differ on data that is not zero: %x", what, b)
			}
		}
		return
	}
	t.Fatalf("%s: %#04x, full computation %#04x, of %x", what, field, full, b)
}
