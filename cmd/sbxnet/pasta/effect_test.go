package pasta

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sbxnet/netstack/header"
	"sbxnet/portfwd/spec"
)

func TestMACAddressesOfTheLink(t *testing.T) {
	for _, c := range []struct{ args, ours, theirs, refused string }{
		{"1", "02:73:62:78:00:01", "02:73:62:78:00:02", ""},
		{"-M 02:00:00:00:00:07 1", "02:00:00:00:00:07", "02:73:62:78:00:02", ""},
		{"-M 02:00:00:00:00:07 --ns-mac-addr 02:00:00:00:00:08 1", "02:00:00:00:00:07", "02:00:00:00:00:08", ""},
		{"-M 02:00:00:00:00:07 --ns-mac-addr 02:00:00:00:00:07 1", "", "", "of both ends"},
		{"-M 02:73:62:78:00:02 1", "", "", "of both ends"},
	} {
		o := mustParse(t, c.args)
		p, err := planFor(o)
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v", c.args, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n := p.network(o)
		if got := p.link().HardwareAddr.String(); got != c.theirs || n.HardwareAddr != header.MAC(p.MAC) {
			t.Errorf("%s: inside %s and %s, want %s", c.args, got, n.HardwareAddr, c.theirs)
		}
		if got := n.GatewayHardwareAddr.String(); got != c.ours {
			t.Errorf("%s: outside %s, want %s", c.args, got, c.ours)
		}
	}
}

func TestLoopbackFirstIsHostLoToNsLo(t *testing.T) {
	for args, want := range map[string]bool{"1": false, "--host-lo-to-ns-lo 1": true} {
		o := mustParse(t, args)
		p, err := planFor(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.network(o).Forward.LoopbackFirst; got != want {
			t.Errorf("%s: %v", args, got)
		}
	}
}

func TestUserNamespaceOrNone(t *testing.T) {
	for args, want := range map[string]string{
		"1":                           "",
		"--netns-only 1":              "none",
		"--userns /u 1":               "/u",
		"--userns /u --netns-only 1":  "none",
		"--netns-only --userns /u 1":  "/u",
		"--netns-only --netns /n":     "none",
		"--netns-only --version true": "",
	} {
		o := mustParse(t, args)
		got := o.UserNS
		if o.NetNSOnly {
			got += "none"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	if _, err := parse([]string{"--netns-only", "true"}); err == nil || !strings.Contains(err.Error(), "a command has a user namespace of its own") {
		t.Errorf("with a command: %v", err)
	}
}

// What the options ask for holds for what pesto adds as well, and the same port is
// found again.
func TestFreebindIsForAddressesThatAreNamed(t *testing.T) {
	o := mustParse(t, "--freebind -t 192.0.2.201/80:81,82 -u [2001:db8::c9]/53 -t 90 1")
	for _, r := range rulesOf(o) {
		for _, s := range r.specs([]netip.Addr{everyIPv4}) {
			if want := s.HostIP != everyIPv4; s.Freebind != want {
				t.Errorf("%s: %v, want %v", r, s.Freebind, want)
			}
		}
	}
	for _, r := range rulesOf(mustParse(t, "-t 192.0.2.201/80 1")) {
		if r.Freebind {
			t.Errorf("%s without the option", r)
		}
	}
	path := filepath.Join(t.TempDir(), "c.sock")
	tb := newTable()
	tb.freebind = true
	c, err := listenControl(path, tb, newLog(os.Stderr, &options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if status, out := pesto("-A -t 192.0.2.201/80-82 -t 83 " + path); status != 0 {
			t.Fatal(out)
		}
	}
	var got []spec.Spec
	for _, e := range tb.ports.List() {
		got = append(got, e.Specs...)
	}
	if len(got) != 2 || got[0].Freebind == got[1].Freebind {
		t.Errorf("%+v", got)
	}
	if status, out := pesto("-D -t 192.0.2.201/81 " + path); status != 0 {
		t.Fatal(out)
	}
	if got := strings.Join(tb.lines(), ", "); got != "-t 0.0.0.0/83, -t 192.0.2.201/80, -t 192.0.2.201/82" {
		t.Error(got)
	}
	for _, e := range tb.ports.List() {
		if s := e.Specs[0]; s.Freebind != (s.HostIP != everyIPv4) {
			t.Errorf("what is left of a range: %+v", s)
		}
	}
}
