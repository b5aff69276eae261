package userns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// look runs a script in a sandbox and returns what it printed.
func look(t testing.TB, sb *Sandbox, script string) string {
	t.Helper()
	out, err := joinCommand(t, sb.PID(), script).Output()
	if err != nil {
		t.Errorf("in the sandbox: %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// routing is all that steering could change. Routes of link-local addresses come
// from the kernel, at some time after the link is up.
const routing = "ip rule; ip -6 rule; (ip route show table all; ip -6 route show table all) | grep -v 'fe80:\\|ff00:'; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv?/fwmark_reflect"

func TestNothingIsSteeredBeforeASocketIsAskedFor(t *testing.T) {
	sb := runningSandbox(t, linked())
	if out := look(t, sb, "ip rule; ip -6 rule; cat /proc/sys/net/ipv4/tcp_fwmark_accept"); strings.Contains(out, "fwmark") || !strings.HasSuffix(out, "\n0\n") {
		t.Error(out)
	}
}

func TestSteeringThatFailsChangesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil, mend string
		want        string
		only6       bool
	}{
		"sysctls cannot be set": {"mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys", "umount /proc/sys", "read-only file system", false},
		"lo is down":            {"ip link set lo down", "ip link set lo up", "local default route on lo", true},
		"a rule before all":     {"ip rule add pref 0 lookup main; ip -6 rule add pref 0 lookup main", "ip rule del pref 0 lookup main; ip -6 rule del pref 0 lookup main", "another rule", false},
		"no room for ours":      {"ip rule add pref 1 lookup main; ip -6 rule add pref 1 lookup main", "ip rule del pref 1; ip -6 rule del pref 1", "priority 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			sb := runningSandbox(t, linked())
			look(t, sb, c.spoil)
			before := look(t, sb, routing)
			for _, v6 := range []bool{false, true} {
				if c.only6 && !v6 {
					continue
				}
				files, err := sb.Sockets(v6, 3)
				if err == nil || files != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("IPv6 %v: %v, want %q", v6, err, c.want)
				}
			}
			if after := look(t, sb, routing); after != before {
				t.Errorf("after it\n%sbefore\n%s", after, before)
			}
			look(t, sb, c.mend)
			meets(t, sb, listening(t, sb, "0.0.0.0:80"), "203.0.113.7", "10.0.2.100:80")
		})
	}
}

// Whatever the command does to rules, the next request makes good, and
// connections that there are go on.
func TestSteeringIsMended(t *testing.T) {
	sb := runningSandbox(t, linked())
	l4, l6 := listening(t, sb, "0.0.0.0:80"), listening(t, sb, "[::]:80")
	client, err := connectAs(t, sb, clientOf("203.0.113.7"), netip.MustParseAddrPort("10.0.2.100:80"), answered)
	must(t, err)
	server, err := l4.Accept()
	must(t, err)
	defer server.Close()
	for _, spoil := range []string{
		"ip rule flush; ip rule add pref 32766 lookup main; ip -6 rule flush; ip -6 rule add pref 32766 lookup main",
		"ip rule add lookup main; ip -6 rule add lookup main", // before ours, where no priority is given
		"ip rule add pref 20 lookup main; ip -6 rule add pref 20 lookup main",
		fmt.Sprintf("ip route flush table %d; ip -6 route flush table %[1]d", SocketMark),
		"ip rule del from 10.0.2.100; ip -6 rule del from ::1",
		"ip rule del unreachable 2>/dev/null || ip rule del fwmark 0x53000058 unreachable",
		"ip link set lo down; ip link set lo up; ip -6 addr replace ::1/128 dev lo; ip -6 route replace local ::1 dev lo table local",
		"echo 0 > /proc/sys/net/ipv4/tcp_fwmark_accept; echo 0 > /proc/sys/net/ipv4/fwmark_reflect; echo 0 > /proc/sys/net/ipv6/fwmark_reflect",
	} {
		look(t, sb, spoil)
		meets(t, sb, l4, "203.0.113.7", "10.0.2.100:80")
		meets(t, sb, l4, "10.0.2.2", "127.0.0.1:80")
		meets(t, sb, l6, "2001:db8::7", "[fd00::100]:80")
		meets(t, sb, l6, "fd00::2", "[::1]:80")
		if n := strings.Count(look(t, sb, "ip rule; ip -6 rule"), "fwmark 0x53000058"); n != 6 || t.Failed() {
			t.Fatalf("%d rules after %s:\n%s", n, spoil, look(t, sb, routing))
		}
	}
	exchange(t, client, server)
}

func TestSocketsLeadNowhereElse(t *testing.T) {
	sb := runningSandbox(t, linked())
	for from, to := range map[string]string{
		"10.0.2.2": "10.0.2.3:53", "203.0.113.7": "198.51.100.1:80", "fd00::2": "[2001:db8::9]:80",
	} {
		if _, err := connectAs(t, sb, clientOf(from), netip.MustParseAddrPort(to), answered); !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("%s to %s: %v", from, to, err)
		}
	}
}
