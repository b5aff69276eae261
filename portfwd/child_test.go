package portfwd

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/portfwd/spec"
)

// publishTo publishes port 80, TCP and UDP, of child on port 7001 of all the
// host's addresses.
func (w *world) publishTo(t *testing.T, child string) {
	t.Helper()
	var specs []spec.Spec
	for _, host := range []string{"0.0.0.0", "::"} {
		for _, p := range []spec.Protocol{spec.TCP, spec.UDP} {
			specs = append(specs, spec.Spec{Protocol: p, HostIP: netip.MustParseAddr(host), HostPort: 7001, Port: 80, Count: 1,
				Child: netip.MustParseAddr(child)})
		}
	}
	if err := w.fwd.Publish(bind(t, specs...)); err != nil {
		t.Fatal(err)
	}
	w.awaitInside(t)
}

// serve answers at an address in the sandbox.
func (w *world) serve(address string) {
	go whoTCP(w.listen("tcp", address))
	go whoUDP(w.listenPacket("udp", address))
}

func TestChildIsWhereAPortLeadsAndKeepsTheClientsAddress(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way)
		// Such as a container's, behind a bridge in the sandbox.
		const inner4, inner6 = "172.30.0.1", "fd30::1"
		err := w.sandbox.Try(func() error {
			addLocal(t, inner4+"/32", inner6+"/128")
			return lab.AwaitAddress(inner6)
		})
		if err != nil {
			t.Fatal(err)
		}
		had := map[string]bool{} // ports of clients before, whom a server may still answer
		for _, c := range []struct{ child, client, seen string }{
			{sandbox4, outside4, outside4}, {sandbox4, outside6, gateway4}, {sandbox4, "127.0.0.1", gateway4},
			{sandbox6, outside6, outside6}, {sandbox6, outside4, gateway6}, {sandbox6, "::1", gateway6},
			{inner4, outside4, outside4}, {inner6, outside6, outside6}, {inner4, "127.0.0.1", gateway4},
			{"127.0.0.1", outside4, outside4}, {"127.0.0.1", outside6, gateway4}, {"127.0.0.1", "127.0.0.1", gateway4},
			{"127.0.0.2", outside4, outside4},
		} {
			w.publishTo(t, c.child)
			l := w.listen("tcp", net.JoinHostPort(c.child, "80"))
			u := w.listenPacket("udp", net.JoinHostPort(c.child, "80"))
			go whoTCP(l)
			go whoUDP(u)
			to := net.JoinHostPort(c.client, "7001")
			for name, ask := range map[string]func(*testing.T, string, string) (string, string){"tcp": askTCP, "udp": askUDP} {
				answer, local := ask(t, c.client, to)
				port := portOf(addr(local))
				want := net.JoinHostPort(c.seen, port)
				if host, _, _ := net.SplitHostPort(answer); answer != want && !(host == c.seen && had[port]) {
					t.Errorf("%s: %s at %s sees client %s as %s, want %s", name, c.child, to, local, answer, want)
				}
				had[port] = true
			}
			l.Close()
			u.Close()
			if err := w.fwd.Unpublish(w.fwd.Published()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// addLocal gives the namespace it is called in more addresses.
func addLocal(t *testing.T, prefixes ...string) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Error(err)
		return
	}
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		if err == nil {
			a.Flags = unix.IFA_F_NODAD
			err = netlink.AddrAdd(lo, a)
		}
		if err != nil {
			t.Errorf("add %s: %v", p, err)
		}
	}
}

func TestServerElsewhereThanTheChildIsNotReached(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way)
		w.publishTo(t, sandbox4)
		w.serve(net.JoinHostPort(sandbox6, "80"))
		w.serve("127.0.0.1:80")
		c, err := net.Dial("tcp", outside4+":7001")
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

func TestLoopbackChildMeansTheSandboxItself(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		for _, c := range []struct{ child, bound string }{
			{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", sandbox4},
			{"::1", sandbox6}, {"::1", sandbox4}, {"::1", "127.0.0.1"}, {"::1", "::"},
		} {
			t.Run(c.child+" to "+c.bound, func(t *testing.T) {
				w := newWorld(t, way)
				w.publishTo(t, c.child)
				w.serve(net.JoinHostPort(c.bound, "80"))
				for _, host := range []string{outside4, outside6, "127.0.0.1", "::1"} {
					for range 2 { // the second time it is remembered
						askTCP(t, host, net.JoinHostPort(host, "7001"))
						askUDP(t, host, net.JoinHostPort(host, "7001"))
					}
				}
			})
		}
	})
}

func TestLoopbackChildPrefersTheServerOnLoopback(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way)
		w.publishTo(t, "127.0.0.1")
		for at, says := range map[string]string{sandbox4: "outer", "127.0.0.1": "inner"} {
			l := w.listen("tcp4", at+":80")
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					io.WriteString(c, says)
					c.Close()
				}
			}()
		}
		if answer, _ := askTCP(t, outside4, outside4+":7001"); answer != "inner" {
			t.Errorf("the %s server answered", answer)
		}
	})
}

// Of servers at both addresses a client from the host's loopback gets the one on
// loopback, if it is to, and everybody else the other.
func TestLoopbackFirstIsForTheHostsLoopback(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, withConfig(func(c *Config) { c.LoopbackFirst = true }))
		specs := []spec.Spec{
			{Protocol: spec.TCP, HostIP: netip.IPv4Unspecified(), HostPort: 7001, Port: 80, Count: 1},
			{Protocol: spec.UDP, HostIP: netip.IPv4Unspecified(), HostPort: 7001, Port: 80, Count: 1},
			{Protocol: spec.TCP, HostIP: netip.IPv6Unspecified(), HostPort: 7001, Port: 80, Count: 1},
		}
		if err := w.fwd.Publish(bind(t, specs...)); err != nil {
			t.Fatal(err)
		}
		for at, says := range map[string]string{sandbox4: "outer", sandbox6: "outer", "127.0.0.1": "inner"} {
			l, u := w.listen("tcp", net.JoinHostPort(at, "80")), w.listenPacket("udp", net.JoinHostPort(at, "80"))
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					io.WriteString(c, says)
					c.Close()
				}
			}()
			go func() {
				b := make([]byte, 100)
				for {
					_, from, err := u.ReadFrom(b)
					if err != nil {
						return
					}
					u.WriteTo([]byte(says), from)
				}
			}()
		}
		for range 2 { // the second time it is remembered
			for host, want := range map[string]string{"127.0.0.1": "inner", "::1": "inner", outside4: "outer", outside6: "outer"} {
				to := net.JoinHostPort(host, "7001")
				if answer, _ := askTCP(t, host, to); answer != want {
					t.Errorf("tcp %s: the %s server answered", host, answer)
				}
				if host == "127.0.0.1" || host == outside4 {
					if answer, _ := askUDP(t, host, to); answer != want {
						t.Errorf("udp %s: the %s server answered", host, answer)
					}
				}
			}
		}
	})
}

func TestChildOfAFamilyThatIsOffIsRefused(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.IPv6 = Addresses{} }))
	s := tcp4(7001)
	s.Child = netip.MustParseAddr(sandbox6)
	if err := w.fwd.Publish(bind(t, s)); err == nil {
		t.Error("published to an IPv6 address of a sandbox without IPv6")
	}
	s.Child = loopback6
	if err := w.fwd.Publish(bind(t, s)); err != nil {
		t.Error(err)
	}
	go whoTCP(w.listen("tcp4", sandbox4+":80"))
	askTCP(t, "127.0.0.1", "127.0.0.1:7001")
}
