package dhcp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

// checkPool holds a pool to its invariants: the maps and the leases tell the
// same, and nothing has grown.
func checkPool(t *testing.T, p *pool, size int) {
	t.Helper()
	if len(p.leases) != size || len(p.byAddr) != size || len(p.byKey) > size {
		t.Fatalf("%d leases, %d addresses, %d keys; the range has %d", len(p.leases), len(p.byAddr), len(p.byKey), size)
	}
	held := 0
	for i := range p.leases {
		l := &p.leases[i]
		if l.key == "" {
			continue
		}
		held++
		if j, ok := p.byKey[l.key]; !ok || j != i {
			t.Fatalf("lease %v is of a client that is known for another", l.addr)
		}
	}
	if held != len(p.byKey) {
		t.Fatalf("%d leases with clients, %d clients", held, len(p.byKey))
	}
}

func small(c *Config) {
	c.IPv4.Range = Range{ip("10.0.2.99"), ip("10.0.2.102")}
	c.IPv6.Range = Range{ip("fd00::99"), ip("fd00::9c")}
}

// FuzzRespond4 sends two requests several times over. No reply may be longer
// than the client takes or give away an address that is not a client's, and no
// two clients may be told the same. No request may cost more than checkCost
// allows.
func FuzzRespond4(f *testing.F) {
	for _, a := range []ask{
		{kind: discover4, mac: alice, id: "\x01x", list: []byte{1, 3, 119}}, {kind: request4, mac: bob, requested: "10.0.2.100", server: "10.0.2.2"},
		{kind: request4, mac: alice, ciaddr: "10.0.2.100"}, {kind: request4, mac: alice, requested: "10.0.2.101"},
		{kind: release4, mac: alice, ciaddr: "10.0.2.100"}, {kind: decline4, mac: bob, requested: "10.0.2.101", server: "10.0.2.2"},
		{kind: inform4, mac: alice, ciaddr: "10.0.2.7", more: []byte{optOverload, 1, 3}}, {kind: discover4, mac: bob, giaddr: "10.0.2.9", more: []byte{82, 2, 1, 0, 57, 2, 5, 0}},
	} {
		f.Add(a.bytes(), ask{kind: discover4, mac: bob}.bytes())
	}
	for _, h := range hostileRequests() {
		if h.ipv4() {
			f.Add(h.request, ask{kind: request4, mac: alice, ciaddr: "10.0.2.100"}.bytes())
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		l := newLab(t, small)
		size := len(l.pool4.leases)
		checkCost(t, 5, func() {
			for i, b := range [][]byte{first, second, second, first, second} {
				r, ok := l.Respond4(b, l.now)
				checkPool(t, &l.pool4, size)
				l.pass(time.Duration(i) * 25 * time.Minute)
				if !ok {
					continue
				}
				if _, good := readWire4(r.Payload); !good || len(r.Payload) > 1500-udpIPv4 {
					t.Fatalf("bad reply %x", r.Payload)
				}
				yours := netip.AddrFrom4([4]byte(r.Payload[at4Your:]))
				if !yours.IsUnspecified() && l.pool4.at(yours) == nil {
					t.Fatalf("gave %v away", yours)
				}
				if !r.To.Addr().Is4() || r.To.Addr() != Broadcast4 && !l.cfg.IPv4.isHost(r.To.Addr()) || r.Station.IsMulticast() && !r.Station.IsBroadcast() {
					t.Fatalf("reply goes to %v at %v", r.To, r.Station)
				}
			}
		})
	})
}

// FuzzRespond6 does the same for DHCPv6.
func FuzzRespond6(f *testing.F) {
	for _, kind := range []byte{solicit6, request6, confirm6, renew6, rebind6, release6, decline6, informationRequest6} {
		for _, server := range []string{"", ourDUID} {
			f.Add(ask6(kind, aliceDUID, server, na("eth0", "fd00::100"), []byte{0, 6, 0, 4, 0, 23, 0, 24}),
				ask6(request6, bobDUID, ourDUID, na("eth0"), []byte{0, 14, 0, 0}))
		}
	}
	for _, h := range hostileRequests() {
		if !h.ipv4() {
			f.Add(h.request, ask6(renew6, aliceDUID, ourDUID, na("eth0", "fd00::100")))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		l := newLab(t, small)
		size := len(l.pool6.leases)
		checkCost(t, 5, func() {
			for i, b := range [][]byte{first, second, second, first, second} {
				mac := []header.MAC{alice, bob}[i%2]
				r, ok := l.Respond6(b, aliceLL, mac, l.now)
				checkPool(t, &l.pool6, size)
				l.pass(time.Duration(i) * 25 * time.Minute)
				if !ok {
					continue
				}
				if len(r.Payload) > 2*MaxMessage {
					t.Fatalf("%d bytes in reply to %d", len(r.Payload), len(b))
				}
				checkGiven6(t, l, r.Payload)
			}
		})
	})
}

// checkGiven6 reads a reply, and looks up every address that it gives.
func checkGiven6(t *testing.T, l *lab, b []byte) {
	t.Helper()
	good := eachOption6(b[4:], func(code uint16, data []byte) bool {
		if code != opt6IANA {
			return true
		}
		return eachOption6(data[iaFixed:], func(code uint16, data []byte) bool {
			if code == opt6Address && binary.BigEndian.Uint32(data[20:]) != 0 {
				if a := netip.AddrFrom16([16]byte(data)); l.pool6.at(a) == nil {
					t.Fatalf("gave %v away", a)
				}
			}
			return true
		})
	})
	if !good {
		t.Fatalf("bad reply %x", b)
	}
}
