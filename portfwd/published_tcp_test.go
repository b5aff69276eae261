package portfwd

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// whoTCP tells each client the address that it is seen under.
func whoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, c.RemoteAddr().String())
		c.Close()
	}
}

var freshPorts atomic.Uint32

// freshPort is one that no client has had lately, which the kernel's choice may be: the
// stack may still have that of a client that has just left, and the next is seen under
// another.
func freshPort() uint16 { return uint16(10_000 + freshPorts.Add(1)%10_000) }

func askTCP(t *testing.T, from, to string) (answer, local string) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), freshPort())), Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("from %s to %s: %v", from, to, err)
	}
	return string(b), c.LocalAddr().String()
}

func TestPublishedPortShowsTheClientsAddress(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, publishing("0.0.0.0:7001:80", "[::]:7001:80"))
		go whoTCP(w.listen("tcp4", sandbox4+":80"))
		go whoTCP(w.listen("tcp6", "["+sandbox6+"]:80"))
		for _, host := range []string{outside4, outside6} {
			answer, local := askTCP(t, host, net.JoinHostPort(host, "7001"))
			if answer != local {
				t.Errorf("client %s is seen as %s", local, answer)
			}
		}
		for host, gateway := range map[string]string{"127.0.0.1": gateway4, "::1": gateway6} {
			answer, local := askTCP(t, host, net.JoinHostPort(host, "7001"))
			if want := net.JoinHostPort(gateway, portOf(addr(local))); answer != want {
				t.Errorf("client %s is seen as %s, want %s", local, answer, want)
			}
		}
	})
}

func TestServerIsFoundHoweverItIsBound(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		for _, bind := range []string{sandbox4, sandbox6, "127.0.0.1"} {
			t.Run(bind, func(t *testing.T) {
				w := newWorld(t, way, publishing("0.0.0.0:7001:80", "[::]:7001:80"))
				go whoTCP(w.listen("tcp", net.JoinHostPort(bind, "80")))
				for _, host := range []string{outside4, outside6, "127.0.0.1", "::1"} {
					for range 2 { // the second time it is remembered
						if answer, _ := askTCP(t, host, net.JoinHostPort(host, "7001")); answer == "" {
							t.Errorf("no answer to %s", host)
						}
					}
				}
			})
		}
	})
}

// A client that was there before the server had all its addresses is seen
// otherwise than it is; those that come later are not.
func TestServerThatMovesToItsFirstAddressSeesClientsAsTheyAre(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network, func(t *testing.T) {
				w := newWorld(t, way, publishing("0.0.0.0:7001:80/"+network))
				ask, serve := askTCP, func(at string) io.Closer {
					l := w.listen("tcp", at)
					go whoTCP(l)
					return l
				}
				if network == "udp" {
					ask, serve = askUDP, func(at string) io.Closer {
						c := w.listenPacket("udp", at)
						go whoUDP(c)
						return c
					}
				}
				ipv6 := serve(net.JoinHostPort(sandbox6, "80"))
				if answer, _ := ask(t, outside4, net.JoinHostPort(outside4, "7001")); answer == "" {
					t.Fatal("the server is not found at its IPv6 address")
				}
				ipv6.Close()
				serve(net.JoinHostPort(sandbox4, "80"))
				serve(net.JoinHostPort(sandbox6, "80"))
				for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
					answer, local := ask(t, outside4, net.JoinHostPort(outside4, "7001"))
					if answer == local {
						return
					}
					if time.Since(began) > 10*rememberTarget {
						t.Fatalf("client %s is still seen as %s", local, answer)
					}
				}
			})
		}
	})
}

func TestPublishedPortWithoutServerResets(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, publishing("127.0.0.1::80"))
		c, err := net.Dial("tcp", w.bound[0].Host.String())
		if err == nil { // else the reset was faster than Dial
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%v, want connection reset", err)
		}
		if st := w.fwd.Stats().TCP; st.NoServer != 1 {
			t.Errorf("%+v, want one without server", st)
		}
	})
}

func TestPublishedStreamsBothWays(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, publishing("127.0.0.1::80"))
		l := w.listen("tcp4", sandbox4+":80")
		accepted := make(chan net.Conn, 1)
		go func() {
			if c, err := l.Accept(); err == nil {
				accepted <- c
			}
		}()
		a, err := net.Dial("tcp", w.bound[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b := <-accepted
		defer b.Close()
		swap(t, a, b, 20<<20)
	})
}

func TestClientThatSpeaksFirstAndHalfClosesIsHeard(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, publishing("127.0.0.1::80"))
		l := w.listen("tcp4", "127.0.0.1:80") // the last target: the client has long half-closed
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			echo(c)
			c.Close()
		}()
		c, err := net.Dial("tcp", w.bound[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, "hello")
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func TestTCPClientsWithEqualPortsAreKeptApart(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, publishing("0.0.0.0:7001:80", "[::]:7001:80"))
		l := w.listen("tcp4", sandbox4+":80")
		hold := make(chan net.Conn, 10)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(hold)
					return
				}
				io.WriteString(c, c.RemoteAddr().String()+"\n")
				hold <- c
			}
		}()
		seen := make(map[string]string)
		port := 0 // the first client's: a port of ours may be in TIME-WAIT
		for _, pair := range [][2]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.2", "127.0.0.1"}, {"::1", "::1"}} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(pair[0]), Port: port}}
			c, err := d.Dial("tcp", net.JoinHostPort(pair[1], "7001"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			port = c.LocalAddr().(*net.TCPAddr).Port
			c.SetDeadline(time.Now().Add(5 * time.Second))
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v", pair[0], err)
			}
			if other, ok := seen[string(buf[:n])]; ok {
				t.Errorf("%s and %s are both seen as %s", pair[0], other, buf[:n])
			}
			seen[string(buf[:n])] = pair[0]
		}
		l.Close()
		for c := range hold {
			c.Close()
		}
	})
}
