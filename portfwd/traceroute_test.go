package portfwd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/internal/lab"
)

// A chain of three namespaces: the host's, a router's, and a far host's.
const (
	nearRouter4, far4 = "198.18.1.2", "198.18.2.2"
	nearRouter6, far6 = "2001:db8:18:1::2", "2001:db8:18:2::2"
)

// newChain joins the host's namespace to a far host by way of a router, until
// the test ends.
func newChain(t *testing.T) (far *lab.Thread) {
	t.Helper()
	router, far := lab.NewThread(t), lab.NewThread(t)
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("toRouter"); err == nil {
			netlink.LinkDel(l)
		}
	})
	join := func(peer *lab.Thread, name, peerName string) error {
		ns := peer.Namespace(t)
		defer ns.Close()
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peerName, PeerNamespace: netlink.NsFd(ns.Fd()),
		})
	}
	steps := []func() error{
		func() error { return join(router, "toRouter", "toHost") },
		func() error { return router.Try(func() error { return join(far, "toFar", "toRouter") }) },
		func() error { return setUp("toRouter", []string{"198.18.1.1/24", "2001:db8:18:1::1/64"}, nil) },
		func() error {
			return router.Try(func() error {
				if err := setSysctls("net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"); err != nil {
					return err
				}
				return errors.Join(setUp("toHost", []string{nearRouter4 + "/24", nearRouter6 + "/64"}, nil),
					setUp("toFar", []string{"198.18.2.1/24", "2001:db8:18:2::1/64"}, nil))
			})
		},
		func() error {
			return far.Try(func() error {
				return setUp("toRouter", []string{far4 + "/24", far6 + "/64"}, []string{"198.18.2.1", "2001:db8:18:2::1"})
			})
		},
		func() error { return addRoute("198.18.2.0/24", nearRouter4) },
		func() error { return addRoute("2001:db8:18:2::/64", nearRouter6) },
	}
	for i, f := range steps {
		if err := f(); err != nil {
			t.Fatalf("make a chain of namespaces, step %d: %v", i, err)
		}
	}
	return far
}

func setSysctls(settings ...string) error {
	for _, s := range settings {
		path, value, _ := strings.Cut(s, "=")
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// setUp configures a link of the calling thread's namespace, and waits until its
// IPv6 addresses are delivered to. ICMP errors are not limited in rate there.
func setUp(name string, addresses, gateways []string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	err = setSysctls("net/ipv6/conf/"+name+"/accept_dad=0", "net/ipv4/icmp_ratelimit=0", "net/ipv6/icmp/ratelimit=0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
		if addr.IP.To4() == nil {
			if err := lab.AwaitAddress(addr.IP.String()); err != nil {
				return err
			}
		}
	}
	for _, g := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(g)}); err != nil {
			return fmt.Errorf("add a route by %s: %w", g, err)
		}
	}
	return nil
}

func addRoute(to, by string) error {
	_, prefix, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Dst: prefix, Gw: net.ParseIP(by)})
}

// hop is what a probe has brought to light.
type hop struct {
	from netip.Addr
	what string // "time exceeded", "port unreachable", "echo reply", "connected", "refused"
}

func (h hop) String() string { return h.what + " from " + h.from.String() }

// probe is one of traceroute's, from inside the sandbox.
type probe func(t *testing.T, w *world, to string, ttl int) hop

func TestTracerouteShowsGatewayRouterAndDestination(t *testing.T) {
	far := newChain(t)
	w := newWorld(t)
	for _, host := range []string{far4, far6} {
		var l net.Listener
		if err := far.Try(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(host, "80")); return err }); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	for _, c := range []struct {
		name  string
		probe probe
		end   string
	}{
		{"datagrams", probeUDP, "port unreachable"},
		{"echo", probeEcho, "echo reply"},
		{"connect", probeTCP("80"), "connected"},
		{"connect to a closed port", probeTCP("81"), "refused"},
	} {
		for _, way := range [][3]string{{gateway4, nearRouter4, far4}, {gateway6, nearRouter6, far6}} {
			to := way[2]
			t.Run(c.name+" to "+to, func(t *testing.T) {
				for i, from := range way {
					want := hop{netip.MustParseAddr(from), "time exceeded"}
					if i == 2 {
						want.what = c.end
					}
					if got := c.probe(t, w, to, i+1); got != want {
						t.Errorf("TTL %d: %v, want %v", i+1, got, want)
					}
				}
			})
		}
	}
	if st := w.fwd.Stats().TCP; st.Failed != 6 { // of each family two at the router, one at the closed port
		t.Errorf("%+v, want 6 failed", st)
	}
}

