package dhcp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
)

var (
	aliceLL   = ip("fe80::ff:fe00:100")
	aliceDUID = "\x00\x03\x00\x01alice!"
	bobDUID   = "\x00\x03\x00\x01bobby!"
	ourDUID   = string(duidOf(serverMAC))
)

// na is an IA_NA option with addresses.
func na(iaid string, addrs ...string) []byte {
	data := append([]byte(iaid), make([]byte, 8)...)
	for _, s := range addrs {
		data = append(data, opt6(opt6Address, append(ip(s).AsSlice(), make([]byte, 8)...))...)
	}
	return opt6(opt6IANA, data)
}

// ask6 is a DHCPv6 request; options are appended as they are.
func ask6(kind byte, client, server string, options ...[]byte) []byte {
	r := wire6{kind, 'x', 'i', 'd'}
	if client != "" {
		r.option(opt6ClientID, []byte(client))
	}
	if server != "" {
		r.option(opt6ServerID, []byte(server))
	}
	return slices.Concat(append([][]byte{r}, options...)...)
}

// got6 is a reply taken apart: one string for each option that matters.
type got6 struct {
	kind byte
	what []string
}

func (g *got6) String() string {
	if g == nil {
		return "silence"
	}
	return map[byte]string{advertise6: "advertise", reply6: "reply"}[g.kind] + " " + strings.Join(g.what, " ")
}

func (l *lab) send6(mac header.MAC, b []byte) *got6 {
	l.Helper()
	r, ok := l.Respond6(b, aliceLL, mac, l.now)
	if !ok {
		return nil
	}
	if r.To != netip.AddrPortFrom(aliceLL, ClientPort6) || r.From.Port() != ServerPort6 || string(r.Payload[1:4]) != "xid" {
		l.Fatalf("reply %+v", r)
	}
	return l.read6(r.Payload)
}

func (l *lab) read6(b []byte) *got6 {
	g := &got6{kind: b[0]}
	note := func(s string) { g.what = append(g.what, s) }
	good := eachOption6(b[4:], func(code uint16, data []byte) bool {
		switch code {
		case opt6ServerID:
			if string(data) != ourDUID {
				l.Fatalf("server is %x", data)
			}
		case opt6IANA, opt6IATA, opt6IAPD:
			note(map[uint16]string{opt6IANA: "na", opt6IATA: "ta", opt6IAPD: "pd"}[code] + ":" + l.inside(code, data))
		case opt6Status:
			note("status" + string('0'+data[1]))
		case opt6RapidCommit:
			note("rapid")
		case opt6DNS:
			note("dns:" + netip.AddrFrom16([16]byte(data)).String())
		case opt6Domains:
			note("domains")
		case opt6Preference:
			note("preferred")
		}
		return true
	})
	if !good {
		l.Fatalf("reply cannot be read: %x", b)
	}
	return g
}

func (l *lab) inside(code uint16, data []byte) string {
	fixed := iaFixed
	if code == opt6IATA {
		fixed = 4
	}
	var s []string
	if !eachOption6(data[fixed:], func(code uint16, data []byte) bool {
		switch code {
		case opt6Address:
			a := netip.AddrFrom16([16]byte(data)).String()
			preferred, valid := binary.BigEndian.Uint32(data[16:]), binary.BigEndian.Uint32(data[20:])
			if preferred > valid {
				l.Fatalf("preferred for %d s, valid for %d s", preferred, valid)
			}
			if valid == 0 {
				a += "-"
			}
			s = append(s, a)
		case opt6Status:
			s = append(s, "status"+string('0'+data[1]))
		}
		return true
	}) {
		l.Fatalf("association cannot be read: %x", data)
	}
	return strings.Join(s, ",")
}

