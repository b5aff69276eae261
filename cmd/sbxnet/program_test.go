package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/dns"
	"sbxnet/userns"
)

func TestErrorsAreOneLine(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		line   string
	}{
		{nil, 0, ""},
		{errors.New("open it: no"), exitFailure, "sbxnet: open it: no"},
		{errors.New("two\nlines\x1b[31m\n"), exitFailure, "sbxnet: two lines?[31m"},
		{fmt.Errorf("run: %w", &statusError{Status: userns.StatusNotFound, Err: errors.New("gone")}), userns.StatusNotFound, "sbxnet: run: gone"},
		{&statusError{Status: 7}, 7, ""},
	} {
		if status, line := exitStatus(c.err); status != c.status || line != c.line {
			t.Errorf("%v: %d %q", c.err, status, line)
		}
	}
}

func TestFilesOfTheSandbox(t *testing.T) {
	p := network.Plan{V4: network.Layout(network.DefaultCIDR4), V6: network.Layout(network.DefaultCIDR6)}
	host := dns.ParseConf([]byte("nameserver 127.0.0.53\nsearch example.test\noptions ndots:2\n"))
	const hosts = "127.0.0.1 localhost\n"
	for _, c := range []struct {
		s           settings
		p           network.Plan
		resolv, etc string
	}{
		{settings{Network: userns.NetworkSandbox}, p, "nameserver 10.0.2.3\nnameserver fd00::3\nsearch example.test\noptions ndots:2\n", hosts},
		{settings{Network: userns.NetworkSandbox, DNS: network.DNS{None: true}}, p, "# this sandbox has no name server (--dns none)\n", hosts},
		{settings{Network: userns.NetworkSandbox, Hostname: "web", DNS: network.DNS{Upstream: netip.MustParseAddrPort("9.9.9.9:53")}}, network.Plan{V4: p.V4},
			"nameserver 10.0.2.3\nsearch example.test\noptions ndots:2\n", "10.0.2.100\tweb\n" + hosts},
		{settings{Network: userns.NetworkNone, Hostname: "web"}, network.Plan{}, "# this sandbox has no name server (--network none)\n", "127.0.0.1\tweb\n" + hosts},
		{settings{Network: userns.NetworkHost}, network.Plan{}, "", hosts},
	} {
		if got := c.s.resolvConf(c.p, host); got != c.resolv {
			t.Errorf("%+v: resolv.conf %q, want %q", c.s, got, c.resolv)
		}
		if got := c.s.hostsFile(c.p, hosts); got != c.etc {
			t.Errorf("%+v: hosts %q, want %q", c.s, got, c.etc)
		}
	}
	if got := (&settings{}).hostsFile(network.Plan{}, ""); !strings.Contains(got, "localhost") {
		t.Errorf("without a hosts file on the host: %q", got)
	}
}

func TestDoctorsVerdict(t *testing.T) {
	ok, bad := finding{Name: "tap link", Status: "ok"}, finding{Name: "tap link", Status: "missing"}
	packet := finding{Name: "packet link", Status: "ok"}
	if !hasLink([]finding{bad, packet}) || !hasLink([]finding{ok}) || hasLink([]finding{bad}) || hasLink(nil) {
		t.Error("one kind of link is enough, and none is not")
	}
	if !essentials([]finding{ok, {Status: "degraded"}}) || essentials([]finding{ok, bad}) {
		t.Error("degraded is good enough, missing is not")
	}
	f := finding{Name: "AppArmor", Status: "missing", Detail: "says no", Fix: "sudo allow"}
	same := &userns.Unavailable{Feature: "AppArmor", Cause: "says no", Fix: "sudo allow"}
	if f.String() != same.Error() {
		t.Errorf("doctor says %q where run says %q", f, same)
	}
}
