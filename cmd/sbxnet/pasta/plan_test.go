package pasta

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/userns"
)

func TestMain(m *testing.M) {
	userns.Init()
	// What /proc/self says is the main thread's view; tests that change their
	// namespace do it on threads that end.
	runtime.LockOSThread()
	os.Exit(m.Run())
}

func hostOf(name, address, gateway string) hostFamily {
	h := hostFamily{Interface: name}
	if address != "" {
		h.Address = netip.MustParsePrefix(address)
	}
	if gateway != "" {
		h.Gateway = netip.MustParseAddr(gateway)
	}
	return h
}

func familyString(f network.Family) string {
	if !f.On() {
		return "off"
	}
	return fmt.Sprintf("%s/%d by %s", f.Sandbox, f.Prefix.Bits(), f.Gateway)
}

// What the options say goes before what the host has, each by itself.
func TestAddressesOfTheSandbox(t *testing.T) {
	lan4, lan6 := hostOf("eth0", "192.168.1.5/24", "192.168.1.1"), hostOf("eth0", "2001:db8::5/64", "fe80::1")
	for _, c := range []struct {
		args         string
		host4, host6 hostFamily
		v4, v6       string
		copied       bool
	}{
		{"1", lan4, lan6, "192.168.1.5/24 by 192.168.1.1", "2001:db8::5/64 by fe80::1", true},
		{"-4 1", lan4, hostFamily{}, "192.168.1.5/24 by 192.168.1.1", "off", true},
		{"1", lan4, hostFamily{}, "192.168.1.5/24 by 192.168.1.1", "off", true},
		{"1", hostFamily{}, lan6, "off", "2001:db8::5/64 by fe80::1", true},
		{"-a 10.0.2.100 -g 10.0.2.2 -n 24 1", lan4, lan6, "10.0.2.100/24 by 10.0.2.2", "2001:db8::5/64 by fe80::1", true},
		{"-a 10.0.2.100 -g 10.0.2.2 -n 24 -4 1", lan4, hostFamily{}, "10.0.2.100/24 by 10.0.2.2", "off", false},
		{"-a 10.0.2.100/25 -4 1", lan4, hostFamily{}, "10.0.2.100/25 by 10.0.2.1", "off", false},
		{"-a 10.0.2.100 -4 1", lan4, hostFamily{}, "10.0.2.100/8 by 10.0.0.1", "off", false},
		{"-a 172.16.0.9 -4 1", lan4, hostFamily{}, "172.16.0.9/16 by 172.16.0.1", "off", false},
		{"-a 192.168.7.9 -4 1", lan4, hostFamily{}, "192.168.7.9/24 by 192.168.7.1", "off", false},
		{"-a 10.0.2.1/24 -4 1", lan4, hostFamily{}, "10.0.2.1/24 by 10.0.2.2", "off", false},
		{"-a 192.168.1.5 -4 1", lan4, hostFamily{}, "192.168.1.5/24 by 192.168.1.1", "off", true},
		{"-g 192.168.1.7 1", lan4, hostFamily{}, "192.168.1.5/24 by 192.168.1.7", "off", true},
		{"-n 16 1", lan4, hostFamily{}, "192.168.1.5/16 by 192.168.1.1", "off", true},
		{"-a fd00::100 1", lan4, hostFamily{}, "192.168.1.5/24 by 192.168.1.1", "fd00::100/64 by fd00::1", true},
		{"-a fd00::100 -g fd00::2 1", lan4, lan6, "192.168.1.5/24 by 192.168.1.1", "fd00::100/64 by fd00::2", true},
		// A cloud's machine has a /32, with its gateway out of it; a VPN's link has none.
		{"1", hostOf("eth0", "10.128.0.7/32", "10.128.0.1"), hostFamily{}, "10.128.0.7/28 by 10.128.0.1", "off", true},
		{"1", hostOf("wg0", "10.8.0.2/32", ""), hostOf("wg0", "fd08::2/128", ""), "10.8.0.2/31 by 10.8.0.3", "fd08::2/127 by fd08::3", true},
		{"1", hostOf("ppp0", "10.8.0.2/31", "10.8.0.3"), hostFamily{}, "10.8.0.2/31 by 10.8.0.3", "off", true},
		{"1", hostOf("eth0", "2.0.0.1/24", "3.0.0.1"), hostFamily{}, "2.0.0.1/7 by 3.0.0.1", "off", true},
	} {
		p := &plan{}
		p.fill(mustParse(t, c.args), c.host4, c.host6)
		if got4, got6 := familyString(p.V4), familyString(p.V6); got4 != c.v4 || got6 != c.v6 || p.copied != c.copied {
			t.Errorf("%s with %v %v: %s and %s, copied %v; want %s and %s, %v", c.args, c.host4, c.host6, got4, got6, p.copied, c.v4, c.v6, c.copied)
		}
	}
}