func TestTimeToLiveOfAFlowMayChange(t *testing.T) {
	newChain(t)
	w := newWorld(t)
	c := w.mustDial("udp", net.JoinHostPort(far4, "33434")).(*net.UDPConn)
	control(t, c, func(fd int) error {
		hostsock.ReportErrors(fd, netip.MustParseAddr(far4))
		return nil
	})
	for _, ttl := range []int{2, 3, 1, 64, 2} {
		control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, ttl) })
		if _, err := c.Write([]byte("probe")); err != nil {
			// The kernel puts a report into the queue and then makes it the
			// socket's error, which takes the place of one send. Whoever reads
			// the queue in between leaves it behind.
			if _, err = c.Write([]byte("probe")); err != nil {
				t.Fatal(err)
			}
		}
		var got hop
		control(t, c, func(fd int) error { got = awaitReport(t, fd); return nil })
		want := map[int]hop{
			1: {netip.MustParseAddr(gateway4), "time exceeded"}, 2: {netip.MustParseAddr(nearRouter4), "time exceeded"},
			3: {netip.MustParseAddr(far4), "port unreachable"}, 64: {netip.MustParseAddr(far4), "port unreachable"},
		}[ttl]
		if got != want {
			t.Errorf("TTL %d: %v, want %v", ttl, got, want)
		}
	}
}

// probeSocket makes a socket in the sandbox whose packets have a TTL, and which
// keeps what it hears of them.
func probeSocket(t *testing.T, w *world, kind, protocol int, to netip.AddrPort, ttl int) (fd int) {
	t.Helper()
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	err := w.sandbox.Try(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	hostsock.ReportErrors(fd, to.Addr())
	hostsock.SetTTL(fd, to.Addr(), uint8(ttl))
	if errno := hostsock.ConnectTo(fd, to); errno != 0 && errno != unix.EINPROGRESS {
		t.Fatalf("connect to %v: %v", to, errno)
	}
	return fd
}

// awaitReport waits for an entry in fd's error queue, or for data or a
// connection, which is the zero hop.
func awaitReport(t *testing.T, fd int) hop {
	t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLERR}}
		if n, err := unix.Poll(fds, 1000); n == 0 || err != nil {
			continue
		}
		var q hostsock.ErrorQueue
		r, ok := q.Next(fd)
		runtime.KeepAlive(&q)
		switch {
		case !ok && fds[0].Revents&unix.POLLIN == 0:
			hostsock.PendingError(fd) // left by a report that was read before
			continue
		case !ok:
			return hop{}
		case isTimeExceeded(&r):
			return hop{r.Offender, "time exceeded"}
		case r.Errno == unix.ECONNREFUSED:
			return hop{r.Offender, "port unreachable"}
		}
		return hop{r.Offender, r.Errno.Error()}
	}
	t.Error("no answer")
	return hop{}
}

func probeUDP(t *testing.T, w *world, to string, ttl int) hop {
	fd := probeSocket(t, w, unix.SOCK_DGRAM, 0, netip.AddrPortFrom(netip.MustParseAddr(to), uint16(33434+ttl)), ttl)
	if _, err := unix.Write(fd, []byte("probe")); err != nil {
		t.Fatal(err)
	}
	return awaitReport(t, fd)
}

func probeEcho(t *testing.T, w *world, to string, ttl int) hop {
	a := netip.MustParseAddr(to)
	message, protocol := []byte{128, 0, 0, 0, 0, 0, 0, 0, 'x'}, unix.IPPROTO_ICMPV6
	if a.Is4() {
		message[0], protocol = 8, unix.IPPROTO_ICMP
	}
	binary.BigEndian.PutUint16(message[6:], uint16(ttl))
	fd := probeSocket(t, w, unix.SOCK_DGRAM, protocol, netip.AddrPortFrom(a, 0), ttl)
	if _, err := unix.Write(fd, message); err != nil {
		t.Fatal(err)
	}
	h := awaitReport(t, fd)
	if h == (hop{}) {
		if n, err := unix.Read(fd, make([]byte, 100)); err != nil || n != len(message) {
			t.Errorf("%d bytes, %v", n, err)
		}
		return hop{a, "echo reply"}
	}
	return h
}

func probeTCP(port string) probe {
	return func(t *testing.T, w *world, to string, ttl int) hop {
		at := netip.MustParseAddrPort(net.JoinHostPort(to, port))
		fd := probeSocket(t, w, unix.SOCK_STREAM, 0, at, ttl)
		errno, over := unix.Errno(0), false
		for start := time.Now(); !over; errno, over = hostsock.Outcome(fd) {
			if time.Since(start) > 10*time.Second {
				t.Error("no answer")
				return hop{}
			}
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
			var q hostsock.ErrorQueue
			if r, ok := q.Next(fd); ok && isTimeExceeded(&r) {
				return hop{r.Offender, "time exceeded"}
			}
		}
		switch errno {
		case 0:
			return hop{at.Addr(), "connected"}
		case unix.ECONNREFUSED:
			return hop{at.Addr(), "refused"}
		default:
			return hop{at.Addr(), errno.Error()}
		}
	}
}
