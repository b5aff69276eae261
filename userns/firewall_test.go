package userns

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever filters or translates what comes by the link is to see it: with a
// firewall inside there are no sockets, and nothing leaves the link. When it is
// gone there are.
func TestAFirewallInsideKeepsEverythingOnTheLink(t *testing.T) {
	for _, f := range []struct{ name, up, down, says string }{
		{"iptables", "iptables -A INPUT -p tcp --dport 80 -j DROP", "iptables -F; iptables -X INPUT", `chain "INPUT" of table "filter"`},
		{"ip6tables", "ip6tables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 81", "ip6tables -t nat -F; ip6tables -t nat -X PREROUTING", `chain "PREROUTING" of table "nat"`},
		{"iptables-legacy", "iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 81", "", `table "nat" of iptables-legacy`},
		{"ip6tables-legacy", "ip6tables-legacy -A INPUT -p tcp --dport 80 -j DROP", "", `table "filter" of iptables-legacy`},
	} {
		t.Run(f.name, func(t *testing.T) {
			sb := runningSandbox(t, linked())
			if strings.Contains(f.name, "legacy") && os.Geteuid() != 0 {
				t.Skip("the kernel does not tell an ordinary user's sandbox of these")
			}
			meets(t, sb, listening(t, sb, "0.0.0.0:8080"), "203.0.113.7", "10.0.2.100:8080")
			all := connections(t, inside(sb), there4, false, 2)
			must(t, sb.Divert(all[0].from, all[0].to))
			if out, err := joinCommand(t, sb.PID(), "exec 2>&1; "+f.up).Output(); err != nil {
				skip(t, "no "+f.name+": %v: %s", err, out)
			}
			for _, v6 := range []bool{false, true} {
				if files, err := sb.Sockets(v6, 1); err == nil || files != nil || !strings.Contains(err.Error(), "firewall") || !strings.Contains(err.Error(), f.says) {
					t.Errorf("sockets: %v, want it to name %s", err, f.says)
				}
			}
			if err := sb.Divert(all[1].from, all[1].to); err == nil || !strings.Contains(err.Error(), f.says) {
				t.Errorf("divert: %v, want it to name %s", err, f.says)
			}
			if err := sb.Divert(all[0].from, all[0].to); err != nil {
				t.Errorf("what was diverted before: %v", err)
			}
			if f.down == "" {
				return // its tables stay as long as the network does
			}
			look(t, sb, f.down)
			files, err := sb.Sockets(false, 1)
			if err != nil {
				t.Errorf("without it again: %v", err)
			}
			closeAll(files)
		})
	}
}

// keptSockets are some that were made before.
type keptSockets struct {
	asker
	files map[bool][]*os.File
}

func keep(t *testing.T, a asker, n int) *keptSockets {
	t.Helper()
	k := &keptSockets{a, map[bool][]*os.File{}}
	for _, v6 := range []bool{false, true} {
		files, err := a.Sockets(v6, n)
		must(t, err)
		t.Cleanup(func() { closeAll(files) })
		k.files[v6] = files
	}
	return k
}

func (k *keptSockets) Sockets(v6 bool, n int) (files []*os.File, err error) {
	if len(k.files[v6]) < n {
		return nil, unix.ENOBUFS
	}
	files, k.files[v6] = k.files[v6][:n], k.files[v6][n:]
	return files, nil
}

// A firewall that comes up while sockets are kept, and sends what is for the
// sandbox's port on to a container, must not find another server here.
func TestTranslatedDestinationReachesNobodyElse(t *testing.T) {
	sb := runningSandbox(t, linked())
	kept := keep(t, sb, 2)
	out, err := joinCommand(t, sb.PID(), `exec 2>&1; set -e
		iptables -t nat -A OUTPUT -d 10.0.2.100 -p tcp --dport 8080 -j DNAT --to-destination 172.30.0.2:80
		ip6tables -t nat -A OUTPUT -d fd00::100 -p tcp --dport 8080 -j DNAT --to-destination '[fd11::2]:80'
		ip link add bridge0 type veth peer name container0
		ip link set bridge0 up; ip link set container0 up
		ip addr add 172.30.0.1/16 dev bridge0; ip addr add fd11::1/64 dev bridge0 nodad`).Output()
	if err != nil {
		skip(t, "no address translation: %v: %s", err, out)
	}
	for _, c := range []struct{ listen, direct, from, to string }{
		{"0.0.0.0:80", "10.0.2.100:80", "203.0.113.7", "10.0.2.100:8080"},
		{"[::]:80", "[fd00::100]:80", "2001:db8::7", "[fd00::100]:8080"},
	} {
		l := listening(t, sb, c.listen)
		// Nothing comes: 50 ms are hundreds of handshakes.
		_, err := connectAs(t, kept, clientOf(c.from), netip.MustParseAddrPort(c.to), 50*time.Millisecond)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		// Whom it accepts first is who comes now.
		meets(t, kept, l, c.from, c.direct)
	}
}
