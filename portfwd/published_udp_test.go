package portfwd

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// whoUDP answers each datagram with the address it came from.
func whoUDP(c *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort([]byte(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).String()), from)
	}
}

// askUDP sends one datagram from a host address and returns the answer. The
// socket is connected, so the answer came from where the datagram went.
func askUDP(t *testing.T, from, to string) (answer, local string) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 200)
	for range 2 { // the second finds the flow
		if _, err := c.Write([]byte("who am I?")); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("from %s to %s: %v", from, to, err)
		}
		answer = string(buf[:n])
	}
	return answer, c.LocalAddr().String()
}

func TestPublishedDatagramsShowTheClientsAddress(t *testing.T) {
	w := newWorld(t, publishing("0.0.0.0:7000:53/udp", "[::]:7000:53/udp"))
	go whoUDP(w.listenPacket("udp4", sandbox4+":53"))
	go whoUDP(w.listenPacket("udp6", "["+sandbox6+"]:53"))
	for _, host := range []string{outside4, outside6} {
		answer, local := askUDP(t, host, net.JoinHostPort(host, "7000"))
		if answer != local {
			t.Errorf("client %s is seen as %s", local, answer)
		}
	}
	for host, gateway := range map[string]string{"127.0.0.1": gateway4, "::1": gateway6} {
		answer, local := askUDP(t, host, net.JoinHostPort(host, "7000"))
		if want := net.JoinHostPort(gateway, portOf(addr(local))); answer != want {
			t.Errorf("client %s is seen as %s, want %s", local, answer, want)
		}
	}
}

type addr string

func (a addr) Network() string { return "udp" }
func (a addr) String() string  { return string(a) }

func TestPublishedDatagramsFindTheServerHoweverItIsBound(t *testing.T) {
	for _, bind := range []string{sandbox4, sandbox6, "127.0.0.1"} {
		t.Run(bind, func(t *testing.T) {
			w := newWorld(t, publishing("0.0.0.0:7000:53/udp", "[::]:7000:53/udp"))
			go whoUDP(w.listenPacket("udp", net.JoinHostPort(bind, "53")))
			for _, host := range []string{outside4, outside6, "127.0.0.1", "::1"} {
				if answer, _ := askUDP(t, host, net.JoinHostPort(host, "7000")); answer == "" {
					t.Errorf("no answer to %s", host)
				}
			}
		})
	}
}

func TestClientsWithEqualPortsAreKeptApart(t *testing.T) {
	w := newWorld(t, publishing("0.0.0.0:7000:53/udp", "[::]:7000:53/udp"))
	go whoUDP(w.listenPacket("udp4", sandbox4+":53")) // both families end up at the gateway's IPv4 address
	seen := make(map[string]string)
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(host), Port: 40000},
			net.UDPAddrFromAddrPort(netip.MustParseAddrPort(net.JoinHostPort(map[bool]string{true: "::1", false: "127.0.0.1"}[host == "::1"], "7000"))))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("?"))
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if other, ok := seen[string(buf[:n])]; ok {
			t.Errorf("%s and %s are both seen as %s", host, other, buf[:n])
		}
		seen[string(buf[:n])] = host
	}
}
