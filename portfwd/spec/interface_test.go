package spec

import (
	"net/netip"
	"strings"
	"testing"
)

func on(device string, child string, hostPort uint16) Spec {
	s := Spec{Protocol: TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: hostPort, Port: 80, Count: 1, Interface: device}
	if child != "" {
		s.Child = netip.MustParseAddr(child)
	}
	return s
}

func TestSocketsKnowTheirChildAndInterface(t *testing.T) {
	s := on("lo", "10.0.2.100", 0)
	s.Count = 2
	bound, err := Bind([]Spec{s})
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(bound)
	for i := range bound {
		b := &bound[i]
		if b.Child != s.Child || b.Key() != (Key{TCP, b.Host, "lo"}) {
			t.Errorf("%+v, key %+v", b, b.Key())
		}
	}
	if bound[0].Key() == bound[1].Key() {
		t.Error("two sockets with one key")
	}
	key := bound[0].Key()
	bound[0].Close()
	if bound[0].Key() != key {
		t.Error("closing a socket changes its key")
	}
}

func TestUnknownInterfaceIsSaidSo(t *testing.T) {
	_, err := Bind([]Spec{on("gone0", "", 0)})
	if err == nil || !strings.Contains(err.Error(), "no network interface gone0: name one") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	_, err = Bind([]Spec{on("lo\n\x00"+strings.Repeat("x", 99), "", 0)})
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestInterfacesAndChildrenKeepSpecsApart(t *testing.T) {
	for _, c := range []struct {
		a, b  Spec
		apart bool
	}{
		{on("eth0", "", 8080), on("eth1", "", 8080), true},
		{on("eth0", "", 8080), on("eth0", "", 8080), false},
		{on("eth0", "", 8080), on("", "", 8080), false}, // the kernel has no order for these
		{on("", "10.0.2.100", 8080), on("", "10.0.2.101", 8080), false},
		{on("", "10.0.2.100", 0), on("", "10.0.2.101", 0), true},
		{on("", "10.0.2.100", 0), on("", "10.0.2.100", 0), false},
	} {
		if err := Check([]Spec{c.a, c.b}); (err == nil) != c.apart {
			t.Errorf("%+v and %+v: %v", c.a, c.b, err)
		}
	}
}

func TestLinesSayWhereAPortLeads(t *testing.T) {
	at := func(port uint16, child string) Bound {
		s := on("", child, port)
		return Bound{FD: -1, Protocol: TCP, Host: netip.AddrPortFrom(s.HostIP, port), Port: port, Child: s.Child, Spec: s}
	}
	var bound []Bound
	for i := range uint16(20) {
		bound = append(bound, at(100+i, "10.0.2.100"))
	}
	bound = append(bound, at(120, "fd00::100"), at(121, ""))
	want := "published tcp 127.0.0.1:100-119 -> 10.0.2.100:100-119/tcp\n" +
		"published http://127.0.0.1:120 -> [fd00::100]:120/tcp\npublished http://127.0.0.1:121 -> 121/tcp"
	if got := strings.Join(Lines(bound), "\n"); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
}
