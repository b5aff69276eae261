package pasta

import (
	"fmt"
	"strings"
	"testing"
)

// String is the ports as values of -t, one after another.
func (p ports) String() string {
	var parts []string
	switch {
	case p.Auto:
		parts = append(parts, "auto")
	case p.All && p.AllTo.IsValid():
		parts = append(parts, "all:"+p.AllTo.String())
	case p.All:
		parts = append(parts, "all")
	}
	for _, r := range p.Except {
		parts = append(parts, "~"+r.String())
	}
	for _, f := range p.Forwards {
		parts = append(parts, f.String())
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

// portsOf is what values say together.
func portsOf(values ...string) (ports, error) {
	var p ports
	for _, v := range values {
		if err := p.add(v); err != nil {
			return p, err
		}
	}
	return p, p.settle()
}

func TestPortSpecs(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"", "auto"},
		{"none", "none"},
		{"auto", "auto"},
		{"all", "all"},
		{"all:10.0.2.100", "all:10.0.2.100"},
		{"all:[fd00::100]", "all:fd00::100"},
		{"22", "22"},
		{"22:23", "22:23"},
		{"22,25", "22 25"},
		{"22-80", "22-80"},
		{"22-80:32-90", "22-80:32-90"},
		{"22-80:32", "22-80:32-90"},
		{"192.0.2.1/5", "192.0.2.1/5"},
		{"192.0.2.1/22,25:26", "192.0.2.1/22 192.0.2.1/25:26"},
		{"192.0.2.1%eth0/22", "192.0.2.1%eth0/22"},
		{"%eth0/22", "%eth0/22"},
		{"0.0.0.0/22", "0.0.0.0/22"},
		{"::1/8080", "::1/8080"},
		{"[::1]/8080", "::1/8080"},
		{"[::]/8080-8081:80-81", "::/8080-8081:80-81"},
		{"fe80::1%eth0/80", "fe80::1%eth0/80"},
		{"[fe80::1%eth0]/80", "fe80::1%eth0/80"},
		{"[2001:db8::1]%eth0/80", "2001:db8::1%eth0/80"},
		{"8080:10.0.2.100/80", "8080:10.0.2.100/80"},
		{"8080:[fd00::100]/80", "8080:[fd00::100]/80"},
		{"8080:fd00::100/80", "8080:fd00::100/80"}, // one address: brackets tell it from a port and an address
		{"192.0.2.1/8080:10.0.2.100/80", "192.0.2.1/8080:10.0.2.100/80"},
		{"8080:10.0.2.100/", "8080:10.0.2.100/8080"},
		{"5-25,~10-20", "5-9 21-25"},
		{"5-25:105-125,~10-20", "5-9:105-109 21-25:121-125"},
		{"5-25,~5,~25,~10-11", "6-9 12-24"},
		{"~25", "auto ~25"},
		{"~25,~30-40", "auto ~25 ~30-40"},
		{"auto,~25", "auto ~25"},
		{"all,~25", "all ~25"},
		{"1-65535", "1-65535"},
		{"65535", "65535"},
		// As Podman has them, and several options.
		{"18080-18080:80-80", "18080:80"},
		{"127.0.0.1/5000-5010:6000-6010", "127.0.0.1/5000-5010:6000-6010"},
		{"80 81 80", "80 81"},
		{"80 none", "none"},
		{"none 80", "80"},
		{"auto none", "none"},
		{"auto 8080:80", "auto 8080:80"},
		{"127.0.0.1/80 127.0.0.2/80:81 ::1/80", "127.0.0.1/80 127.0.0.2/80:81 ::1/80"},
	} {
		p, err := portsOf(strings.Fields(c.values)...)
		if err != nil {
			t.Errorf("%q: %v", c.values, err)
			continue
		}
		if got := p.String(); got != c.want {
			t.Errorf("%q: %s, want %s", c.values, got, c.want)
		}
	}
}

func TestBadPortSpecs(t *testing.T) {
	for _, v := range []string{
		"0", "65536", "70000", "-1", "+5", "foo", "80-70", "80:", ":80", "80-", "-80", "80-90:100-105", "80:0", "60000-60010:65530",
		"~", "~0", "none,80", "80,none", "auto,80", "80,auto", "auto,all", "80,,81", ",", "80,", "10.0.0.300/80", "/80", "%/80", "127.0.0.1%/80",
		"127.0.0.1/", "127.0.0.1/none", "127.0.0.1/auto", "127.0.0.1/~5", "[127.0.0.1]/80", "[::1/80", "::1]/80", "[]/80", "ff02::1/80", "224.0.0.1/80",
		"::ffff:127.0.0.1/80", "8080:127.0.0.1/80:81", "8080:10.0.2.0.1/80", "8080,~8080", "all:", "all:foo", "allx", "all:::", "80 81", " 80", "80\n",
		"127.0.0.1%name-that-is-too-long/80", "８０",
		// A to-address that no server in the sandbox has.
		"80:0.0.0.0/80", "80:224.0.0.1/80", "all:255.255.255.255",
	} {
		if p, err := portsOf(v); err == nil || !strings.HasPrefix(err.Error(), "Invalid port specifier ") {
			t.Errorf("%q: %v, %v", v, p, err)
		}
	}
	if _, err := portsOf(""); err == nil {
		t.Error("an empty specifier is taken")
	}
}

// A host port that leads to two places is no question of which came last.
func TestContradictingPortsAreRefused(t *testing.T) {
	for _, values := range [][]string{
		{"80:81", "80:82"},
		{"80-90", "85:95"},
		{"1-100", "200", "50-60:1050-1060"},
		{"127.0.0.1/80", "127.0.0.1/80:10.0.2.100/80"},
	} {
		if p, err := portsOf(values...); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("%q: %v, %v", values, p, err)
		}
	}
}

// What String writes means the same again, whatever was read.
func FuzzPortSpec(f *testing.F) {
	for _, v := range []string{
		"none", "auto", "all:1.2.3.4", "80", "80:81", "1-5,~3", "[::1]/80", "127.0.0.1%lo/80:[fd00::1]/90", "~5", "fe80::1%eth0/80", "8080:1.2.3.4/", "auto,~9",
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p, err := portsOf(value)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("the error is not one line: %q", err)
			}
			return
		}
		for _, fw := range p.Forwards {
			if fw.First == 0 || fw.Last < fw.First || int(fw.ToFirst)+int(fw.Last-fw.First) > 65535 || fw.ToFirst == 0 {
				t.Fatalf("%q: impossible range %+v", value, fw)
			}
			if p.excepts(fw.First) || p.excepts(fw.Last) {
				t.Fatalf("%q: %v is excluded and forwarded", value, fw)
			}
			again, err := portsOf(fw.String())
			if err != nil || len(again.Forwards) != 1 || again.Forwards[0] != fw {
				t.Fatalf("%q: %v read again is %v, %v", value, fw, again.Forwards, err)
			}
		}
	})
}

// A list of the greatest length is read in time.
func TestLongPortListIsRead(t *testing.T) {
	var b strings.Builder
	for port := 1; port < 20000; port += 2 {
		fmt.Fprintf(&b, "%d,", port)
	}
	p, err := portsOf(b.String() + "20001")
	if err != nil || len(p.Forwards) != 10001 {
		t.Errorf("%d forwards, %v", len(p.Forwards), err)
	}
}
