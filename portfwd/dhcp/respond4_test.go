package dhcp

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

func TestOfferAndAckSayWhatTheNetworkIs(t *testing.T) {
	l := newLab(t, nil)
	o := l.send(ask{kind: discover4, mac: alice, id: "\x01alice"})
	if o == nil || o.kind != offer4 {
		t.Fatalf("no offer: %+v", o)
	}
	a := l.send(ask{kind: request4, mac: alice, id: "\x01alice", requested: o.yiaddr, server: "10.0.2.2"})
	if a == nil || a.kind != ack4 {
		t.Fatalf("no ack: %+v", a)
	}
	for _, g := range []*got4{o, a} {
		if g.yiaddr != "10.0.2.100" || g.server != ip("10.0.2.2") {
			t.Errorf("address %v from %v", g.yiaddr, g.server)
		}
		for code, want := range map[byte]string{
			optMask: "\xff\xff\xff\x00", optRouter: "\x0a\x00\x02\x02", optDNS: "\x0a\x00\x02\x03", optMTU: "\x05\xdc",
			optBroadcast: "\x0a\x00\x02\xff", optLease: "\x00\x00\x0e\x10", optRenewal: "\x00\x00\x07\x08",
			optRebinding: "\x00\x00\x0c\x4e", optClientID: "\x01alice", optHostname: "box", optDomain: "sbxnet.internal",
			optDomainSearch: "\x06sbxnet\x08internal\x00\x07example\x03org\x00",
		} {
			if string(g.options[code]) != want {
				t.Errorf("option %d is %q, want %q", code, g.options[code], want)
			}
		}
	}
}

func TestReplyGoesWhereTheClientCanReceive(t *testing.T) {
	for _, c := range []struct {
		name    string
		ask     ask
		to      string
		station header.MAC
	}{
		{"no address yet", ask{kind: discover4}, "10.0.2.100:68", alice},
		{"broadcast flag", ask{kind: discover4, broadcast: true}, "255.255.255.255:68", header.Broadcast},
		{"relay", ask{kind: discover4, giaddr: "10.0.2.50", broadcast: true}, "10.0.2.50:67", header.MAC{}},
		{"has an address", ask{kind: request4, ciaddr: "10.0.2.100"}, "10.0.2.100:68", alice},
		{"has an address, and the flag", ask{kind: request4, ciaddr: "10.0.2.100", broadcast: true}, "10.0.2.100:68", alice},
		{"refusal", ask{kind: request4, ciaddr: "10.0.9.9"}, "255.255.255.255:68", header.Broadcast},
		{"refusal through a relay", ask{kind: request4, ciaddr: "10.0.9.9", giaddr: "10.0.2.50"}, "10.0.2.50:67", header.MAC{}},
		{"inform", ask{kind: inform4, ciaddr: "10.0.2.77"}, "10.0.2.77:68", alice},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.ask.mac = alice
			g := newLab(t, nil).send(c.ask)
			if g == nil || g.To.String() != c.to || g.Station != c.station || g.From.String() != "10.0.2.2:67" {
				t.Fatalf("%+v", g)
			}
		})
	}
}

func TestRelayGetsItsInformationBackLast(t *testing.T) {
	l := newLab(t, nil)
	g := l.send(ask{kind: discover4, mac: alice, giaddr: "10.0.2.50", more: []byte{optRelay, 3, 1, 1, 7}})
	if g == nil || g.giaddr != ip("10.0.2.50") || !bytes.Contains(g.Payload, []byte{optRelay, 3, 1, 1, 7, optEnd}) {
		t.Fatalf("%+v", g)
	}
	nak := l.send(ask{kind: request4, mac: bob, giaddr: "10.0.2.50", ciaddr: "10.0.9.9"})
	if nak == nil || nak.kind != nak4 || nak.Payload[at4Flags]&0x80 == 0 {
		t.Fatalf("%+v", nak)
	}
	if g := l.send(ask{kind: discover4, mac: alice, giaddr: "192.0.2.1"}); g != nil {
		t.Fatalf("a client of another network got %v", g.yiaddr)
	}
}

