package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses that are somebody else's are learned, when sockets are asked for and
// after the program has become another.
func TestAttachmentMakesSocketsForAddressesThatItFinds(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "ip link set lo up; ip tuntap add tap0 mode tap", rootInside...)
	cfg := takeOver(ns)
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

// settings are what steering changes in a namespace of others.
const settings = "ip rule; ip -6 rule; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv?/fwmark_reflect"

func TestAttachmentTakesItsRulesBack(t *testing.T) {
	for name, end := range map[string]func(*Attachment) error{
		"closed":         func(a *Attachment) error { return a.Close() },
		"sbxnet is gone": func(a *Attachment) error { return a.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ns := makeNamespace(t, "echo 1 > /proc/sys/net/ipv6/fwmark_reflect", rootInside...)
			a := attached(t, attachTo(ns))
			pid, before := a.PID(), ns.run(t, settings)
			meetEverywhere(t, a)
			if out := ns.run(t, settings); strings.Count(out, "fwmark") != 6 || !strings.HasSuffix(out, "\n1\n1\n1\n") {
				t.Errorf("while it is attached:\n%s", out)
			}
			must(t, end(a))
			gone(t, pid)
			if out := ns.run(t, settings); out != before {
				t.Errorf("after it\n%sbefore\n%s", out, before)
			}
			if out := ns.run(t, "ip route show table all; ip -6 route show table all"); strings.Contains(out, fmt.Sprint(SocketMark)) {
				t.Errorf("its table is left:\n%s", out)
			}
			if _, err := a.Sockets(false, 1); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("sockets after it: %v", err)
			}
		})
	}
}

// A process inside that does not answer is left to itself, which is not to be
// taken for the death of this one.
func TestSilenceOfTheProcessInsideRemovesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	must(t, os.WriteFile(file, nil, 0o600))
	cfg := attachTo(makeNamespace(t, "", rootInside...))
	cfg.Remove = []string{file}
	a := attached(t, cfg)
	halted(t, a.PID())
	defer func(d time.Duration) { listenTimeout = d }(listenTimeout)
	listenTimeout = 100 * time.Millisecond
	if files, err := a.Sockets(false, 1); err == nil || files != nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v, %v", files, err)
	}
	must(t, unix.Kill(a.PID(), unix.SIGCONT))
	<-a.ended
	if !exists(file) {
		t.Error("it has removed the file")
	}
}
