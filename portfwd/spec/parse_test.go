package spec

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSpecForms(t *testing.T) {
	ip := netip.MustParseAddr
	of := func(p Protocol, host netip.Addr, hostPort, port uint16, count int) Spec {
		return Spec{Protocol: p, HostIP: host, HostPort: hostPort, Port: port, Count: count}
	}
	for value, want := range map[string]Spec{
		"80":                         of(TCP, netip.Addr{}, 0, 80, 1),
		"80/tcp":                     of(TCP, netip.Addr{}, 0, 80, 1),
		"53/UDP":                     of(UDP, netip.Addr{}, 0, 53, 1),
		"8080:80":                    of(TCP, netip.Addr{}, 8080, 80, 1),
		"8000-8009:80-89":            of(TCP, netip.Addr{}, 8000, 80, 10),
		"8000-8009":                  of(TCP, netip.Addr{}, 0, 8000, 10),
		"1-65535:1-65535/udp":        of(UDP, netip.Addr{}, 1, 1, 65535),
		"0.0.0.0:8080:80":            of(TCP, ip("0.0.0.0"), 8080, 80, 1),
		"127.0.0.1:80":               of(TCP, ip("127.0.0.1"), 0, 80, 1),
		"127.0.0.1::80":              of(TCP, ip("127.0.0.1"), 0, 80, 1),
		"[::]:8080:80/udp":           of(UDP, ip("::"), 8080, 80, 1),
		"[::1]:80":                   of(TCP, ip("::1"), 0, 80, 1),
		"[fe80::1%eth0]:8080:80":     of(TCP, ip("fe80::1%eth0"), 8080, 80, 1),
		"192.0.2.7:5000-5001:53-54":  of(TCP, ip("192.0.2.7"), 5000, 53, 2),
		"[2001:db8::1]:65535:1/tcp":  of(TCP, ip("2001:db8::1"), 65535, 1, 1),
		"127.0.0.1:8080-8080:80-80":  of(TCP, ip("127.0.0.1"), 8080, 80, 1),
		"127.0.0.1:00080:0000000443": of(TCP, ip("127.0.0.1"), 80, 443, 1),
	} {
		got, err := Parse(value)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", value, got, err, want)
			continue
		}
		again, err := Parse(got.String())
		if err != nil || again != got {
			t.Errorf("Parse(%q) after String = %+v, %v; want %+v", got.String(), again, err, got)
		}
	}
}

func TestStringIsTheShortestForm(t *testing.T) {
	for value, want := range map[string]string{
		"127.0.0.1::80/tcp":   "127.0.0.1:80",
		"[0:0::1]:1-2:3-4":    "[::1]:1-2:3-4",
		"8080-8080:80-80/udp": "8080:80/udp",
	} {
		s, err := Parse(value)
		if err != nil || s.String() != want {
			t.Errorf("Parse(%q).String() = %q, %v; want %q", value, s.String(), err, want)
		}
	}
}