func TestEveryoneGetsAnAddressOfTheirOwnAndKeepsIt(t *testing.T) {
	l := newLab(t, nil)
	for range 2 {
		for mac, want := range map[header.MAC]string{alice: "10.0.2.100"} {
			if got := l.lease4(mac, ""); got != want {
				t.Errorf("%v got %v", mac, got)
			}
		}
		if a, b := l.lease4(bob, ""), l.lease4(carol, ""); a != "10.0.2.101" || b != "10.0.2.102" {
			t.Errorf("others got %v, %v", a, b)
		}
		l.pass(2 * time.Hour) // all leases run out, and nobody else came
	}
	if st := l.Stats(); st.Leases4 != 3 {
		t.Errorf("%+v", st)
	}
}

func TestSandboxAddressIsItsOwnersAlone(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Owner = alice })
	if got := l.lease4(bob, ""); got != "10.0.2.101" {
		t.Errorf("stranger got %v", got)
	}
	if g := l.send(ask{kind: request4, mac: bob, ciaddr: "10.0.2.100"}); g == nil || g.kind != nak4 {
		t.Errorf("stranger renewed the owner's address: %+v", g)
	}
	if got := l.lease4(alice, "first"); got != "10.0.2.100" {
		t.Errorf("owner got %v", got)
	}
	if got := l.lease4(alice, "second"); got != "10.0.2.100" {
		t.Errorf("owner under another identifier got %v", got)
	}
}

func TestClientIdentifierTellsClientsApart(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Owner = carol })
	a, b := l.lease4(alice, "one"), l.lease4(alice, "two")
	if a == b {
		t.Errorf("two identifiers, one address %v", a)
	}
	if again := l.lease4(bob, "one"); again != a {
		t.Errorf("same identifier on another station: %v, was %v", again, a)
	}
}

func TestRangeCanBeMoved(t *testing.T) {
	l := newLab(t, func(c *Config) { c.IPv4.Range = Range{ip("10.0.2.15"), ip("10.0.2.30")} })
	if got := l.lease4(alice, ""); got != "10.0.2.15" {
		t.Errorf("got %v", got)
	}
	n := 1
	for i := range 200 {
		if l.lease4(header.MAC{2, 1, 0, 0, 0, byte(i)}, "") != "" {
			n++
		}
	}
	if st := l.Stats(); n != 16 || st.Exhausted != 185 || st.Leases4 != 16 {
		t.Errorf("%d addresses given; %+v", n, st)
	}
	l.pass(2 * time.Hour)
	if got := l.lease4(bob, ""); got == "" {
		t.Error("leases that ran out are not given again")
	}
}

func TestOfferExpiresAndIsNotTakenFromOthers(t *testing.T) {
	l := newLab(t, func(c *Config) { c.IPv4.Range = Range{ip("10.0.2.15"), ip("10.0.2.15")} })
	l.send(ask{kind: discover4, mac: alice})
	if g := l.send(ask{kind: discover4, mac: bob}); g != nil {
		t.Fatalf("offered twice: %v", g.yiaddr)
	}
	l.pass(offerTime)
	if g := l.send(ask{kind: discover4, mac: bob}); g == nil || g.yiaddr != "10.0.2.15" {
		t.Fatalf("%+v", g)
	}
}

func TestRequestOfAnotherServersOfferIsIgnoredAndFreesOurs(t *testing.T) {
	l := newLab(t, nil)
	l.send(ask{kind: discover4, mac: alice})
	if g := l.send(ask{kind: request4, mac: alice, requested: "10.0.2.100", server: "10.0.2.9"}); g != nil {
		t.Fatalf("%+v", g)
	}
	if st := l.Stats(); st.Leases4 != 0 || st.Ignored != 1 {
		t.Errorf("%+v", st)
	}
}

