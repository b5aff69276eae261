package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// Each of these is refused before anything starts: status 125, one line that
// names the flag and the value.
func TestBadInputIsRefusedInOneLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-p", "80:80:80:80"}, []string{"-p", "80:80:80:80"}},
		{[]string{"-p", "0:80"}, []string{"-p", "0:80"}},
		{[]string{"-p", "8080:70000"}, []string{"-p", "70000"}},
		{[]string{"-p", "8080-8090:80-81"}, []string{"-p", "8080-8090:80-81"}},
		{[]string{"-p", "8080:80/sctp"}, []string{"-p", "sctp"}},
		{[]string{"-p", "example:8080:80"}, []string{"-p", "example"}},
		{[]string{"-p", "18080:80", "-p", "18080:81"}, []string{"-p", "18080"}},
		{[]string{"-p", "18080-18090:80-90", "-p", "127.0.0.1:18085:85"}, []string{"-p", "18085"}},
		{[]string{"--mtu", "575"}, []string{"--mtu", "575"}},
		{[]string{"--mtu", "65521"}, []string{"--mtu", "65521"}},
		{[]string{"--mtu", "big"}, []string{"mtu", "big"}},
		{[]string{"--network", "bridge"}, []string{"--network", "bridge"}},
		{[]string{"--link", "wire"}, []string{"--link", "wire"}},
		{[]string{"--user-map", "some"}, []string{"--user-map", "some"}},
		{[]string{"--qdisc", "tbf"}, []string{"--qdisc", "tbf"}},
		{[]string{"--cidr", "10.0.2.0/33"}, []string{"--cidr", "10.0.2.0/33"}},
		{[]string{"--cidr", "10.0.2.7/24"}, []string{"--cidr", "10.0.2.7/24"}},
		{[]string{"--cidr", "127.0.0.0/24"}, []string{"--cidr", "127.0.0.0/24"}},
		{[]string{"--cidr6", "nonsense"}, []string{"--cidr6", "nonsense"}},
		{[]string{"--dns", "nobody"}, []string{"--dns", "nobody"}},
		{[]string{"--log-level", "loud"}, []string{"--log-level", "loud"}},
		{[]string{"--log-format", "xml"}, []string{"--log-format", "xml"}},
		{[]string{"--num-network-channels", "0"}, []string{"--num-network-channels", "0"}},
		{[]string{"--network", "none", "-p", "18080:80"}, []string{"-p", "none"}},
		{[]string{"--no-such-flag"}, []string{"no-such-flag"}},
		{[]string{"--pcap", "/nonexistent/dir/file"}, []string{"--pcap", "/nonexistent/dir/file"}},
	} {
		args := append(append([]string{"run"}, c.args...), "--", "touch", scratch(t)+"/ran")
		r := runSbxnet(t, args...)
		line := strings.TrimSuffix(r.stderr, "\n")
		if r.status != 125 || strings.Contains(line, "\n") || !strings.HasPrefix(line, "sbxnet: ") {
			t.Errorf("%v: status %d, stderr %q", c.args, r.status, r.stderr)
		}
		for _, w := range c.want {
			if !strings.Contains(line, w) {
				t.Errorf("%v: %q does not name %q", c.args, line, w)
			}
		}
		if _, err := os.Stat(args[len(args)-1]); err == nil {
			t.Errorf("%v: the command ran", c.args)
		}
	}
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r := runSbxnet(t, "run", "-p", port+":80", "--", "true")
	if r.status != 125 || !oneLineNaming(r.stderr, "127.0.0.1:"+port) ||
		!strings.Contains(r.stderr, "address already in use") || !strings.Contains(r.stderr, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestPrivilegedPortSaysTheWaysOut(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may bind ports below 1024; the ordinary user's run covers this")
	}
	r := runSbxnet(t, "run", "-p", "80:80", "--", "true")
	for _, want := range []string{"80", "ip_unprivileged_port_start", "setcap"} {
		if r.status != 125 || !oneLineNaming(r.stderr, want) {
			t.Errorf("status %d, stderr %q: no %q", r.status, r.stderr, want)
		}
	}
}

func TestExplicitCIDRThatCollidesIsRefused(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	for flag, cidr := range map[string]string{"--cidr": "192.0.2.0/24", "--cidr6": "2001:db8::/64"} {
		r := runSbxnet(t, "run", flag, cidr, "--", "true")
		if r.status != 125 || !oneLineNaming(r.stderr, cidr) || !strings.Contains(r.stderr, flag) {
			t.Errorf("%s %s: status %d, stderr %q", flag, cidr, r.status, r.stderr)
		}
	}
}

// The default network moves out of the way of a host route, and says so.
func TestDefaultCIDRMovesFromACollision(t *testing.T) {
	need(t, "ip")
	if !inAWorld(t) {
		return
	}
	if err := address("host0", "10.0.2.9/24", "fd00::9/64"); err != nil {
		t.Fatal(err)
	}
	r := runSbxnet(t, "run", "--", "ip", "-o", "addr", "show", "dev", "tap0")
	if r.status != 0 || strings.Contains(r.stdout, "10.0.2.100") || strings.Contains(r.stdout, "fd00::100/") || !strings.Contains(r.stdout, "inet 10.") {
		t.Errorf("status %d, stdout %q", r.status, r.stdout)
	}
	if !strings.Contains(r.stderr, "10.0.2.0/24") || !strings.Contains(r.stderr, "fd00::/64") {
		t.Errorf("the move is not mentioned: %q", r.stderr)
	}
}
