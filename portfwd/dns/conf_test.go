package dns

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func servers(addresses ...string) (out []netip.AddrPort) {
	for _, a := range addresses {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
	}
	return out
}

func TestConfIsReadAsTheStubReadsIt(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Conf
	}{
		"empty": {"", Conf{Nameservers: servers("127.0.0.1"), Timeout: 2 * time.Second, Attempts: 2}},
		"systemd-resolved": {"# comment\n;another\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n",
			Conf{Nameservers: servers("127.0.0.53"), Search: []string{"lan"}, Options: []string{"edns0", "trust-ad"}, Timeout: 2 * time.Second, Attempts: 2}},
		"three servers at most": {"nameserver 192.0.2.1\n\tnameserver\t2001:db8::1  x\nnameserver fe80::1%eth0\nnameserver 192.0.2.4",
			Conf{Nameservers: servers("192.0.2.1", "2001:db8::1", "fe80::1%eth0"), Timeout: 2 * time.Second, Attempts: 2}},
		"the last search or domain counts": {"nameserver 192.0.2.1\nsearch a.example b.example\ndomain c.example d.example\n",
			Conf{Nameservers: servers("192.0.2.1"), Search: []string{"c.example"}, Timeout: 2 * time.Second, Attempts: 2}},
		"options are bounded": {"nameserver 192.0.2.1\noptions timeout:900 attempts:0 ndots:99 rotate bogus timeout:x debug ndots:-1\n",
			Conf{Nameservers: servers("192.0.2.1"), Options: []string{"timeout:10", "attempts:1", "ndots:15", "rotate"}, Timeout: 10 * time.Second, Attempts: 1, Rotate: true}},
		"the last of equal options counts": {"nameserver 192.0.2.1\noptions ndots:1\noptions ndots:5\n",
			Conf{Nameservers: servers("192.0.2.1"), Options: []string{"ndots:5"}, Timeout: 2 * time.Second, Attempts: 2}},
		"what is malformed is left out": {"nameserver\nnameserver localhost\nnameserver 192.0.2.300\nsearch ok.example -\x1b[31m bad..name .\nnameserver 192.0.2.1\n",
			Conf{Nameservers: servers("192.0.2.1"), Search: []string{"ok.example", "."}, Timeout: 2 * time.Second, Attempts: 2}},
	} {
		if got := ParseConf([]byte(c.text)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

func TestSandboxConfKeepsSearchAndOptions(t *testing.T) {
	host := ParseConf([]byte("nameserver 192.0.2.1\nsearch corp.example lan\noptions ndots:2 edns0\n"))
	got := string(host.Sandbox(netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")))
	want := "nameserver 10.0.2.3\nnameserver fd00::3\nsearch corp.example lan\noptions ndots:2 edns0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func FuzzConf(f *testing.F) {
	f.Add([]byte("nameserver fe80::1%a\nsearch a b\noptions ndots:3 rotate\ndomain x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := ParseConf(text)
		if n := len(c.Nameservers); n < 1 || n > maxNameservers || len(c.Search) > maxSearch || c.Timeout < time.Second || c.Attempts < 1 {
			t.Fatalf("%q gives %+v", text, c)
		}
		inside := c.Sandbox(loopback4)
		for i := range inside {
			if b := inside[i]; b >= 0x7f || b < ' ' && b != '\n' {
				t.Fatalf("%q gives the file %q", text, inside)
			}
		}
		again := ParseConf(inside)
		if !reflect.DeepEqual(again.Search, c.Search) || strings.Join(again.Options, " ") != strings.Join(c.Options, " ") {
			t.Fatalf("%q gives the file %q, which says something else", text, inside)
		}
	})
}