// TestRequestInEveryState goes through the table of RFC 2131 §4.3.2.
func TestRequestInEveryState(t *testing.T) {
	for _, c := range []struct {
		name  string
		known bool // alice has 10.0.2.100
		ask   ask
		want  byte // 0: silence
	}{
		{"selecting", false, ask{requested: "10.0.2.100", server: "10.0.2.2"}, ack4},
		{"selecting, other address", true, ask{requested: "10.0.2.101", server: "10.0.2.2"}, nak4},
		{"selecting, no address", true, ask{server: "10.0.2.2"}, nak4},
		{"init-reboot", true, ask{requested: "10.0.2.100"}, ack4},
		{"init-reboot, other address", true, ask{requested: "10.0.2.101"}, nak4},
		{"init-reboot, not known", false, ask{requested: "10.0.2.100"}, 0},
		{"init-reboot, other network", false, ask{requested: "192.168.1.7"}, nak4},
		{"renewing", true, ask{ciaddr: "10.0.2.100"}, ack4},
		{"renewing, other address", true, ask{ciaddr: "10.0.2.101"}, nak4},
		{"renewing, not known, free", false, ask{ciaddr: "10.0.2.105"}, ack4},
		{"renewing, other network", false, ask{ciaddr: "192.168.1.7"}, nak4},
		{"renewing, the gateway's", false, ask{ciaddr: "10.0.2.2"}, nak4},
		{"nothing", true, ask{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			if c.known {
				l.lease4(alice, "")
			}
			c.ask.kind, c.ask.mac = request4, alice
			g := l.send(c.ask)
			switch {
			case g == nil:
				if c.want != 0 {
					t.Fatal("silence")
				}
			case g.kind != c.want:
				t.Fatalf("answered %d, want %d", g.kind, c.want)
			case g.kind == nak4 && (g.yiaddr != "0.0.0.0" || g.options[optLease] != nil):
				t.Fatalf("refusal gives an address: %+v", g)
			}
		})
	}
}

func TestReleaseFreesAndRemembers(t *testing.T) {
	l := newLab(t, nil)
	l.lease4(alice, "")
	l.lease4(bob, "")
	release := func(mac header.MAC, a string) {
		if g := l.send(ask{kind: release4, mac: mac, ciaddr: a, server: "10.0.2.2"}); g != nil {
			t.Errorf("release was answered: %+v", g)
		}
	}
	release(carol, "10.0.2.101") // not hers
	release(bob, "10.0.2.100")   // not his
	if n := l.Stats().Leases4; n != 2 {
		t.Fatalf("%d leases", n)
	}
	release(bob, "10.0.2.101")
	if n := l.Stats().Leases4; n != 1 {
		t.Fatalf("%d leases", n)
	}
	if a, b := l.lease4(carol, ""), l.lease4(bob, ""); a != "10.0.2.102" || b != "10.0.2.101" {
		t.Errorf("carol has %v, bob %v", a, b)
	}
}

func TestDeclinedAddressIsLeftAlone(t *testing.T) {
	l := newLab(t, nil)
	l.lease4(alice, "")
	decline := func(mac header.MAC) {
		l.send(ask{kind: decline4, mac: mac, requested: "10.0.2.100", server: "10.0.2.2"})
	}
	decline(bob) // not his to decline
	if n := l.Stats().Declined; n != 0 {
		t.Fatal("declined by a stranger")
	}
	decline(alice)
	if got := l.lease4(alice, ""); got != "10.0.2.101" || l.Stats().Declined != 1 {
		t.Errorf("after declining: %v", got)
	}
	l.pass(2 * time.Hour)
	if got := l.lease4(bob, ""); got == "" {
		t.Error("no address")
	}
}

func TestInformGetsParametersWithoutLease(t *testing.T) {
	l := newLab(t, nil)
	g := l.send(ask{kind: inform4, mac: alice, ciaddr: "10.0.2.77"})
	if g == nil || g.kind != ack4 || g.yiaddr != "0.0.0.0" || g.options[optLease] != nil || g.options[optDNS] == nil {
		t.Fatalf("%+v", g)
	}
	if l.Stats().Leases4 != 0 || l.send(ask{kind: inform4, mac: alice, ciaddr: "192.0.2.1"}) != nil {
		t.Fatal("an address was taken, or a stranger answered")
	}
}

func TestOnlyWhatIsAskedForBeyondTheNecessary(t *testing.T) {
	g := newLab(t, nil).send(ask{kind: discover4, mac: alice, list: []byte{optMask, optDomain}})
	if g.options[optDomain] == nil || g.options[optDomainSearch] != nil || g.options[optHostname] != nil {
		t.Fatalf("%v", g.options)
	}
	if g.options[optRouter] == nil || g.options[optMTU] == nil {
		t.Fatal("necessary options are missing")
	}
}

func TestReplyFitsTheClientsBuffer(t *testing.T) {
	var long []string
	for i := range 40 {
		long = append(long, fmt.Sprintf("department%02d.example.org", i))
	}
	l := newLab(t, func(c *Config) { c.Search = long })
	small := l.send(ask{kind: discover4, mac: alice})
	if len(small.Payload) > 548 || small.options[optDomainSearch] != nil {
		t.Errorf("%d bytes for a client that takes 576", len(small.Payload))
	}
	big := l.send(ask{kind: discover4, mac: alice, more: []byte{optMaxSize, 2, 0x05, 0xdc}})
	if !bytes.Equal(big.options[optDomainSearch], l.domains.ToBytes()) || len(big.Payload) > 1472 {
		t.Errorf("%d bytes; the search list of %d bytes came as %d", len(big.Payload), l.domains.Length(), len(big.options[optDomainSearch]))
	}
}

