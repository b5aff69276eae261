package portfwd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/dns"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/spec"
)

func mapping(sandbox, host string) HostMapping {
	return HostMapping{Sandbox: netip.MustParseAddr(sandbox), Host: netip.MustParseAddr(host)}
}

func TestMappedAddressesLeadToTheHosts(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) {
		c.HostMappings = []HostMapping{
			mapping(gateway4, "127.0.0.1"), mapping("169.254.1.2", outside4), mapping("10.0.2.9", outside4),
			mapping(gateway6, "::1"), mapping("fd00::9", outside6), mapping("2001:db8:9::9", outside6),
		}
	}))
	for sandbox, host := range map[string]string{
		gateway4: "127.0.0.1", "169.254.1.2": outside4, "10.0.2.9": outside4,
		gateway6: "::1", "fd00::9": outside6, "2001:db8:9::9": outside6,
	} {
		l := hostListen(t, host)
		go whoTCP(l)
		u := hostListenPacket(t, host)
		go whoUDP(u)
		to := net.JoinHostPort(sandbox, portOf(l.Addr()))
		c := w.mustDial("tcp", to)
		buf := make([]byte, 100)
		if n, err := c.Read(buf); err != nil || c.RemoteAddr().String() != to {
			t.Errorf("%s: %q, %v, from %v", to, buf[:n], err, c.RemoteAddr())
		}
		d := w.mustDial("udp", net.JoinHostPort(sandbox, portOf(u.LocalAddr())))
		d.Write([]byte("?"))
		if _, err := d.Read(buf); err != nil {
			t.Errorf("%s: %v", sandbox, err)
		}
		if err := w.ping(sandbox, 1); err != nil {
			t.Errorf("ping %s: %v", sandbox, err)
		}
	}
}

func TestMappingOpensNothingElse(t *testing.T) {
	l := hostListen(t, "127.0.0.1")
	w := newWorld(t, withConfig(func(c *Config) { c.HostMappings = []HostMapping{mapping("169.254.1.2", outside4)} }))
	for _, a := range []string{gateway4, "169.254.1.2", "169.254.1.3", "10.0.2.3"} {
		if _, err := w.dial("tcp", net.JoinHostPort(a, portOf(l.Addr()))); err == nil {
			t.Errorf("the host's loopback is reached at %s", a)
		}
	}
}

func TestMappingsThatCannotBeAreRefused(t *testing.T) {
	base := newWorld(t).fwd.cfg
	base.Published = nil
	for name, c := range map[string]func(*Config){
		"families":    func(c *Config) { c.HostMappings = []HostMapping{mapping("169.254.1.2", "::1")} },
		"no address":  func(c *Config) { c.HostMappings = []HostMapping{{}} },
		"sandbox":     func(c *Config) { c.HostMappings = []HostMapping{mapping(sandbox4, "127.0.0.1")} },
		"loopback":    func(c *Config) { c.HostMappings = []HostMapping{mapping("127.0.0.2", "127.0.0.1")} },
		"multicast":   func(c *Config) { c.HostMappings = []HostMapping{mapping("224.0.0.1", "127.0.0.1")} },
		"unspecified": func(c *Config) { c.HostMappings = []HostMapping{mapping("169.254.1.2", "0.0.0.0")} },
		"mapped":      func(c *Config) { c.HostMappings = []HostMapping{mapping("fd00::9", "::ffff:127.0.0.1")} },
		"from": func(c *Config) {
			c.HostMappings = []HostMapping{{netip.MustParseAddr("169.254.1.2"), loopback4, Outbound{Addr: loopback6}}}
		},
		"DNS":        func(c *Config) { c.DNSAddresses = []netip.Addr{loopback4} },
		"silent":     func(c *Config) { c.Silent = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
		"outbound":   func(c *Config) { c.Outbound4.Addr = loopback6 },
		"interface":  func(c *Config) { c.Outbound6.Interface = strings.Repeat("x", 16) },
		"gateway":    func(c *Config) { c.IPv4.Gateway = c.IPv4.Sandbox },
		"no gateway": func(c *Config) { c.IPv4.Gateway = netip.Addr{} },
	} {
		cfg := base
		c(&cfg)
		cfg.Published = bind(t, tcp4(7001))
		fd := cfg.Published[0].FD
		f, err := New(cfg)
		if err == nil {
			f.Close()
			t.Errorf("%s: accepted", name)
		}
		if _, err := unix.Getsockname(fd); err == nil {
			t.Errorf("%s: the published socket is still open", name)
		}
	}
}

func TestGatewayIsUnreachableWhereAskedFor(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.GatewayUnreachable = true }))
	for _, a := range []string{gateway4, gateway6} {
		if _, err := w.dial("tcp", net.JoinHostPort(a, "80")); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("tcp %s: %v, want network is unreachable", a, err)
		}
		c := w.mustDial("udp", net.JoinHostPort(a, "80"))
		// Without it the kernel does not tell of what may pass (udp_err in udp.c).
		control(t, c, func(fd int) error { hostsock.ReportErrors(fd, netip.MustParseAddr(a)); return nil })
		c.Write([]byte("?"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("udp %s: %v, want network is unreachable", a, err)
		}
	}
}