func TestMalformedSpecSaysWhyAndWhatToWrite(t *testing.T) {
	for _, c := range []struct{ value, reason, hint string }{
		{"", "no port", "-p 8080:80"},
		{"/tcp", "no port", "-p 8080:80"},
		{":80", "nothing before the first colon", "-p 80"},
		{"8080:", "no port", "-p 8080:80"},
		{"0", "port 0 is out of range", "1 to 65535"},
		{"0:80", "host port 0", "-p 80"},
		{"0-3:80-83/udp", "host port 0", "1 to 65535"},
		{"127.0.0.1:0:80", "host port 0", "-p 127.0.0.1:80"},
		{"65536", "port 65536 is out of range", "1 to 65535"},
		{"99999999999999999999:80", "host port 99999999999999999999 is out of range", "1 to 65535"},
		{"8080:65536", "port 65536 is out of range", "1 to 65535"},
		{"-1", "no port", "1 to 65535"},
		{"+80", "port +80 is not a number", "1 to 65535"},
		{"http", "port http is not a number", "1 to 65535"},
		{"80-", "no port", "1 to 65535"},
		{"90-80", "ends before it begins", "80-90"},
		{"8000-8001:80", "2 ports on the host, but 1 port in the sandbox", "-p 80"},
		{"8000:80-82", "1 port on the host, but 3 ports in the sandbox", "-p 80-82"},
		{"80/sctp", "unknown protocol sctp", "/tcp or /udp"},
		{"80/tcp/udp", "unknown protocol tcp/udp", "/tcp or /udp"},
		{"80/", "unknown protocol", "/tcp or /udp"},
		{"localhost:8080:80", "localhost is not an IP address", "-p 127.0.0.1:8080:80"},
		{"1:2:3", "1 is not a host address", "HOSTIP:HOSTPORT:PORT"},
		{"256.0.0.1:80", "256.0.0.1 is not an IP address", "127.0.0.1"},
		{"::1:8080:80", "too many colons", "[::1]:8080:80"},
		{"[::1:8080:80", "no closing bracket", "[::1]:8080:80"},
		{"[::1]", "no port after the address", "[::1]:8080:80"},
		{"[::1]80", "no port after the address", "[::1]:8080:80"},
		{"[::1]:1:2:3", "too many colons after the address", "[::1]:8080:80"},
		{"[]:80", "no address in the brackets", "[::]:8080:80"},
		{"[127.0.0.1]:80", "not an IPv6 address", "without them"},
		{"[::ffff:127.0.0.1]:80", "IPv4 address in IPv6's form", "127.0.0.1"},
		{"[fe80::1%a b]:80", "not the name of a network interface", "eth0"},
		{"224.0.0.1:80", "not an address that a host has", "loopback"},
		{"255.255.255.255:80", "not an address that a host has", "loopback"},
	} {
		_, err := Parse(c.value)
		if err == nil {
			t.Errorf("Parse(%q) succeeded", c.value)
			continue
		}
		reason, ok := strings.CutPrefix(err.Error(), "-p "+shown(c.value)+": ")
		if !ok || !strings.Contains(reason, c.reason) || !strings.Contains(reason, c.hint) {
			t.Errorf("Parse(%q): %v; want the flag and value, %q and %q", c.value, err, c.reason, c.hint)
		}
	}
}

func TestOverlapsAreRefused(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string // part of the error, or empty
	}{
		{[]string{"8080:80", "8081:80"}, ""},
		{[]string{"8080:80", "8080:80/udp"}, ""},
		{[]string{"8080:80", "8080:80"}, "-p 8080:80: given twice"},
		{[]string{"80", "80"}, "-p 80: given twice"},
		{[]string{"80", "81"}, ""},
		{[]string{"80", "8080:80"}, ""},
		{[]string{"80-90", "85"}, "port 85 is already published"},
		{[]string{"127.0.0.1:80", "192.0.2.1:80"}, ""},
		{[]string{"8080:80", "8080:81"}, "-p 8080:81: host port 127.0.0.1:8080/tcp is already taken by -p 8080:80"},
		{[]string{"8080:80", "127.0.0.1:8080:81"}, "127.0.0.1:8080/tcp is already taken"},
		{[]string{"8080:80", "[::1]:8080:81"}, "[::1]:8080/tcp is already taken"},
		{[]string{"8080:80", "0.0.0.0:8080:81"}, "127.0.0.1:8080/tcp is already taken"},
		{[]string{"[::]:8080:81", "8080:80"}, "[::1]:8080/tcp is already taken"},
		{[]string{"0.0.0.0:8080:80", "[::]:8080:80"}, ""},
		{[]string{"0.0.0.0:8080:80", "192.0.2.1:8080:80"}, "192.0.2.1:8080/tcp is already taken"},
		{[]string{"8000-8010:80-90", "8010-8020:80-90"}, "127.0.0.1:8010/tcp is already taken"},
		{[]string{"8000-8010:80-90", "8011-8020:80-89"}, ""},
		{[]string{"65535:1", "65535:2/udp", "1-65535:1-65535"}, "65535/tcp is already taken by -p 65535:1"},
	} {
		_, err := ParseAll(c.values)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.values, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: error %v; want %q", c.values, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "[::1%lo]:1-3:4-6", "1.2.3.4::5", "[::ffff:1.2.3.4]:0:0-\x1b[31m/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s, err := Parse(value)
		if err != nil {
			if strings.IndexFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
				t.Fatalf("Parse(%q): error %q is not one clean line", value, err)
			}
			return
		}
		if s.Count < 1 || s.Port == 0 || int(s.Port)+s.Count-1 > 65535 || int(s.HostPort)+s.Count-1 > 65535 && s.HostPort != 0 {
			t.Fatalf("Parse(%q) = %+v: ports out of range", value, s)
		}
		if again, err := Parse(s.String()); err != nil || again != s {
			t.Fatalf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", value, s, s.String(), again, err)
		}
	})
}
