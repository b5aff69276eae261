package header

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

func icmp6(t testing.TB, vector string) (IPv6, ICMPv6) {
	t.Helper()
	h, b := packet6(t, vector)
	m, _, ok := ParseICMPv6(b)
	if !ok || !m.ChecksumValid(h.Source(), h.Destination()) || h.HopLimit() != NDPHopLimit {
		t.Fatalf("%+v", h.Fields())
	}
	return h, m
}

func TestNeighborSolicitationOfLinux(t *testing.T) {
	h, m := icmp6(t, vectorSolicitation)
	ns, options, ok := ParseNeighborSolicitation(m)
	if !ok || ns.Target() != addr("fd00::2") || SolicitedNode(ns.Target()) != h.Destination() {
		t.Fatalf("%v, target %v", ok, ns.Target())
	}
	link, ok := options.LinkAddress(NDPSourceLinkAddress)
	if !ok || link != (MAC{2, 0, 0, 0, 0, 10}) {
		t.Errorf("source link address %v %v", link, ok)
	}
	if _, ok := options.LinkAddress(NDPTargetLinkAddress); ok {
		t.Error("a target link address where there is none")
	}
	f := NeighborFields{Target: ns.Target(), LinkAddress: link}
	out := bytes.Repeat([]byte{0xee}, 100)
	if n := PutNeighborSolicitation(out, &f, h.Source(), h.Destination()); n != f.Len() || !bytes.Equal(out[:n], m) {
		t.Errorf("emitted %x, the kernel %x", out[:n], []byte(m))
	}
	everyPrefixRefusedBut(t, m, neighborSolicitLen, func(m ICMPv6) bool { _, _, ok := ParseNeighborSolicitation(m); return ok })
}

// everyPrefixRefusedBut is everyPrefixRefused for a message that is whole
// without its options too.
func everyPrefixRefusedBut(t *testing.T, m ICMPv6, bare int, parse func(ICMPv6) bool) {
	t.Helper()
	for n := ICMPLen; n <= len(m); n++ {
		if want := n == bare || n == len(m); parse(m[:n:n]) != want {
			t.Errorf("cut to %d of %d bytes: accepted %v, want %v", n, len(m), !want, want)
		}
	}
}

func TestDuplicateAddressDetectionOfLinuxHasANonceAndNoLinkAddress(t *testing.T) {
	h, m := icmp6(t, vectorDuplicateDetection)
	ns, options, ok := ParseNeighborSolicitation(m)
	if !ok || !h.Source().IsUnspecified() || ns.Target() != LinkLocalAddress(MAC{2, 0, 0, 0, 0, 10}) {
		t.Fatalf("%v, target %v", ok, ns.Target())
	}
	if _, ok := options.LinkAddress(NDPSourceLinkAddress); ok {
		t.Error("a source link address where there is none")
	}
	nonce, ok := options.Nonce()
	if !ok {
		t.Fatal("no nonce")
	}
	f := NeighborFields{Target: ns.Target(), Nonce: nonce}
	out := bytes.Repeat([]byte{0xee}, 100)
	if n := PutNeighborSolicitation(out, &f, h.Source(), h.Destination()); n != f.Len() || !bytes.Equal(out[:n], m) {
		t.Errorf("emitted %x, the kernel %x", out[:n], []byte(m))
	}
	if _, ok := (NDPOptions{[]byte{NDPNonce, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}}).Nonce(); ok {
		t.Error("took a part of a longer nonce")
	}
	kind, data, ok := options.Next()
	if kind != NDPNonce || len(data) != 6 || !ok {
		t.Errorf("option %d of %d bytes", kind, len(data))
	}
}

