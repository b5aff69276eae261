package userns

import (
	"fmt"
	"strings"
	"testing"
)

// Addresses that are somebody else's are learned, when sockets are asked for and
// after the program has become another.
func TestAttachmentMakesSocketsForAddressesThatItFinds(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "ip link set lo up; ip tuntap add tap0 mode tap", rootInside...)
	cfg := attachTo(ns)
	cfg.Configure, cfg.Addresses, cfg.Gateways = false, nil, nil
	a := attached(t, cfg)
	if _, err := a.Sockets(false, 1); err == nil || !strings.Contains(err.Error(), "no IPv4 address") {
		t.Errorf("without addresses: %v", err)
	}
	const up = "ip link set tap0 up; ip addr add 192.168.7.2/24 dev tap0; ip addr add fd11::2/64 dev tap0 nodad; ip route add default via 192.168.7.1"
	ns.run(t, up)
	l4 := listening(t, a, "0.0.0.0:80")
	meets(t, a, l4, "192.168.7.1", "192.168.7.2:80")
	ns.run(t, "ip addr add 192.168.8.2/24 dev tap0")
	meets(t, a, l4, "203.0.113.7", "192.168.8.2:80")
	b := handOver(t, a)
	meets(t, b, l4, "203.0.113.7", "127.0.0.1:80")
	meets(t, b, listening(t, b, "[::]:80"), "2001:db8::7", "[fd11::2]:80")
	must(t, b.Close())
	if out := ns.run(t, "ip rule; ip -6 rule"); strings.Contains(out, "fwmark") {
		t.Errorf("rules are left:\n%s", out)
	}
}

func TestAttachmentMakesSocketsAndTakesItsRulesBack(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	const settings = "ip rule; ip -6 rule; ip route show table all; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv?/fwmark_reflect"
	a := attached(t, attachTo(ns))
	before := ns.run(t, "ip rule; ip -6 rule; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv?/fwmark_reflect")
	meetEverywhere(t, a)
	if out := ns.run(t, settings); !strings.Contains(out, "fwmark") {
		t.Errorf("no rules while it is attached:\n%s", out)
	}
	must(t, a.Close())
	if out := ns.run(t, "ip rule; ip -6 rule; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv?/fwmark_reflect"); out != before {
		t.Errorf("after it\n%sbefore\n%s", out, before)
	}
	if out := ns.run(t, settings); strings.Contains(out, fmt.Sprint(SocketMark)) {
		t.Errorf("its table is left:\n%s", out)
	}
	if _, err := a.Sockets(false, 1); err == nil {
		t.Error("sockets after Close")
	}
}