// A mapping's source is its own: that of outbound traffic has no part in it.
func TestMappingsComeFromTheAddressAskedFor(t *testing.T) {
	from := func(m HostMapping, a string) HostMapping {
		m.From.Addr = netip.MustParseAddr(a)
		return m
	}
	w := newWorld(t, withConfig(func(c *Config) {
		c.HostMappings = []HostMapping{
			from(mapping(gateway4, "127.0.0.1"), neighbor4), from(mapping(gateway6, "::1"), neighbor6),
			mapping("169.254.1.2", "127.0.0.1"),
		}
		c.Outbound4.Addr, c.Outbound6.Addr = netip.MustParseAddr(outside4), netip.MustParseAddr(outside6)
	}))
	for sandbox, c := range map[string]struct{ host, want string }{
		gateway4: {"127.0.0.1", neighbor4}, gateway6: {"::1", neighbor6}, "169.254.1.2": {"127.0.0.1", "127.0.0.1"},
	} {
		l := hostListen(t, c.host)
		go whoTCP(l)
		u := hostListenPacket(t, c.host)
		go whoUDP(u)
		buf := make([]byte, 100)
		tcp := w.mustDial("tcp", net.JoinHostPort(sandbox, portOf(l.Addr())))
		n, err := tcp.Read(buf)
		if got := hostOf(string(buf[:n])); err != nil || got != c.want {
			t.Errorf("tcp to %s comes from %s, %v; want %s", sandbox, got, err, c.want)
		}
		udp := w.mustDial("udp", net.JoinHostPort(sandbox, portOf(u.LocalAddr())))
		udp.Write([]byte("?"))
		n, err = udp.Read(buf)
		if got := hostOf(string(buf[:n])); err != nil || got != c.want {
			t.Errorf("udp to %s comes from %s, %v; want %s", sandbox, got, err, c.want)
		}
		if err := w.ping(sandbox, 1); err != nil {
			t.Errorf("ping %s: %v", sandbox, err)
		}
	}
}

func TestSilentAddressesAreThereAndSayNothing(t *testing.T) {
	silent := []string{"10.0.2.3", "fd00::3"}
	w := newWorld(t, hostLoopback, withConfig(func(c *Config) {
		c.IPv4.DNS, c.IPv6.DNS = netip.Addr{}, netip.Addr{}
		for _, a := range silent {
			c.Silent = append(c.Silent, netip.MustParseAddr(a))
		}
	}))
	for _, a := range silent {
		// Who is not there at all would be reported after some seconds.
		if err := w.ping(a, 1); err != nil {
			t.Errorf("ping %s: %v", a, err)
		}
		for _, port := range []string{"53", "80"} {
			const soon = 300 * time.Millisecond
			to := net.JoinHostPort(a, port)
			var err error
			w.sandbox.Do(func() { _, err = net.DialTimeout("tcp", to, soon) })
			if !isTimeout(err) {
				t.Errorf("tcp %s: %v, want silence", to, err)
			}
			c := w.mustDial("udp", to)
			c.Write([]byte("?"))
			c.SetReadDeadline(time.Now().Add(soon))
			if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
				t.Errorf("udp %s: %v, want silence", to, err)
			}
		}
	}
}

func TestOutboundTrafficLeavesFromTheAddressAskedFor(t *testing.T) {
	w := newWorld(t, hostLoopback, withConfig(func(c *Config) {
		c.Outbound4.Addr, c.Outbound6.Addr = netip.MustParseAddr(neighbor4), netip.MustParseAddr(neighbor6)
	}))
	for host, want := range map[string]string{outside4: neighbor4, outside6: neighbor6, gateway4: "127.0.0.1", gateway6: "::1"} {
		at := host
		if host == gateway4 || host == gateway6 { // leads to the host itself
			at = want
		}
		l := hostListen(t, at)
		go whoTCP(l)
		u := hostListenPacket(t, at)
		go whoUDP(u)
		buf := make([]byte, 100)
		c := w.mustDial("tcp", net.JoinHostPort(host, portOf(l.Addr())))
		n, err := c.Read(buf)
		if got := hostOf(string(buf[:n])); err != nil || got != want {
			t.Errorf("tcp to %s comes from %s, %v; want %s", host, got, err, want)
		}
		c = w.mustDial("udp", net.JoinHostPort(host, portOf(u.LocalAddr())))
		c.Write([]byte("?"))
		n, err = c.Read(buf)
		if got := hostOf(string(buf[:n])); err != nil || got != want {
			t.Errorf("udp to %s comes from %s, %v; want %s", host, got, err, want)
		}
		if err := w.ping(host, 1); err != nil {
			t.Errorf("ping %s: %v", host, err)
		}
	}
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

func TestOutboundTrafficLeavesByTheInterfaceAskedFor(t *testing.T) {
	for device, want := range map[string]unix.Errno{"lo": 0, nowhere: unix.ENETUNREACH, "gone0": unix.ENETUNREACH} {
		hosts := []string{outside6, outside4}
		if device == nowhere { // IPv4 would look for the host there, in vain
			hosts = hosts[:1]
		}
		t.Run(device, func(t *testing.T) {
			w := newWorld(t, withConfig(func(c *Config) { c.Outbound4.Interface, c.Outbound6.Interface = device, device }))
			for _, host := range hosts {
				l := hostListen(t, host)
				_, err := w.dial("tcp", l.Addr().String())
				if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", host, err, want)
				}
			}
		})
	}
}

