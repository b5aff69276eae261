package header

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// Frames that Linux 6.18 sent. On loopback the kernel leaves TCP and UDP
// checksums to be completed by whoever sends the frame on; the others are whole.
const (
	vectorARPRequest = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 0a000264 000000000000 0a000202"
	vectorSYN4       = "000000000000 000000000000 0800" +
		"4500003c71a140004006cb187f0000017f000001" +
		"9690cea76347313d00000000a002ffd7fe300000 0204ffd7 0402 080ade5f6aab00000000 01 03030a"
	vectorData4 = "000000000000 000000000000 0800" +
		"4500003971a340004006cb197f0000017f000001" +
		"9690cea76347313e8fd15a2980180040fe2d0000 0101080ade5f6aab8a6d3f71 68656c6c6f"
	vectorUDP4             = "000000000000000000000000 0800 4500001f94cb40004011a8007f0000017f000001 b50d0009000bfe1e 616263"
	vectorPortUnreachable4 = "000000000000000000000000 0800 45c0003bb34a00004001c8b57f0000017f000001" +
		"0303855900000000 4500001f94cb40004011a8007f0000017f000001 b50d0009000bfe1e616263"
	vectorEcho4 = "000000000000000000000000 0800 45000024b34c40004001898a7f0000017f000001 08002e3712340001 70696e6764617461"
	vectorSYN6  = "000000000000000000000000 86dd 600b881500280640" +
		"00000000000000000000000000000001 00000000000000000000000000000001" +
		"bc12c4b97a00b31300000000a002ffc400300000 0204ffc4 0402 080ab2a0583a00000000 01 03030a"
	vectorUDP6 = "000000000000000000000000 86dd 60007e77000b1140" +
		"00000000000000000000000000000001 00000000000000000000000000000001 b6180009000b001e 616263"
	vectorPortUnreachable6 = "000000000000000000000000 86dd 60003f7c003b3a40" +
		"00000000000000000000000000000001 00000000000000000000000000000001 0104941200000000" +
		"60007e77000b1140 00000000000000000000000000000001 00000000000000000000000000000001 b6180009000b001e616263"
	vectorEcho6 = "000000000000000000000000 86dd 6009093300103a40" +
		"00000000000000000000000000000001 00000000000000000000000000000001 8000b5ea12340001 70696e6764617461"
	vectorSolicitation = "3333ff000002 02000000000a 86dd 6000000000203aff" +
		"fd000000000000000000000000000100 ff0200000000000000000001ff000002" +
		"87007c8f00000000 fd000000000000000000000000000002 0101 02000000000a"
	vectorDuplicateDetection = "3333ff00000a 02000000000a 86dd 6000000000203aff" +
		"00000000000000000000000000000000 ff0200000000000000000001ff00000a" +
		"8700a22a00000000 fe80000000000000000000fffe00000a 0e01 f3b5f757e1d1"
	vectorRouterSolicitation = "333300000002 02000000000a 86dd 6000000000103aff" +
		"fe80000000000000000000fffe00000a ff020000000000000000000000000002 85007b1a00000000 0101 02000000000a"
	vectorMulticastReport = "333300000016 02000000000b 86dd 6000000000240001" +
		"00000000000000000000000000000000 ff020000000000000000000000000016" +
		"3a00 05020000 0100 8f006f7f00000001 04000000 ff0200000000000000000001ff00000b"
)

// unhex is the bytes of s, in which blanks are for the reader.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packet4 and packet6 take a vector apart down to the transport.
func packet4(t testing.TB, vector string) (IPv4, []byte) {
	t.Helper()
	e, payload, ok := ParseEthernet(unhex(t, vector))
	if !ok || e.Type() != EtherTypeIPv4 {
		t.Fatalf("not an IPv4 frame: %v", e)
	}
	h, transport, ok := ParseIPv4(payload)
	if !ok {
		t.Fatal("IPv4 header refused")
	}
	return h, transport
}

func packet6(t testing.TB, vector string) (IPv6, []byte) {
	t.Helper()
	e, payload, ok := ParseEthernet(unhex(t, vector))
	if !ok || e.Type() != EtherTypeIPv6 {
		t.Fatalf("not an IPv6 frame: %v", e)
	}
	h, rest, ok := ParseIPv6(payload)
	if !ok {
		t.Fatal("IPv6 header refused")
	}
	return h, rest
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// everyPrefixRefused checks that parse accepts b and no shorter part of it.
func everyPrefixRefused(t *testing.T, b []byte, parse func([]byte) bool) {
	t.Helper()
	if !parse(b) {
		t.Fatalf("refused in full: %x", b)
	}
	for n := range len(b) {
		if parse(b[:n:n]) {
			t.Errorf("accepted when cut to %d of %d bytes", n, len(b))
		}
	}
}
