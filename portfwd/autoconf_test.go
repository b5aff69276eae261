package portfwd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sbxnet/portfwd/dhcp"
	"sbxnet/portfwd/dns"
	"sbxnet/portfwd/internal/lab"
	"sbxnet/tapdev"
)

// These tests have DHCP clients that others wrote configure a sandbox whose
// link has no address, with scripts that do what the client says and note it.

func bareGuest(o *worldOptions) { o.bare = true }

// prepareBareGuest brings the link up, and leaves all else to the guest.
func prepareBareGuest() error {
	for _, name := range []string{"lo", "tap0"} {
		if name == "tap0" {
			for key, value := range map[string]string{"accept_dad": "0", "accept_ra": "1", "router_solicitation_delay": "0"} {
				if err := os.WriteFile("/proc/sys/net/ipv6/conf/tap0/"+key, []byte(value), 0); err != nil {
					return err
				}
			}
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// need finds a client. Without it a test is skipped, but in CI, which installs
// it.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	lab.Unavailable(t, "%s is not installed (Debian package %s)", program, pkg)
	return ""
}

// run runs a program inside the sandbox until it ends.
func (w *world) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out []byte
	var err error
	w.sandbox.Do(func() { out, err = cmd.CombinedOutput() })
	return string(out), err
}

func (w *world) mustRun(name string, args ...string) string {
	w.t.Helper()
	out, err := w.run(name, args...)
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// script writes a program for the client to run, and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// noted reads what a script has noted: lines of the form name=value.
func noted(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[k] = strings.Trim(v, "'\"")
		}
	}
	return m
}

func expectNoted(t *testing.T, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if strings.TrimSpace(got[k]) != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
}

// configuring gives the guest's world a name server and things to say.
func configuring(t *testing.T, more ...option) *world {
	server := dns.New(dns.Config{Gateway4: netip.MustParseAddr(gateway4), Gateway6: netip.MustParseAddr(gateway6)})
	t.Cleanup(func() { server.Close() })
	return newWorld(t, append([]option{bareGuest, withConfig(func(c *Config) {
		c.Nameserver = server
		c.MTU = 1400
		c.Autoconf.Lease = time.Hour
		c.Autoconf.Hostname, c.Autoconf.Domain = "box", "sbxnet.internal"
		c.Autoconf.Search = []string{"sbxnet.internal", "example.org"}
	})}, more...)...)
}

// checkConfigured shows that the guest's network works: the gateway answers,
// names resolve and the outside is reached.
func (w *world) checkConfigured(gateway, resolver, outside, wantSource string) {
	w.t.Helper()
	if path, err := exec.LookPath("ping"); err == nil {
		w.mustRun(path, "-n", "-c", "1", "-W", "5", gateway)
	} else {
		w.t.Log("ping is not installed (Debian package iputils-ping)")
	}
	r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return w.dial("udp", net.JoinHostPort(resolver, "53"))
	}}
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	if got, err := r.LookupHost(ctx, "host.sbxnet.internal"); err != nil || len(got) == 0 {
		w.t.Errorf("names do not resolve: %v, %v", got, err)
	}
	// A client that has set an IPv6 address does not wait until it is good for a
	// source, and its kernel would take the link-local one.
	var err error
	if w.sandbox.Do(func() { err = lab.AwaitAddress(wantSource) }); err != nil {
		w.t.Fatal(err)
	}
	l := hostListen(w.t, outside)
	c := w.mustDial("tcp", l.Addr().String())
	if a, _, _ := net.SplitHostPort(c.LocalAddr().String()); a != wantSource {
		w.t.Errorf("connects from %v", a)
	}
}

// udhcpcScript configures the link as busybox tells.
const udhcpcScript = `
case "$1" in
deconfig) ip -4 addr flush dev "$interface" ;;
bound|renew)
	set >"$NOTES"
	ip addr add "$ip/$mask" broadcast "$broadcast" dev "$interface"
	ip link set "$interface" mtu "$mtu"
	ip route replace default via "$router" ;;
esac
`