func TestOutboundSaysWhatTheHostLacks(t *testing.T) {
	for _, c := range []struct {
		Outbound
		says string
	}{
		{Outbound{}, ""}, {Outbound{Addr: netip.MustParseAddr(neighbor6), Interface: "lo"}, ""},
		{Outbound{Addr: netip.MustParseAddr("192.0.2.1")}, "no address 192.0.2.1"},
		{Outbound{Interface: "gone0"}, `no network interface "gone0"`},
	} {
		err := c.Probe()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v, want %q", c.Outbound, err, c.says)
		}
	}
}

func TestNamesAreServedAtMoreAddresses(t *testing.T) {
	server := dns.New(dns.Config{Gateway4: netip.MustParseAddr(gateway4), Gateway6: netip.MustParseAddr(gateway6)})
	defer server.Close()
	more := []string{"169.254.1.1", "10.0.2.53", "2001:db8:53::53", "fd00::53"}
	w := newWorld(t, withConfig(func(c *Config) {
		c.Nameserver = server
		for _, a := range append(more, "10.0.2.3") { // which is there already
			c.DNSAddresses = append(c.DNSAddresses, netip.MustParseAddr(a))
		}
	}))
	for _, a := range append(more, "10.0.2.3") {
		for _, network := range []string{"udp", "tcp"} {
			r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return w.dial(network, net.JoinHostPort(a, "53"))
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			got, err := r.LookupHost(ctx, "host.sbxnet.internal")
			cancel()
			if err != nil || len(got) != 2 {
				t.Errorf("%s over %s: %v, %v", a, network, got, err)
			}
		}
		if _, err := w.dial("tcp", net.JoinHostPort(a, "80")); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("port 80 of %s: %v, want connection refused", a, err)
		}
		if err := w.ping(a, 1); err != nil {
			t.Errorf("ping %s: %v", a, err)
		}
	}
}

func TestProtocolsThatAreOffAreSilent(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.NoTCP, c.NoUDP, c.NoICMP = true, true, true }))
	l, u := hostListen(t, outside4), hostListenPacket(t, outside4)
	const soon = 300 * time.Millisecond
	var err error
	w.sandbox.Do(func() { _, err = net.DialTimeout("tcp", l.Addr().String(), soon) })
	if !isTimeout(err) {
		t.Errorf("TCP: %v, want silence", err)
	}
	c := w.mustDial("udp", u.LocalAddr().String())
	c.Write([]byte("?"))
	c.SetReadDeadline(time.Now().Add(soon))
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("UDP: %v, want silence", err)
	}
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
		if st := w.fwd.Stats(); st.TCP.Denied > 0 && st.UDP.Denied > 0 {
			break
		}
	}
	st := w.fwd.Stats()
	if st.TCP.Denied == 0 || st.TCP.Open != 0 || st.UDP.Denied != 1 || st.UDP.Open != 0 {
		t.Errorf("%+v\n%+v", st.TCP, st.UDP)
	}
	if w.pingOnly(gateway4) == nil || w.pingOnly(outside4) == nil {
		t.Error("ping is answered")
	}
}

func TestClientsComeInByTheInterfaceOfTheSpec(t *testing.T) {
	w := newWorld(t)
	go whoTCP(w.listen("tcp4", ":80"))
	on := func(device string, port uint16) spec.Spec {
		return spec.Spec{Protocol: spec.TCP, HostIP: netip.IPv4Unspecified(), HostPort: port, Port: 80, Count: 1, Interface: device}
	}
	// One port, two interfaces: the clients of lo find the one on lo.
	bound := bind(t, on("lo", 7001), on(nowhere, 7001), on(nowhere, 7002))
	if err := w.fwd.Publish(bound); err != nil {
		t.Fatal(err)
	}
	askTCP(t, outside4, outside4+":7001")
	if _, err := net.DialTimeout("tcp", outside4+":7002", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("client on lo of a port on %s: %v", nowhere, err)
	}
	if err := w.fwd.Unpublish(bound[1:2]); err != nil {
		t.Fatal(err)
	}
	askTCP(t, outside4, outside4+":7001")
	if got := fmt.Sprint(len(w.fwd.Published())); got != "2" {
		t.Errorf("%s ports left", got)
	}
}