func TestDHCPv6Exchanges(t *testing.T) {
	const params = " dns:fd00::3 domains"
	got := "reply na:fd00::100" + params
	bound := ask6(request6, aliceDUID, ourDUID, na("eth0"))
	for _, c := range []struct {
		name string
		asks [][]byte // by alice
		want string   // answer to the last
	}{
		{"solicit", [][]byte{ask6(solicit6, aliceDUID, "", na("eth0"))}, "advertise preferred na:fd00::100" + params},
		{"solicit with a wish", [][]byte{ask6(solicit6, aliceDUID, "", na("eth0", "fd00::110"))}, "advertise preferred na:fd00::100" + params},
		{"solicit, rapid", [][]byte{ask6(solicit6, aliceDUID, "", na("eth0"), []byte{0, opt6RapidCommit, 0, 0})}, "reply rapid na:fd00::100" + params},
		{"solicit with a server", [][]byte{ask6(solicit6, aliceDUID, ourDUID, na("eth0"))}, "silence"},
		{"solicit by nobody", [][]byte{ask6(solicit6, "", "", na("eth0"))}, "silence"},
		{"solicit for prefixes and temporary addresses", [][]byte{ask6(solicit6, aliceDUID, "", []byte{0, opt6IATA, 0, 4, 1, 2, 3, 4}, []byte{0, opt6IAPD, 0, 12, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0})},
			"advertise preferred ta:status2 pd:status6" + params},
		{"two associations", [][]byte{ask6(solicit6, aliceDUID, "", na("eth0"), na("eth1"))}, "advertise preferred na:fd00::100 na:fd00::101" + params},

		{"request", [][]byte{bound}, got},
		{"request what was advertised", [][]byte{ask6(solicit6, aliceDUID, "", na("eth0")), ask6(request6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, got},
		{"request of another server", [][]byte{ask6(request6, aliceDUID, bobDUID, na("eth0"))}, "silence"},
		{"request without server", [][]byte{ask6(request6, aliceDUID, "", na("eth0"))}, "silence"},
		{"request of another network", [][]byte{ask6(request6, aliceDUID, ourDUID, na("eth0", "fd99::1"))}, "reply na:status4" + params},
		{"only what is asked for", [][]byte{ask6(request6, aliceDUID, ourDUID, na("eth0"), []byte{0, opt6Requested, 0, 2, 0, opt6Domains})}, "reply na:fd00::100 domains"},

		{"confirm", [][]byte{bound, ask6(confirm6, aliceDUID, "", na("eth0", "fd00::100"))}, "reply status0"},
		{"confirm another network", [][]byte{ask6(confirm6, aliceDUID, "", na("eth0", "fd99::1"))}, "reply status4"},
		{"confirm nothing", [][]byte{ask6(confirm6, aliceDUID, "", na("eth0"))}, "silence"},

		{"renew", [][]byte{bound, ask6(renew6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, got},
		{"renew with one too many", [][]byte{bound, ask6(renew6, aliceDUID, ourDUID, na("eth0", "fd00::100", "fd00::105"))}, "reply na:fd00::100,fd00::105-" + params},
		{"renew, not known, free", [][]byte{ask6(renew6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, got},
		{"renew, not known, of another network", [][]byte{ask6(renew6, aliceDUID, ourDUID, na("eth0", "fd99::1"))}, "reply na:status3" + params},
		{"renew, not known, nothing", [][]byte{ask6(renew6, aliceDUID, ourDUID, na("eth0"))}, "reply na:status3" + params},
		{"rebind", [][]byte{bound, ask6(rebind6, aliceDUID, "", na("eth0", "fd00::100"))}, got},
		{"rebind, of another network", [][]byte{ask6(rebind6, aliceDUID, "", na("eth0", "fd99::1"))}, "reply na:fd99::1-" + params},
		{"rebind with a server", [][]byte{bound, ask6(rebind6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, "silence"},

		{"release", [][]byte{bound, ask6(release6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, "reply status0"},
		{"release twice", [][]byte{bound, ask6(release6, aliceDUID, ourDUID, na("eth0", "fd00::100")), ask6(release6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, "reply status0 na:status3"},
		{"decline", [][]byte{bound, ask6(decline6, aliceDUID, ourDUID, na("eth0", "fd00::100"))}, "reply status0"},
		{"solicit after declining", [][]byte{bound, ask6(decline6, aliceDUID, ourDUID, na("eth0", "fd00::100")), ask6(solicit6, aliceDUID, "", na("eth0"))},
			"advertise preferred na:fd00::101" + params},

		{"information", [][]byte{ask6(informationRequest6, "", "")}, "reply dns:fd00::3 domains"},
		{"information of another server", [][]byte{ask6(informationRequest6, aliceDUID, bobDUID)}, "silence"},
		{"information with an association", [][]byte{ask6(informationRequest6, aliceDUID, "", na("eth0"))}, "silence"},
		{"what servers send", [][]byte{ask6(advertise6, aliceDUID, ourDUID, na("eth0"))}, "silence"},
		{"a relay's", [][]byte{ask6(12, aliceDUID, "")}, "silence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			var got *got6
			for _, b := range c.asks {
				got = l.send6(alice, b)
			}
			if got.String() != c.want {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

func TestDHCPv6SandboxAddressIsItsOwnersAlone(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Owner = alice })
	expect := func(mac header.MAC, duid, want string) {
		t.Helper()
		if got := l.send6(mac, ask6(request6, duid, ourDUID, na("eth0"))); !strings.Contains(got.String(), "na:"+want+" ") {
			t.Errorf("%v", got)
		}
	}
	expect(bob, bobDUID, "fd00::101")
	expect(alice, aliceDUID, "fd00::100")
	expect(alice, "\x00\x02other", "fd00::100") // lost its DUID
	l.pass(2 * time.Hour)
	expect(bob, bobDUID, "fd00::101")
	expect(carol, "\x00\x02carol", "fd00::102")
}

func TestDHCPv6RangeRunsOut(t *testing.T) {
	l := newLab(t, func(c *Config) { c.IPv6.Range = Range{ip("fd00::15"), ip("fd00::16")} })
	for i, want := range []string{"na:fd00::15 ", "na:fd00::16 ", "na:status2 "} {
		if got := l.send6(alice, ask6(request6, aliceDUID, ourDUID, na("eth"+string('0'+byte(i))))); !strings.Contains(got.String(), want) {
			t.Errorf("%v, want %s", got, want)
		}
	}
	if st := l.Stats(); st.Exhausted != 1 || st.Leases6 != 2 {
		t.Errorf("%+v", st)
	}
}

func TestDHCPv6IsSpokenOnTheLinkOnly(t *testing.T) {
	l := newLab(t, nil)
	for _, from := range []netip.Addr{ip("fd00::100"), ip("2001:db8::1"), ip("::1"), ip("169.254.1.1"), {}} {
		if _, ok := l.Respond6(ask6(solicit6, aliceDUID, "", na("eth0")), from, alice, 0); ok {
			t.Errorf("answered %v", from)
		}
	}
}

func TestMalformedDHCPv6IsDroppedAndCounted(t *testing.T) {
	long := strings.Repeat("x", maxDUID+1)
	many := ask6(solicit6, aliceDUID, "")
	for i := range maxIA + 1 {
		many = append(many, na("eth"+string('0'+byte(i)))...)
	}
	l := newLab(t, nil)
	for name, b := range map[string][]byte{
		"empty":                     {},
		"three bytes":               {1, 2, 3},
		"half an option":            append(ask6(solicit6, aliceDUID, ""), 0, 3),
		"option past the end":       append(ask6(solicit6, aliceDUID, ""), 0, 3, 0, 50, 1),
		"short association":         append(ask6(solicit6, aliceDUID, ""), 0, 3, 0, 2, 1, 1),
		"short address":             append(ask6(solicit6, aliceDUID, ""), 0, 3, 0, 17, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 1),
		"long DUID":                 ask6(solicit6, long, ""),
		"too many associations":     many,
		"association twice":         ask6(solicit6, aliceDUID, "", na("eth0"), na("eth0")),
		"odd option request":        append(ask6(solicit6, aliceDUID, ""), 0, 6, 0, 1, 1),
		"rapid commit with content": append(ask6(solicit6, aliceDUID, ""), 0, 14, 0, 1, 1),
		"longer than is read":       append(ask6(solicit6, aliceDUID, ""), make([]byte, MaxMessage)...),
	} {
		before := l.Stats().Malformed
		if _, ok := l.Respond6(b, aliceLL, alice, 0); ok || l.Stats().Malformed != before+1 {
			t.Errorf("%s: answered %v, counted %d", name, ok, l.Stats().Malformed-before)
		}
	}
}
