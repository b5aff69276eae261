package portfwd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/spec"
)

// bind opens the host sockets of specs.
func bind(t testing.TB, specs ...spec.Spec) []spec.Bound {
	t.Helper()
	bound, err := spec.Bind(specs)
	if err != nil {
		t.Fatal(err)
	}
	return bound
}

// publish publishes what -p asks for while w runs.
func (w *world) publish(t testing.TB, values ...string) []spec.Bound {
	t.Helper()
	specs, err := spec.ParseAll(values)
	if err != nil {
		t.Fatal(err)
	}
	bound := bind(t, specs...)
	if err := w.fwd.Publish(bound); err != nil {
		t.Fatal(err)
	}
	w.awaitInside(t)
	return bound
}

// published is what Published says, for comparing.
func (w *world) published() string {
	var all []string
	for _, b := range w.fwd.Published() {
		all = append(all, b.String())
	}
	return strings.Join(all, "\n")
}

func TestPortIsPublishedAndRemovedWhileRunning(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d queues", n), func(t *testing.T) {
			w := newWorld(t, queues(n))
			go whoTCP(w.listen("tcp", ":80"))
			go whoUDP(w.listenPacket("udp", ":53"))
			before := w.published()
			for range 3 {
				bound := w.publish(t, "0.0.0.0:7001:80", "0.0.0.0:7000:53/udp")
				for _, b := range bound {
					if b.FD != -1 {
						t.Errorf("%v still has descriptor %d", &b, b.FD)
					}
				}
				if answer, local := askTCP(t, outside4, outside4+":7001"); answer != local {
					t.Errorf("TCP client %s is seen as %s", local, answer)
				}
				if answer, local := askUDP(t, outside4, outside4+":7000"); answer != local {
					t.Errorf("UDP client %s is seen as %s", local, answer)
				}
				if got, want := w.published(), "http://0.0.0.0:7001 -> 80/tcp\nudp 0.0.0.0:7000 -> 53/udp"; got != want {
					t.Errorf("published:\n%s\nwant:\n%s", got, want)
				}
				if err := w.fwd.Unpublish(bound); err != nil {
					t.Fatal(err)
				}
				if _, err := net.DialTimeout("tcp", outside4+":7001", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%v after the port was removed", err)
				}
			}
			if got := w.published(); got != before {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// A port is published while clients of another come in, on whichever shard.
func TestPortIsPublishedBesideOneThatIsInUse(t *testing.T) {
	w := newWorld(t)
	go whoTCP(w.listen("tcp", ":80"))
	for port := 7001; port < 7005; port++ {
		w.publish(t, fmt.Sprintf("0.0.0.0:%d:80", port))
		if answer, local := askTCP(t, outside4, fmt.Sprintf("%s:%d", outside4, port)); answer != local {
			t.Errorf("the client %s of port %d is seen as %s", local, port, answer)
		}
	}
}

// A container that is started again wants its port at once, whatever state the
// old one's connections are in.
func TestRemovedPortCanBeBoundAtOnceWithConnectionsOpen(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way)
		bound := w.publish(t, "127.0.0.1:7001:80", "127.0.0.1:7000:53/udp")
		go whoUDP(w.listenPacket("udp", ":53"))
		askUDP(t, "127.0.0.1", "127.0.0.1:7000")
		l := w.listen("tcp4", ":80")
		open, server := pairOver(t, l, "127.0.0.1:7001")
		half, _ := pairOver(t, l, "127.0.0.1:7001")
		half.(*net.TCPConn).CloseWrite()
		waiting, far := pairOver(t, l, "127.0.0.1:7001")
		far.Close() // our end closes first: TIME-WAIT on the host
		if _, err := io.ReadAll(waiting); err != nil {
			t.Fatal(err)
		}
		waiting.Close()

		if err := w.fwd.Unpublish(bound); err != nil {
			t.Fatal(err)
		}
		again := w.publish(t, "127.0.0.1:7001:80", "127.0.0.1:7000:53/udp")
		swap(t, open, server, 1<<20) // what was established goes on
		a, b := pairOver(t, l, "127.0.0.1:7001")
		swap(t, a, b, 1<<20)
		askUDP(t, "127.0.0.1", "127.0.0.1:7000")
		if err := w.fwd.Unpublish(again); err != nil {
			t.Fatal(err)
		}
		other, err := net.Listen("tcp", "127.0.0.1:7001") // somebody else gets it as well
		if err != nil {
			t.Fatal(err)
		}
		other.Close()
	})
}

