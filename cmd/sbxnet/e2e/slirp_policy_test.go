package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// comesFrom serves one TCP connection and one datagram at a host address, and
// returns where to and a function that waits for both and reports the addresses
// that they came from.
func comesFrom(t *testing.T, host string) (port string, clients func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	pc, err := net.ListenPacket("udp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	seen := make(chan string, 2)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		seen <- "tcp " + hostPart(c.RemoteAddr())
	}()
	go func() {
		_, from, err := pc.ReadFrom(make([]byte, 10))
		if err != nil {
			return
		}
		pc.WriteTo([]byte("x"), from)
		seen <- "udp " + hostPart(from)
	}()
	return port, func() []string {
		t.Helper()
		var all []string
		for range 2 {
			select {
			case s := <-seen:
				all = append(all, s)
			case <-time.After(10 * time.Second):
				t.Fatalf("only %q came", all)
			}
		}
		return all
	}
}

func hostPart(a net.Addr) string {
	host, _, _ := net.SplitHostPort(a.String())
	return host
}

// The outbound address is the source of all that leaves the sandbox, also of
// what goes no farther than the host itself.
func TestCompatSlirp4netnsOutboundAddressReachesTheHost(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	for name, c := range map[string]struct {
		flags            []string
		source4, source6 string
	}{
		"none":      {nil, "127.0.0.1", "::1"},
		"addresses": {[]string{"--outbound-addr=" + hostAddr4, "--outbound-addr6=" + hostAddr6}, hostAddr4, hostAddr6},
		"interface": {[]string{"--outbound-addr=host0", "--outbound-addr6=host0"}, hostAddr4, hostAddr6},
		"loopback":  {[]string{"--outbound-addr=127.0.0.1"}, "127.0.0.1", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			s := startSlirp(t, append(c.flags, "-c", "-6", "-r", "3", g.pid(), "tap0")...)
			s.waitReady()
			for host, want := range map[[2]string]string{{"127.0.0.1", "10.0.2.2"}: c.source4, {"::1", "fd00::2"}: c.source6} {
				port, clients := comesFrom(t, host[0])
				for _, network := range []string{"tcp", "udp"} {
					if got := g.sh(toolLine("refused", network, net.JoinHostPort(host[1], port))); strings.TrimSpace(got) != "connected" {
						t.Errorf("%s to %s: %q", network, host[1], got)
					}
				}
				for _, client := range clients() {
					if _, from, _ := strings.Cut(client, " "); from != want {
						t.Errorf("%s's client is %s, want %s", host[0], client, want)
					}
				}
			}
		})
	}
}

// What the name server's address was stays silent: callers wait for their own
// timeout, as they would where nobody has that address.
func TestCompatSlirp4netnsWithoutDNSTimesOut(t *testing.T) {
	g := newGuest(t)
	s := startSlirp(t, "-c", "-6", "-r", "3", "--disable-dns", g.pid(), "tap0")
	s.waitReady()
	var script strings.Builder
	tries := 0
	for _, a := range []string{"10.0.2.3", "fd00::3"} {
		for _, port := range []string{"53", "80"} {
			for _, network := range []string{"tcp", "udp"} {
				fmt.Fprintf(&script, "%s &\n", toolLine("refused", network, net.JoinHostPort(a, port)))
				tries++
			}
		}
	}
	script.WriteString("wait\n")
	got := g.sh(script.String())
	if strings.Count(got, "i/o timeout") != tries || strings.Count(got, "\n") != tries {
		t.Errorf("want %d timeouts:\n%s", tries, got)
	}
}