func TestRouterSolicitationOfLinux(t *testing.T) {
	h, m := icmp6(t, vectorRouterSolicitation)
	options, ok := ParseRouterSolicitation(m)
	link, hasLink := options.LinkAddress(NDPSourceLinkAddress)
	if !ok || !hasLink || link != (MAC{2, 0, 0, 0, 0, 10}) || h.Destination() != AllRouters || h.Source() != LinkLocalAddress(link) {
		t.Fatalf("%v, %v", ok, link)
	}
	out := bytes.Repeat([]byte{0xee}, 100)
	if n := PutRouterSolicitation(out, link, h.Source(), h.Destination()); !bytes.Equal(out[:n], m) {
		t.Errorf("emitted %x, the kernel %x", out[:n], []byte(m))
	}
	if n := PutRouterSolicitation(out, MAC{}, addr("::"), AllRouters); n != 8 || !ICMPv6(out[:n]).ChecksumValid(addr("::"), AllRouters) {
		t.Errorf("without address: %x", out[:n])
	}
	everyPrefixRefusedBut(t, m, routerSolicitLen, func(m ICMPv6) bool { _, ok := ParseRouterSolicitation(m); return ok })
}

func TestNeighborAdvertisementRoundTrip(t *testing.T) {
	src, dst := addr("fd00::2"), addr("fd00::100")
	for bits := range 16 {
		f := NeighborFields{Target: src, Router: bits&1 != 0, Solicited: bits&2 != 0, Override: bits&4 != 0}
		if bits&8 != 0 {
			f.LinkAddress = MAC{2, 0, 0, 0, 0, 1}
		}
		out := bytes.Repeat([]byte{0xee}, 100)
		m := ICMPv6(out[:PutNeighborAdvertisement(out, &f, src, dst)])
		na, options, ok := ParseNeighborAdvertisement(m)
		if !ok || len(m) != f.Len() || !m.ChecksumValid(src, dst) {
			t.Fatalf("%+v: %x", f, []byte(m))
		}
		link, _ := options.LinkAddress(NDPTargetLinkAddress)
		got := NeighborFields{Target: na.Target(), LinkAddress: link, Router: na.Router(), Solicited: na.Solicited(), Override: na.Override()}
		if got != f {
			t.Errorf("%+v came back as %+v", f, got)
		}
		if _, _, ok := ParseNeighborSolicitation(m); ok {
			t.Error("taken for a solicitation")
		}
	}
}

