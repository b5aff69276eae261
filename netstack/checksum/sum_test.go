package checksum

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// naive is RFC 1071 §1 word for word, with an accumulator too wide to overflow.
func naive(b []byte) uint16 {
	var s uint64
	for i, x := range b {
		if i%2 == 0 {
			s += uint64(x) << 8
		} else {
			s += uint64(x)
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestExampleOfRFC1071(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if s := Sum(0).Add(b); s.Fold() != 0xddf2 || s.Checksum() != 0x220d || Of(b) != 0x220d {
		t.Errorf("fold %#04x, checksum %#04x, want 0xddf2, 0x220d", s.Fold(), s.Checksum())
	}
	b = append(b, 0x22, 0x0d)
	if !Sum(0).Add(b).Valid() {
		t.Error("data with its checksum is not valid")
	}
	b[3] ^= 0x10
	if Sum(0).Add(b).Valid() {
		t.Error("damaged data is valid")
	}
}

func TestEveryLengthAgreesWithOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 700 {
		for name, b := range map[string][]byte{
			"random": randomBytes(r, n),
			"ones":   bytes.Repeat([]byte{0xff}, n), // carries everywhere
			"zeros":  make([]byte, n),
		} {
			if got, want := Sum(0).Add(b).Fold(), naive(b); got != want {
				t.Fatalf("%s, %d bytes: %#04x, want %#04x", name, n, got, want)
			}
		}
	}
	for _, n := range []int{1500, 9000, 65535} {
		for _, b := range [][]byte{randomBytes(r, n), bytes.Repeat([]byte{0xff}, n)} {
			if got, want := Sum(0).Add(b).Fold(), naive(b); got != want {
				t.Fatalf("%d bytes: %#04x, want %#04x", n, got, want)
			}
		}
	}
}

func TestPiecesOfAnyLengthSumLikeTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := randomBytes(r, 90)
	want := naive(b)
	for i := range len(b) + 1 {
		for j := i; j <= len(b); j++ {
			if got := Sum(0).Add(b[:i]).Add(b[i:j]).Add(b[j:]).Fold(); got != want {
				t.Fatalf("cut at %d and %d: %#04x, want %#04x", i, j, got, want)
			}
			joined := Sum(0).Add(b[:i]).Join(Sum(0).Add(b[i:j])).Join(Sum(0).Add(b[j:]))
			if joined.Fold() != want {
				t.Fatalf("joined at %d and %d: %#04x, want %#04x", i, j, joined.Fold(), want)
			}
		}
	}
}

func TestWordsContinueAnOddPiece(t *testing.T) {
	for n := range 4 {
		lead := []byte{9, 8, 7, 6}[:n]
		whole := append(bytes.Clone(lead), 0xab, 0xcd, 0xde, 0xad, 0xbe, 0xef, 0x01)
		got := Sum(0).Add(lead).AddUint16(0xabcd).AddUint32(0xdeadbeef).Add([]byte{0x01}).Fold()
		if want := naive(whole); got != want {
			t.Errorf("after %d bytes: %#04x, want %#04x", n, got, want)
		}
	}
}

func TestPseudoHeaders(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		length, proto := uint32(r.IntN(1<<17)), uint8(r.Uint32())
		a, b := randomBytes(r, 16), randomBytes(r, 16)

		src, dst := netip.AddrFrom16([16]byte(a)), netip.AddrFrom16([16]byte(b))
		want := append(append([]byte{}, a...), b...)
		want = binary.BigEndian.AppendUint32(want, length)
		want = append(want, 0, 0, 0, proto)
		if got := PseudoHeaderIPv6(src, dst, proto, length).Fold(); got != naive(want) {
			t.Fatalf("IPv6 %v %v %d %d: %#04x, want %#04x", src, dst, proto, length, got, naive(want))
		}
		if PseudoHeader(src, dst, proto, length) != PseudoHeaderIPv6(src, dst, proto, length) {
			t.Fatal("PseudoHeader took the wrong family for IPv6")
		}

		length &= 0xffff
		src, dst = netip.AddrFrom4([4]byte(a)), netip.AddrFrom4([4]byte(b))
		want = append(append([]byte{}, a[:4]...), b[:4]...)
		want = append(want, 0, proto, byte(length>>8), byte(length))
		if got := PseudoHeaderIPv4(src, dst, proto, length).Fold(); got != naive(want) {
			t.Fatalf("IPv4 %v %v %d %d: %#04x, want %#04x", src, dst, proto, length, got, naive(want))
		}
		if PseudoHeader(src, dst, proto, length) != PseudoHeaderIPv4(src, dst, proto, length) {
			t.Fatal("PseudoHeader took the wrong family for IPv4")
		}
	}
}

func TestPseudoHeaderOfAllOnesCarriesRound(t *testing.T) {
	ones := netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
	whole := append(bytes.Repeat([]byte{0xff}, 36), 0, 0, 0, 0xff)
	if got := PseudoHeaderIPv6(ones, ones, 0xff, 0xffffffff).Fold(); got != naive(whole) {
		t.Errorf("%#04x, want %#04x", got, naive(whole))
	}
}

func TestSummingAllocatesNothing(t *testing.T) {
	b := make([]byte, 1501)
	src, dst := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	var s Sum
	if n := testing.AllocsPerRun(100, func() {
		s = PseudoHeader(src, dst, 6, uint32(len(b))).Add(b[:3]).Add(b[3:])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s.Fold() == 0 {
		t.Error("sum of a pseudo-header is 0")
	}
}

func FuzzSumInPieces(f *testing.F) {
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Add([]byte{0xff, 0xff, 0xff}, uint16(1), uint16(2))
	f.Add(bytes.Repeat([]byte{0xff}, 300), uint16(129), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, i, j uint16) {
		cut := int(i) % (len(b) + 1)
		cut2 := cut + int(j)%(len(b)-cut+1)
		got := Sum(0).Add(b[:cut]).Add(b[cut:cut2]).Add(b[cut2:])
		if got.Fold() != naive(b) {
			t.Errorf("cut at %d and %d of %d: %#04x, want %#04x", cut, cut2, len(b), got.Fold(), naive(b))
		}
		if got.Checksum() != Of(b) {
			t.Errorf("in pieces %#04x, at once %#04x", got.Checksum(), Of(b))
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{20, 64, 256, 576, 1460, 9000, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := randomBytes(rand.New(rand.NewPCG(1, 1)), n)
			b.SetBytes(int64(n))
			var s Sum
			for b.Loop() {
				s = s.Add(data)
			}
		})
	}
}

func BenchmarkPseudoHeader(b *testing.B) {
	for _, a := range []string{"10.0.2.100", "fd00::100"} {
		addr := netip.MustParseAddr(a)
		b.Run(a, func(b *testing.B) {
			for b.Loop() {
				PseudoHeader(addr, addr, 6, 1480)
			}
		})
	}
}