func TestUdhcpcConfiguresTheGuest(t *testing.T) {
	client := need(t, "udhcpc", "udhcpc")
	for _, c := range []struct {
		kind   tapdev.Kind
		queues int
	}{{tapdev.TAP, 1}, {tapdev.TAP, 4}, {tapdev.Packet, 1}} {
		t.Run(fmt.Sprint(c.kind, c.queues), func(t *testing.T) {
			w := configuring(t, linked(c.kind), queues(c.queues), withConfig(func(c *Config) { c.IPv6 = Addresses{} }))
			notes := filepath.Join(t.TempDir(), "notes")
			t.Setenv("NOTES", notes)
			w.mustRun(client, "-i", "tap0", "-f", "-q", "-n", "-t", "5", "-T", "5", "-s", script(t, udhcpcScript),
				"-O", "mtu", "-O", "search", "-O", "broadcast")
			expectNoted(t, noted(t, notes), map[string]string{
				"ip": sandbox4, "subnet": "255.255.255.0", "router": gateway4, "dns": "10.0.2.3", "mtu": "1400",
				"broadcast": "10.0.2.255", "lease": "3600", "serverid": gateway4, "domain": "sbxnet.internal",
				"search": "sbxnet.internal example.org", "hostname": "box",
			})
			w.checkConfigured(gateway4, "10.0.2.3", outside4, sandbox4)
			if st := w.fwd.Stats().DHCP; st.In4 != 2 || st.Out4 != 2 || st.Leases4 != 1 || st.Malformed != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// dhclientScript configures the link as ISC's client tells. Its own script
// would write to the host's /etc/resolv.conf.
const dhclientScript = `
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
	set >"$NOTES"
	ip addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
	ip route replace default via "$new_routers" ;;
BOUND6|RENEW6|REBIND6)
	set >"$NOTES"
	ip -6 addr replace "$new_ip6_address/64" dev "$interface" ;;
RELEASE|RELEASE6) echo released=yes >"$NOTES" ;;
esac
exit 0
`

// dhclient runs ISC's client for one family. It goes on in the background until
// release.
type dhclient struct {
	*world
	path, notes, pid string
	args             []string
}

func newDhclient(w *world, t *testing.T, family string) *dhclient {
	dir := t.TempDir()
	d := &dhclient{world: w, path: need(t, "dhclient", "isc-dhcp-client"), notes: filepath.Join(dir, "notes")}
	conf := filepath.Join(dir, "conf")
	text := "timeout 15;\nrequest subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, " +
		"host-name, interface-mtu, dhcp6.name-servers, dhcp6.domain-search;\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTES", d.notes)
	pid := filepath.Join(dir, "pid")
	d.pid = pid
	t.Cleanup(func() { endDhclient(pid) })
	d.args = []string{family, "-cf", conf, "-lf", filepath.Join(dir, "leases"), "-pf", pid,
		"-sf", script(t, dhclientScript), "-e", "NOTES=" + d.notes}
	return d
}

// endDhclient ends a client that a failed test has left behind.
func endDhclient(pidFile string) {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), pidFile) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (d *dhclient) bind(t *testing.T) map[string]string {
	t.Helper()
	out := d.mustRun(d.path, append(d.args, "-1", "-v", "tap0")...)
	if _, err := os.Stat(d.notes); err != nil {
		t.Fatalf("not bound:\n%s", out)
	}
	// The one that goes on in the background notes its number late, and a release
	// before that would not end it.
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(d.pid); err == nil && len(b) > 0 {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the client has not gone to the background")
		}
	}
	return noted(t, d.notes)
}

func (d *dhclient) release(t *testing.T) {
	t.Helper()
	d.mustRun(d.path, append(d.args, "-r", "tap0")...)
	expectNoted(t, noted(t, d.notes), map[string]string{"released": "yes"})
	d.awaitEnd(t)
}

// awaitEnd waits until no client is left. For IPv6 the one that was told to
// release returns at once, and waits for the answer in the background.
func (d *dhclient) awaitEnd(t *testing.T) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		some := false
		for _, f := range lines {
			line, _ := os.ReadFile(f)
			some = some || strings.Contains(string(line), d.notes)
		}
		if !some {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the client goes on after the release")
		}
	}
}