// pairOver connects to a published port whose server l is.
func pairOver(t *testing.T, l net.Listener, address string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	deadline := time.Now().Add(30 * time.Second)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	return client, server
}

func TestRemovingAUDPPortEndsItsFlows(t *testing.T) {
	w := newWorld(t, publishing("127.0.0.1:7000:53/udp", "127.0.0.1:7002:53/udp"))
	go whoUDP(w.listenPacket("udp4", ":53"))
	for _, p := range []string{"7000", "7002"} {
		askUDP(t, "127.0.0.1", "127.0.0.1:"+p)
	}
	if err := w.fwd.Unpublish(w.bound[:1]); err != nil {
		t.Fatal(err)
	}
	if open := w.fwd.Stats().UDP.Open; open != 1 {
		t.Errorf("%d flows, want the other port's one", open)
	}
	c, err := net.Dial("udp", "127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("anybody?"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v, want connection refused", err)
	}
	askUDP(t, "127.0.0.1", "127.0.0.1:7002")
}

// newWorld's own check of descriptors allows for less than one a round.
func TestAHundredRoundsOfPublishingLeaveNothing(t *testing.T) {
	w := newWorld(t)
	l := w.listen("tcp4", ":80")
	go whoTCP(l)
	go whoUDP(w.listenPacket("udp4", ":53"))
	round := func() {
		bound := w.publish(t, "0.0.0.0:7001-7003:80-82", "0.0.0.0:7000:53/udp")
		askTCP(t, outside4, outside4+":7001")
		askUDP(t, outside4, outside4+":7000")
		if err := w.fwd.Unpublish(bound); err != nil {
			t.Fatal(err)
		}
	}
	round()
	w.awaitNoConnections(t)
	runtime.GC()
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	for range 100 {
		round()
	}
	w.awaitNoConnections(t)
	checkNothingLeft(t, fds, goroutines)
	if st := w.fwd.Stats(); st.TCP.Published != 101 || st.UDP.Published != 101 || st.UDP.Open != 0 {
		t.Errorf("%+v\n%+v", st.TCP, st.UDP)
	}
}

func (w *world) awaitNoConnections(t *testing.T) {
	t.Helper()
	for start := time.Now(); w.fwd.Stats().TCP.Open > 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d connections left", w.fwd.Stats().TCP.Open)
		}
	}
}

func TestPublishIsAllOrNothing(t *testing.T) {
	w := newWorld(t, publishing("127.0.0.1:7001:80"))
	before := w.published()
	good := spec.Spec{Protocol: spec.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 7002, Port: 80, Count: 1}
	for name, spoil := range map[string]struct {
		change func(*spec.Bound)
		says   string
	}{
		"a port that is published":       {func(b *spec.Bound) { b.Host = netip.MustParseAddrPort("127.0.0.1:7001") }, "published already"},
		"the same twice":                 {func(b *spec.Bound) { b.Host = netip.MustParseAddrPort("127.0.0.1:7002") }, "published already"},
		"no descriptor":                  {func(b *spec.Bound) { b.Close() }, "publish 127.0.0.1:"},
		"port 0 inside":                  {func(b *spec.Bound) { b.Port = 0 }, "no port 0"},
		"unknown protocol":               {func(b *spec.Bound) { b.Protocol = "sctp" }, "unknown protocol"},
		"the gateway as the target":      {func(b *spec.Bound) { b.Child = netip.MustParseAddr(gateway4) }, "no address in the sandbox"},
		"a broadcast address inside":     {func(b *spec.Bound) { b.Child = netip.MustParseAddr("10.0.2.255") }, "no address in the sandbox"},
		"an IPv4-mapped address inside":  {func(b *spec.Bound) { b.Child = netip.MustParseAddr("::ffff:10.0.2.100") }, "no address in the sandbox"},
		"a target that is nothing's own": {func(b *spec.Bound) { b.Child = netip.MustParseAddr("0.0.0.0") }, "no address in the sandbox"},
	} {
		bad := good
		bad.HostPort = 7003
		bound := bind(t, good, bad)
		fds := []int{bound[0].FD, bound[1].FD}
		spoil.change(&bound[1])
		err := w.fwd.Publish(bound)
		if err == nil || !strings.Contains(err.Error(), spoil.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want a line that says %q", name, err, spoil.says)
		}
		if got := w.published(); got != before {
			t.Errorf("%s: published now:\n%s", name, got)
		}
		for _, fd := range fds {
			if _, err := unix.Getsockname(fd); err == nil {
				t.Errorf("%s: descriptor %d is still a socket", name, fd)
			}
		}
		if bound[0].FD != -1 || bound[1].FD != -1 {
			t.Errorf("%s: the caller still has %v", name, bound)
		}
	}
	for _, b := range bind(t, good) { // and the port is free
		b.Close()
	}
}