func TestOptionsInFileAndServerName(t *testing.T) {
	b := ask{kind: discover4, mac: bob, more: []byte{optOverload, 1, 3}}.bytes()
	copy(b[at4File:], []byte{optRequested, 4, 10, 0, 2, 150, optEnd})
	copy(b[at4ServerName:], []byte{optClientID, 3, 0, 'b', 'o', optEnd})
	l := newLab(t, func(c *Config) { c.Owner = alice })
	r, ok := l.Respond4(b, 0)
	if !ok {
		t.Fatal("no reply")
	}
	if g := l.read(r); g.yiaddr != "10.0.2.150" || string(g.identifier) != "\x00bo" {
		t.Fatalf("%v for %q", g.yiaddr, g.identifier)
	}
}

func TestMalformedDHCPv4IsDroppedAndCounted(t *testing.T) {
	good := ask{kind: discover4, mac: alice}
	cases := map[string][]byte{
		"empty":               {},
		"short":               good.bytes()[:at4Options-1],
		"long":                append(good.bytes(), make([]byte, MaxMessage)...),
		"a reply":             ask{kind: discover4, mac: alice, replyOpcode: true}.bytes(),
		"no type":             ask{mac: alice, noType: true}.bytes(),
		"other cookie":        ask{kind: discover4, mac: alice, badCookie: true}.bytes(),
		"hardware length":     ask{kind: discover4, mac: alice, badHardware: true}.bytes(),
		"group station":       ask{kind: discover4, mac: header.Broadcast}.bytes(),
		"no station":          ask{kind: discover4}.bytes(),
		"option past the end": ask{kind: discover4, mac: alice, more: []byte{12, 200, 'x'}}.bytes(),
		"address of 3 bytes":  ask{kind: discover4, mac: alice, more: []byte{optRequested, 3, 1, 2, 3}}.bytes(),
		"identifier of one":   ask{kind: discover4, mac: alice, more: []byte{optClientID, 1, 1}}.bytes(),
		"size of one":         ask{kind: discover4, mac: alice, more: []byte{optMaxSize, 1, 1}}.bytes(),
		"overload of 9":       ask{kind: discover4, mac: alice, more: []byte{optOverload, 1, 9}}.bytes(),
	}
	l := newLab(t, nil)
	for name, b := range cases {
		before := l.Stats().Malformed
		if _, ok := l.Respond4(b, 0); ok || l.Stats().Malformed != before+1 {
			t.Errorf("%s: answered %v, counted %d", name, ok, l.Stats().Malformed-before)
		}
	}
}

func TestConfigThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"range outside":   func(c *Config) { c.IPv4.Range = Range{ip("10.0.3.1"), ip("10.0.3.9")} },
		"empty range":     func(c *Config) { c.IPv4.Range = Range{ip("10.0.2.9"), ip("10.0.2.8")} },
		"family":          func(c *Config) { c.IPv4.DNS = []netip.Addr{ip("fd00::3")} },
		"lease":           func(c *Config) { c.Lease = 1 << 33 * time.Second },
		"MTU":             func(c *Config) { c.MTU = 20 },
		"label":           func(c *Config) { c.Search = []string{"a..b"} },
		"no station":      func(c *Config) { c.HardwareAddr = header.MAC{} },
		"sandbox outside": func(c *Config) { c.IPv6.Sandbox = ip("fd01::1") },
	} {
		c := labConfig()
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOfferTakesNothingFromARunningLease(t *testing.T) {
	l := newLab(t, nil)
	l.lease4(alice, "")
	l.send(ask{kind: discover4, mac: alice}) // it has been restarted
	l.pass(30 * time.Minute)                 // the offer is long gone, the lease is not
	if n := l.Stats().Leases4; n != 1 {
		t.Fatalf("%d leases", n)
	}
	if g := l.send(ask{kind: request4, mac: alice, requested: "10.0.2.100"}); g == nil || g.kind != ack4 {
		t.Fatalf("%+v", g)
	}
}