func TestDhclientConfiguresTheGuest(t *testing.T) {
	need(t, "dhclient", "isc-dhcp-client")
	w := configuring(t)
	d := newDhclient(w, t, "-4")
	got := d.bind(t)
	expectNoted(t, got, map[string]string{
		"new_ip_address": sandbox4, "new_subnet_mask": "255.255.255.0", "new_routers": gateway4,
		"new_domain_name_servers": "10.0.2.3", "new_interface_mtu": "1400", "new_broadcast_address": "10.0.2.255",
		"new_dhcp_lease_time": "3600", "new_domain_name": "sbxnet.internal", "new_host_name": "box",
		"new_domain_search": "sbxnet.internal. example.org.",
	})
	w.checkConfigured(gateway4, "10.0.2.3", outside4, sandbox4)
	d.release(t)
	if st := w.fwd.Stats().DHCP; st.Leases4 != 0 || st.Malformed != 0 {
		t.Errorf("after release: %+v", st)
	}
}

func TestDhclientAndAdvertisementsConfigureTheGuestForIPv6(t *testing.T) {
	need(t, "dhclient", "isc-dhcp-client")
	w := configuring(t)
	w.waitForRoute6()
	d := newDhclient(w, t, "-6")
	expectNoted(t, d.bind(t), map[string]string{
		"new_ip6_address": sandbox6, "new_dhcp6_name_servers": "fd00::3", "new_dhcp6_domain_search": "sbxnet.internal. example.org.",
		"new_max_life": "3600",
	})
	w.checkConfigured(gateway6, "fd00::3", outside6, sandbox6)
	d.release(t)
	if st := w.fwd.Stats().DHCP; st.Leases6 != 0 || st.Malformed != 0 {
		t.Errorf("after release: %+v", st)
	}
}

// waitForRoute6 waits until the guest's kernel has taken a default route, and
// the MTU, from a router advertisement.
func (w *world) waitForRoute6() {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var out []byte
		w.sandbox.Do(func() { out, _ = os.ReadFile("/proc/thread-self/net/ipv6_route") })
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, strings.Repeat("0", 32)+" 00 ") && strings.HasSuffix(strings.TrimSpace(line), "tap0") {
				return
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no default route from a router advertisement:\n%s", out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestAutoconfCanBeTurnedOffAndMoved(t *testing.T) {
	c := Config{
		IPv4: Addresses{netip.MustParseAddr(gateway4), netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr(sandbox4), netip.MustParsePrefix("10.0.2.0/24")},
		IPv6: Addresses{netip.MustParseAddr(gateway6), netip.MustParseAddr("fd00::3"), netip.MustParseAddr(sandbox6), netip.MustParsePrefix("fd00::/64")},

		HardwareAddr: ourMAC, SandboxHardwareAddr: guestMAC, MTU: 1500,
	}
	if a := c.routerAdvertisement(); !a.Managed || !a.Other || a.Interval != 0 || a.Disabled || a.Autonomous {
		t.Errorf("by default: %+v", a)
	}
	c.Autoconf = Autoconf{NoDHCPv6: true, FormAddresses: true, AdvertiseEvery: time.Minute,
		IPv4: dhcp.Range{First: netip.MustParseAddr("10.0.2.15"), Last: netip.MustParseAddr("10.0.2.30")}}
	if a := c.routerAdvertisement(); a.Managed || a.Other || !a.Autonomous || a.Interval != time.Minute {
		t.Errorf("without DHCPv6: %+v", a)
	}
	if s, err := c.dhcpServer(); s == nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	c.Autoconf.NoDHCPv4, c.Autoconf.NoAdvertisements = true, true
	if s, err := c.dhcpServer(); s != nil || err != nil || !c.routerAdvertisement().Disabled {
		t.Errorf("everything off: %v, %v", s, err)
	}
}