// configured is what the network of a plan is told, with a host on the LAN.
func configured(t *testing.T, args string) network.Config {
	t.Helper()
	o := mustParse(t, args)
	p := &plan{MAC: net.HardwareAddr(network.SandboxMAC[:]), GatewayMAC: net.HardwareAddr(network.GatewayMAC[:]), host4: netip.MustParseAddr("192.168.1.5"), host6: netip.MustParseAddr("2001:db8::5")}
	p.fill(o, hostOf("eth0", "192.168.1.5/24", "192.168.1.1"), hostOf("eth0", "2001:db8::5/64", "fe80::1"))
	return p.network(o)
}

func TestWhatLeadsToTheHost(t *testing.T) {
	for args, want := range map[string]string{
		"1":                          "192.168.1.1>127.0.0.1 fe80::1>::1",
		"--no-map-gw 1":              "",
		"--map-host-loopback none 1": "",
		"--no-map-gw -4 --map-guest-addr 169.254.1.2 1":                  "169.254.1.2>192.168.1.5",
		"--map-guest-addr 169.254.1.2 --map-guest-addr fd07::1 -6 1":     "fe80::1>::1 fd07::1>2001:db8::5",
		"--map-host-loopback 10.7.7.7 1":                                 "10.7.7.7>127.0.0.1 fe80::1>::1",
		"--no-map-gw --map-host-loopback 10.7.7.7 1":                     "10.7.7.7>127.0.0.1",
		"--map-host-loopback 10.7.7.7 --map-host-loopback none -4 1":     "",
		"--map-guest-addr 169.254.1.2 --map-guest-addr none -4 1":        "192.168.1.1>127.0.0.1",
		"-a 10.0.2.100 -n 24 -g 10.0.2.2 -4 --map-guest-addr 10.0.2.9 1": "10.0.2.2>127.0.0.1 10.0.2.9>192.168.1.5",
	} {
		var got []string
		for _, m := range configured(t, args).Forward.HostMappings {
			got = append(got, m.Sandbox.String()+">"+m.Host.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// All zeroes is a host to the sandbox's kernel, and must be one to the stack.
func TestAddressOfTheNetworkIsAHosts(t *testing.T) {
	n := configured(t, "-a 10.0.2.0 -n 24 -g 10.0.2.2 -4 1")
	if n.Plan.V4.Prefix.String() != "10.0.2.0/32" || !n.Forward.AnswerAll {
		t.Errorf("%v, %v", n.Plan.V4, n.Forward.AnswerAll)
	}
}

func TestNameServers(t *testing.T) {
	for _, c := range []struct{ args, answers, tell4, upstream string }{
		{"1", "[]", "invalid IP", "invalid AddrPort"},
		{"--dns-forward 169.254.1.1 1", "[169.254.1.1]", "invalid IP", "invalid AddrPort"},
		{"--dns-forward 169.254.1.1 --dns-forward fd00::3 --dns-host 9.9.9.9 1", "[169.254.1.1 fd00::3]", "invalid IP", "9.9.9.9:53"},
		{"--dns-forward fd00::3 -4 1", "[]", "invalid IP", "invalid AddrPort"},
		{"--dns-forward 169.254.1.1 --dhcp-dns 1", "[169.254.1.1]", "169.254.1.1", "invalid AddrPort"},
		{"-D 9.9.9.9 --dhcp-dns 1", "[]", "9.9.9.9", "9.9.9.9:53"},
		{"-D 9.9.9.9 1", "[]", "invalid IP", "invalid AddrPort"},
	} {
		n := configured(t, c.args)
		answers := fmt.Sprint(n.Forward.DNSAddresses)
		if answers != c.answers || n.Plan.V4.DNS.String() != c.tell4 || n.DNS.Upstream.String() != c.upstream {
			t.Errorf("%s: answers at %s, tells %s, asks %s", c.args, answers, n.Plan.V4.DNS, n.DNS.Upstream)
		}
		if none := c.answers == "[]" && c.tell4 == "invalid IP"; n.DNS.None != none {
			t.Errorf("%s: no name server: %v", c.args, n.DNS.None)
		}
	}
}

// inNamespace runs the rest of the test in a network namespace of its own.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const in = "SBXNET_PASTA_TEST_NAMESPACE"
	if os.Getenv(in) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), in+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// hostWith makes interfaces, each "NAME ADDRESS...", and default routes, each
// "GATEWAY NAME METRIC".
func hostWith(t *testing.T, links, routes []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, l := range links {
		f := strings.Fields(l)
		must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: f[0]}, PeerName: fmt.Sprintf("peer%d", i)}))
		link, err := netlink.LinkByName(f[0])
		must(err)
		for _, a := range f[1:] {
			addr, err := netlink.ParseAddr(a)
			must(err)
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			must(netlink.AddrAdd(link, addr))
		}
		peer, err := netlink.LinkByName(fmt.Sprintf("peer%d", i))
		must(err)
		must(netlink.LinkSetUp(peer))
		must(netlink.LinkSetUp(link))
	}
	for _, r := range routes {
		var gateway, name string
		var metric int
		fmt.Sscan(r, &gateway, &name, &metric)
		link, err := netlink.LinkByName(name)
		must(err)
		must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway), Priority: metric}))
	}
}