func TestNDPMessagesOutOfFormAreRefused(t *testing.T) {
	_, good := icmp6(t, vectorSolicitation)
	for name, change := range map[string]func(m ICMPv6){
		"code 1":                  func(m ICMPv6) { m[1] = 1 },
		"multicast target":        func(m ICMPv6) { m[8] = 0xff },
		"option of length 0":      func(m ICMPv6) { m[25] = 0 },
		"option past the end":     func(m ICMPv6) { m[25] = 2 },
		"option of length 255":    func(m ICMPv6) { m[25] = 255 },
		"another type of message": func(m ICMPv6) { m[0] = ICMPv6NeighborAdvertisement },
	} {
		m := bytes.Clone(good)
		change(m)
		if _, _, ok := ParseNeighborSolicitation(m); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLinkAddressOfOtherThanEthernetIsPassedOver(t *testing.T) {
	o := NDPOptions{cat([]byte{1, 2}, make([]byte, 14), []byte{1, 1, 2, 0, 0, 0, 0, 9})}
	if m, ok := o.LinkAddress(NDPSourceLinkAddress); !ok || m != (MAC{2, 0, 0, 0, 0, 9}) {
		t.Errorf("%v %v", m, ok)
	}
}

func TestRouterAdvertisementRoundTrip(t *testing.T) {
	src, dst := addr("fe80::1"), AllNodes
	f := RouterAdvertisementFields{
		HopLimit: 64, Managed: true, OtherConfig: true, Lifetime: 1800 * time.Second,
		ReachableTime: 30 * time.Second, RetransTimer: 1500 * time.Millisecond,
		Prefix: PrefixInformation{Prefix: netip.MustParsePrefix("fd00::/64"), OnLink: true, Autonomous: true,
			Valid: InfiniteLifetime, Preferred: 4 * time.Hour},
		MTU: 1500, DNSServers: []netip.Addr{addr("fd00::3"), addr("fd00::4")}, DNSLifetime: time.Hour,
		LinkAddress: MAC{2, 0, 0, 0, 0, 1},
	}
	out := bytes.Repeat([]byte{0xee}, 200)
	n := PutRouterAdvertisement(out, &f, src, dst)
	m := ICMPv6(out[:n])
	if n != f.Len() || out[n] != 0xee || !m.ChecksumValid(src, dst) {
		t.Fatalf("%d bytes, Len %d", n, f.Len())
	}
	ra, options, ok := ParseRouterAdvertisement(m)
	if !ok || ra.HopLimit() != 64 || !ra.Managed() || !ra.OtherConfig() || ra.Lifetime() != f.Lifetime ||
		ra.ReachableTime() != f.ReachableTime || ra.RetransTimer() != f.RetransTimer {
		t.Errorf("%v %x", ok, []byte(ra))
	}
	if link, ok := options.LinkAddress(NDPSourceLinkAddress); !ok || link != f.LinkAddress {
		t.Errorf("link address %v", link)
	}
	var kinds []uint8
	for {
		kind, data, ok := options.Next()
		if !ok {
			break
		}
		kinds = append(kinds, kind)
		switch kind {
		case NDPPrefixInformation:
			if p, ok := ParsePrefixInformation(data); !ok || p != f.Prefix {
				t.Errorf("prefix %+v, want %+v", p, f.Prefix)
			}
		case NDPMTU:
			if mtu, ok := ParseMTUOption(data); !ok || mtu != 1500 {
				t.Errorf("MTU %d", mtu)
			}
		case NDPRDNSS:
			o, ok := ParseRDNSS(data)
			if !ok || o.Len() != 2 || o.Lifetime() != time.Hour || o.Server(0) != f.DNSServers[0] || o.Server(1) != f.DNSServers[1] {
				t.Errorf("servers %x", data)
			}
		}
	}
	if !bytes.Equal(kinds, []byte{NDPSourceLinkAddress, NDPPrefixInformation, NDPMTU, NDPRDNSS}) {
		t.Errorf("options %v", kinds)
	}

	bare := RouterAdvertisementFields{}
	m = ICMPv6(out[:PutRouterAdvertisement(out, &bare, src, dst)])
	if ra, options, ok := ParseRouterAdvertisement(m); !ok || len(options.rest) != 0 || ra.Lifetime() != 0 || ra.Managed() || ra.OtherConfig() {
		t.Errorf("bare: %v %x", ok, []byte(m))
	}
}

func TestLifetimesAreClampedToTheirFields(t *testing.T) {
	f := RouterAdvertisementFields{Lifetime: 1 << 62, ReachableTime: 1 << 62, RetransTimer: -1}
	out := make([]byte, 100)
	ra, _, ok := ParseRouterAdvertisement(out[:PutRouterAdvertisement(out, &f, addr("fe80::1"), AllNodes)])
	if !ok || ra.Lifetime() != 65535*time.Second || ra.ReachableTime() != 0xffffffff*time.Millisecond || ra.RetransTimer() != 0 || ra.HopLimit() != 0 {
		t.Errorf("%v %v %v", ra.Lifetime(), ra.ReachableTime(), ra.RetransTimer())
	}
}

func TestOptionsOfWrongLengthAreRefused(t *testing.T) {
	for n := range 64 {
		data := make([]byte, n)
		if _, ok := ParsePrefixInformation(data); ok != (n == 30) {
			t.Errorf("prefix information of %d bytes: %v", n, ok)
		}
		if _, ok := ParseMTUOption(data); ok != (n == 6) {
			t.Errorf("MTU of %d bytes: %v", n, ok)
		}
		if _, ok := ParseRDNSS(data); ok != (n == 22 || n == 38 || n == 54) {
			t.Errorf("servers of %d bytes: %v", n, ok)
		}
	}
	long := make([]byte, 30)
	long[0] = 129
	if _, ok := ParsePrefixInformation(long); ok {
		t.Error("a prefix of 129 bits")
	}
}

func TestRedirect(t *testing.T) {
	b := make([]byte, redirectLen)
	copy(b[8:], addr("fe80::9").AsSlice())
	copy(b[24:], addr("2001:db8::1").AsSlice())
	PutICMPv6(b, ICMPFields{Type: ICMPv6Redirect}, addr("fe80::1"), addr("fd00::2"), b[ICMPLen:])
	r, _, ok := ParseRedirect(b)
	if !ok || r.Target() != addr("fe80::9") || r.Destination() != addr("2001:db8::1") {
		t.Errorf("%v %x", ok, []byte(r))
	}
	if _, _, ok := ParseRedirect(b[:redirectLen-1]); ok {
		t.Error("accepted when cut")
	}
}

func FuzzNDP(f *testing.F) {
	for _, v := range []string{vectorSolicitation, vectorDuplicateDetection, vectorRouterSolicitation} {
		f.Add(unhex(f, v)[54:])
	}
	ra := make([]byte, 200)
	fields := RouterAdvertisementFields{MTU: 1500, DNSServers: []netip.Addr{addr("fd00::3")}, LinkAddress: MAC{2},
		Prefix: PrefixInformation{Prefix: netip.MustParsePrefix("fd00::/64")}}
	f.Add(ra[:PutRouterAdvertisement(ra, &fields, addr("fe80::1"), AllNodes)])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, ok := ParseICMPv6(b)
		if !ok {
			return
		}
		src, dst := addr("fe80::1"), AllNodes
		out := make([]byte, 64)
		walk := func(options NDPOptions) {
			total := 0
			for copied := options; ; {
				kind, data, ok := copied.Next()
				if !ok {
					break
				}
				total += 2 + len(data)
				switch kind {
				case NDPNonce:
					if _, ok := options.Nonce(); len(data) == NonceLen && !ok {
						t.Fatalf("nonce %x is not found", data)
					}
				case NDPPrefixInformation:
					if p, ok := ParsePrefixInformation(data); ok && !p.Prefix.IsValid() {
						t.Fatalf("prefix %v", p.Prefix)
					}
				case NDPMTU:
					ParseMTUOption(data)
				case NDPRDNSS:
					if o, ok := ParseRDNSS(data); ok {
						o.Lifetime()
						o.Server(o.Len() - 1)
					}
				}
			}
			if total != len(options.rest) {
				t.Fatalf("options of %d bytes, walked over %d", len(options.rest), total)
			}
		}
		if options, ok := ParseRouterSolicitation(m); ok {
			walk(options)
		}
		if h, options, ok := ParseNeighborSolicitation(m); ok {
			walk(options)
			link, _ := options.LinkAddress(NDPSourceLinkAddress)
			f := NeighborFields{Target: h.Target(), LinkAddress: link}
			back, _, ok := ParseNeighborSolicitation(out[:PutNeighborSolicitation(out, &f, src, dst)])
			if !ok || back.Target() != h.Target() {
				t.Fatalf("%v came back as %v", h.Target(), back.Target())
			}
		}
		if h, options, ok := ParseNeighborAdvertisement(m); ok {
			walk(options)
			f := NeighborFields{Target: h.Target(), Router: h.Router(), Solicited: h.Solicited(), Override: h.Override()}
			back, _, ok := ParseNeighborAdvertisement(out[:PutNeighborAdvertisement(out, &f, src, dst)])
			if !ok || back.Target() != h.Target() || back.Router() != h.Router() || back.Solicited() != h.Solicited() || back.Override() != h.Override() {
				t.Fatalf("%x came back as %x", []byte(h), []byte(back))
			}
		}
		if h, options, ok := ParseRouterAdvertisement(m); ok {
			walk(options)
			f := RouterAdvertisementFields{HopLimit: h.HopLimit(), Managed: h.Managed(), OtherConfig: h.OtherConfig(),
				Lifetime: h.Lifetime(), ReachableTime: h.ReachableTime(), RetransTimer: h.RetransTimer()}
			back, _, ok := ParseRouterAdvertisement(out[:PutRouterAdvertisement(out, &f, src, dst)])
			if !ok || back.HopLimit() != h.HopLimit() || back.Managed() != h.Managed() || back.OtherConfig() != h.OtherConfig() ||
				!bytes.Equal(back[6:], h[6:]) {
				t.Fatalf("%x came back as %x", []byte(h), []byte(back))
			}
		}
		if h, options, ok := ParseRedirect(m); ok {
			walk(options)
			h.Target()
			h.Destination()
		}
	})
}