func TestUnpublishOfAnUnknownPortChangesNothing(t *testing.T) {
	w := newWorld(t, publishing("127.0.0.1:7001:80"))
	go whoTCP(w.listen("tcp4", ":80"))
	before := w.published()
	other := spec.Bound{Protocol: spec.UDP, Host: w.bound[0].Host}
	for name, list := range map[string][]spec.Bound{
		"another protocol": {w.bound[0], other}, "twice the same": {w.bound[0], w.bound[0]},
	} {
		err := w.fwd.Unpublish(list)
		if err == nil || !strings.Contains(err.Error(), "unpublish 127.0.0.1:7001/") || !strings.Contains(err.Error(), "not published") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := w.published(); got != before {
		t.Errorf("published now: %s", got)
	}
	askTCP(t, "127.0.0.1", "127.0.0.1:7001")
}

func TestPublishingBeforeStartWaitsAndAfterCloseFails(t *testing.T) {
	w := newWorld(t)
	w.fwd.Close()
	cfg := w.fwd.cfg
	cfg.Published = bind(t, tcp4(7001))
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(bind(t, tcp4(7002))); err != nil {
		t.Fatal(err)
	}
	first := f.Published()[:1]
	if err := f.Unpublish(first); err != nil {
		t.Fatal(err)
	}
	for _, b := range bind(t, tcp4(7001)) { // it is free
		b.Close()
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	go whoTCP(w.listen("tcp4", ":80"))
	askTCP(t, "127.0.0.1", "127.0.0.1:7002")
	f.Close()
	bound := bind(t, tcp4(7001), tcp4(7002))
	if err := f.Publish(bound); !errors.Is(err, errClosed) || len(f.Published()) != 0 {
		t.Errorf("after Close: %v, %v", err, f.Published())
	}
	for _, b := range bind(t, tcp4(7001), tcp4(7002)) {
		b.Close()
	}
}

// tcp4 publishes port 80 on the host's 127.0.0.1.
func tcp4(port uint16) spec.Spec {
	return spec.Spec{Protocol: spec.TCP, HostIP: loopback4, HostPort: port, Port: 80, Count: 1}
}

func TestManyPublishAndRemoveAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, queues(2))
		go whoTCP(w.listen("tcp4", ":80"))
		var wg sync.WaitGroup
		for i := range uint16(8) {
			wg.Go(func() {
				for range 10 {
					bound, err := spec.Bind([]spec.Spec{tcp4(7100 + i)})
					if err == nil {
						err = w.fwd.Publish(bound)
					}
					if err == nil {
						w.fwd.Published()
						askTCP(t, "127.0.0.1", bound[0].Host.String())
						err = w.fwd.Unpublish(bound)
					}
					if err != nil {
						t.Errorf("port %d: %v", 7100+i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if left := w.fwd.Published(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestProtocolThatIsOffCannotBePublished(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.NoTCP = true }))
	err := w.fwd.Publish(bind(t, tcp4(7001)))
	if err == nil || !strings.Contains(err.Error(), "does without tcp") {
		t.Errorf("%v", err)
	}
}