// Of several default routes the one with the lowest metric is the host's, and
// each family may have its own interface.
func TestHostIsReadFromItsRoutes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if h, err := readHost(unix.AF_INET, ""); err != nil || h.on() {
		t.Errorf("a host without a network has %+v, %v", h, err)
	}
	hostWith(t, []string{
		"wan0 169.254.9.9/16 10.1.0.5/24 10.2.0.5/24",
		"lan0 192.168.1.5/24 2001:db8::5/64",
	}, []string{"192.168.1.1 lan0 200", "10.2.0.1 wan0 100", "fe80::99 lan0 50"})
	for _, c := range []struct {
		family int
		name   string
		want   hostFamily
	}{
		{unix.AF_INET, "", hostOf("wan0", "10.2.0.5/24", "10.2.0.1")},
		{unix.AF_INET6, "", hostOf("lan0", "2001:db8::5/64", "fe80::99")},
		{unix.AF_INET, "lan0", hostOf("lan0", "192.168.1.5/24", "192.168.1.1")},
		{unix.AF_INET6, "wan0", hostOf("wan0", "", "")},
	} {
		if h, err := readHost(c.family, c.name); err != nil || h != c.want {
			t.Errorf("family %d by %q: %+v, %v; want %+v", c.family, c.name, h, err, c.want)
		}
	}
	if _, err := readHost(unix.AF_INET, "nosuch0"); err == nil || err.Error() != "Invalid interface name nosuch0: no such device" {
		t.Errorf("%v", err)
	}
}

// A host whose default route is two halves, as a VPN makes it, has one all the
// same.
func TestHalvesOfADefaultRouteAreFound(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	hostWith(t, []string{"tun0 10.8.0.2/24"}, nil)
	link, err := netlink.LinkByName("tun0")
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
		_, dst, _ := net.ParseCIDR(half)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.IPv4(10, 8, 0, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := readHost(unix.AF_INET, ""); err != nil || h != hostOf("tun0", "10.8.0.2/24", "10.8.0.1") {
		t.Errorf("%+v, %v", h, err)
	}
}

// A host without any network gives the sandbox one of sbxnet's own.
func TestHostWithoutNetworkGetsAPlan(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	p, err := planFor(mustParse(t, "1"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Interface != "tap0" || familyString(p.V4) != "10.0.2.100/24 by 10.0.2.2" || familyString(p.V6) != "fd00::100/64 by fd00::2" {
		t.Errorf("%+v", p)
	}
	if p, err = planFor(mustParse(t, "-6 -I foo0 1")); err != nil || p.V4.On() || p.Interface != "foo0" {
		t.Errorf("%+v, %v", p, err)
	}
}
