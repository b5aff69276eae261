package portfwd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// wantServed connects a client to the world's published port on 127.0.0.1, where
// whoTCP is to greet it.
func (w *world) wantServed(t *testing.T) {
	t.Helper()
	answer, local := askTCP(t, "127.0.0.1", w.bound[0].Host.String())
	if want := net.JoinHostPort(gateway4, portOf(addr(local))); answer != want {
		t.Errorf("seen as %s, want %s", answer, want)
	}
}

// plainSockets can be bound to the sandbox's own addresses only.
func (w *world) plainSockets(v6 bool, n int) (files []*os.File, err error) {
	for range n {
		w.sandbox.Do(func() {
			family := unix.AF_INET
			if v6 {
				family = unix.AF_INET6
			}
			var fd int
			if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
				files = append(files, os.NewFile(uintptr(fd), "plain"))
			}
		})
	}
	return files, err
}

func TestSocketsInsideThatCannotBeHadAreNotAskedForAgainAtOnce(t *testing.T) {
	var asked atomic.Int32
	w := newWorld(t, withConfig(func(c *Config) {
		c.Sockets = func(bool, int) ([]*os.File, error) {
			asked.Add(1)
			return nil, errors.New("not today")
		}
	}))
	go whoTCP(w.listen("tcp4", ":80"))
	w.bound = bind(t, tcp4(7001))
	published := w.bound[0]
	if err := w.fwd.Publish(w.bound); err != nil {
		t.Fatal(err)
	}
	w.bound[0] = published
	for range 20 {
		w.wantServed(t)
	}
	if st := w.fwd.Stats().TCP; st.Spliced != 0 || st.Published != 20 || asked.Load() > 2 {
		t.Errorf("%+v, asked %d times; want 20 published, none spliced, and one question for each family", st, asked.Load())
	}
}

// A kernel without IPv6, or a command that has switched it off, makes no sockets of
// it: those of IPv4 are as good as before.
func TestAFamilyWithoutSocketsInsideLeavesTheOtherItsOwn(t *testing.T) {
	c := Config{
		IPv4: Addresses{Sandbox: netip.MustParseAddr(sandbox4)}, IPv6: Addresses{Sandbox: netip.MustParseAddr(sandbox6)},
		Logger: slog.New(slog.DiscardHandler),
		Sockets: func(v6 bool, n int) (files []*os.File, err error) {
			if v6 {
				return nil, errors.New("there is no IPv6")
			}
			for range n {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return files, err
				}
				files = append(files, os.NewFile(uintptr(fd), "plain"))
			}
			return files, nil
		},
	}
	p := newInsideSockets(&c)
	defer p.close()
	p.fill()
	p.filling.Wait()
	for range 2 * socketsKept {
		fd, errno := p.take(nil, false)
		if errno != 0 {
			t.Fatalf("IPv4: %v", errno)
		}
		unix.Close(fd)
		if _, errno := p.take(nil, true); errno != unix.ENOBUFS {
			t.Fatalf("IPv6: %v, want %v", errno, unix.ENOBUFS)
		}
		p.filling.Wait()
	}
}

// Where there is no IPv6 inside, a server on IPv4's loopback is next. But a server is
// not to take a client that it can see for the gateway.
func TestFamilyWithoutSocketsInsideIsPassedOver(t *testing.T) {
	w := newWorld(t, spliced)
	sound := w.fwd.ports.sockets.make
	w.fwd.ports.sockets.make = func(v6 bool, n int) ([]*os.File, error) {
		if v6 {
			return nil, errors.New("there is no IPv6")
		}
		return sound(v6, n)
	}
	go whoTCP(w.listen("tcp4", "127.0.0.1:80"))
	everywhere := tcp4(7001)
	everywhere.HostIP = netip.IPv6Unspecified()
	w.bound = bind(t, tcp4(7001), everywhere)
	published := w.bound[0]
	if err := w.fwd.Publish(w.bound); err != nil {
		t.Fatal(err)
	}
	w.bound[0] = published
	const n = 5
	for range n {
		w.wantServed(t)
	}
	w.wantSpliced(t, n)
	for _, at := range []string{sandbox6, sandbox4} {
		go whoTCP(w.listen("tcp", net.JoinHostPort(at, "80")))
	}
	answer, local := askTCP(t, outside6, net.JoinHostPort(outside6, "7001"))
	if answer != local {
		t.Errorf("client %s is seen as %s", local, answer)
	}
	if st := w.fwd.Stats().TCP; st.Published != n+1 || st.Spliced != n {
		t.Errorf("%+v, want the last over the link", st)
	}
}

// An address that is good on one link only is no socket's that is on none.
func TestNoSocketInsideIsSpentOnALinkLocalGateway(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"), withConfig(func(c *Config) { c.IPv6.Gateway = netip.MustParseAddr("fe80::1") }))
	go whoTCP(w.listen("tcp4", "127.0.0.1:80"))
	w.wantServed(t)
	w.wantSpliced(t, 1)
	p := w.fwd.ports.sockets
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.families[1].free); n != socketsKept {
		t.Errorf("%d sockets of IPv6 are left, want %d", n, socketsKept)
	}
}

// Whatever a client waits for inside, and how often, it is not for long; and who has
// waited is forgotten.
func TestClientsDoNotWaitLongForSocketsInside(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, queues(1), withConfig(func(c *Config) {
		c.Sockets = func(bool, int) ([]*os.File, error) {
			<-release
			return nil, errors.New("too late")
		}
	}))
	defer close(release)
	go whoTCP(w.listen("tcp4", ":80"))
	w.bound = bind(t, tcp4(7001))
	published := w.bound[0]
	if err := w.fwd.Publish(w.bound); err != nil {
		t.Fatal(err)
	}
	w.bound[0] = published
	s, stop := w.fwd.shards[0], make(chan struct{})
	var again sync.WaitGroup
	again.Go(func() {
		for end := time.Now().Add(20 * spliceAnswer); time.Now().Before(end); time.Sleep(spliceAnswer / 10) {
			select {
			case <-stop:
				return
			default:
				s.call(s.trySplices) // as if there were some, which others take
			}
		}
	})
	start := time.Now()
	w.wantServed(t)
	if took := time.Since(start); took > 10*spliceAnswer {
		t.Errorf("served after %v", took)
	}
	close(stop)
	again.Wait()
	w.wantServed(t)
	s.call(func() {
		if n := len(s.splices.waiting); n > 0 {
			t.Errorf("%d are kept that do not wait any more", n)
		}
	})
}

func TestConnectInsideThatFailsIsMadeOverTheLink(t *testing.T) {
	var w *world
	w = newWorld(t, withConfig(func(c *Config) {
		c.Sockets = func(v6 bool, n int) ([]*os.File, error) { return w.plainSockets(v6, n) }
	}))
	go whoTCP(w.listen("tcp4", ":80"))
	w.bound = w.publish(t, "127.0.0.1:7001:80")
	for range 20 {
		w.wantServed(t)
	}
	if st := w.fwd.Stats().TCP; st.Spliced != 0 || st.Published != 20 {
		t.Errorf("%+v, want 20 published, none of them spliced", st)
	}
}

// A server may be bound to the link's interface: it refuses nobody who comes by it.
func TestServerOnTheLinkAloneIsReached(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "tap0") })
		return err
	}}
	var l net.Listener
	err := w.sandbox.Try(func() (err error) {
		l, err = lc.Listen(context.Background(), "tcp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go whoTCP(l)
	for range 3 {
		w.wantServed(t)
	}
	if st := w.fwd.Stats().TCP; st.Spliced != 0 || st.Published != 3 || st.NoServer != 0 {
		t.Errorf("%+v, want 3 over the link", st)
	}
}

// A command in the sandbox may flush its rules: then nobody answers any more, and
// nobody is kept waiting for long.
func TestSocketsInsideWithoutAnswerAreGivenUp(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	go whoTCP(w.listen("tcp4", ":80"))
	w.wantServed(t)
	if err := w.sandbox.Try(lab.ForbidInside); err != nil {
		t.Fatal(err)
	}
	for range silentMost {
		w.wantServed(t)
	}
	p := w.fwd.ports.sockets
	p.mu.Lock()
	if !time.Now().Before(p.resting) || len(p.families[0].free) > 0 {
		t.Errorf("after %d of them, %d are kept, and used from %v on", silentMost, len(p.families[0].free), p.resting)
	}
	p.mu.Unlock()
	for range 10 {
		w.wantServed(t)
	}
	if st := w.fwd.Stats().TCP; st.Spliced != 1 || st.Published != 1+silentMost+10 {
		t.Errorf("%+v, want one spliced of %d", st, 1+silentMost+10)
	}
}

func TestClientThatGoesBeforeAServerAnswersLeavesNothing(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	l := w.rawSocket(t)
	if err := w.sandbox.Try(func() error { return unix.Bind(l, &unix.SockaddrInet4{Port: 80}) }); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 0); err != nil { // has room for one
		t.Fatal(err)
	}
	waiting := func() (n int) {
		for _, s := range w.fwd.shards {
			s.call(func() {
				for c := range s.splices.all {
					if c.dial != nil && c.server.fd >= 0 {
						n++
					}
				}
			})
		}
		return n
	}
	var clients []net.Conn
	for start := time.Now(); waiting() == 0; { // one or two are answered
		if time.Since(start) > 10*time.Second {
			t.Fatal("no client waits for an answer")
		}
		c, err := net.Dial("tcp", "127.0.0.1:7001")
		if err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetLinger(0)
		clients = append(clients, c)
		w.awaitInside(t)
	}
	for _, c := range clients {
		c.Close()
	}
	w.awaitNoConnections(t)
}

// A port that a client had for a connection of one way is good for the other as
// soon as the client has it again. What the server has closed first answers a SYN
// over the link where nobody hears it: there the client has another port.
func TestPortIsUsedAgainTheOtherWay(t *testing.T) {
	for _, closes := range []string{"client", "server", "reset"} {
		for _, splicedFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s closes, spliced first is %v", closes, splicedFirst), func(t *testing.T) {
				w := newWorld(t, spliced, publishing("0.0.0.0:7001:80"))
				l := w.listen("tcp4", ":80")
				for i := range 6 {
					w.awaitInside(t)
					overLink := splicedFirst == (i%2 == 1)
					w.restInside(overLink)
					before := w.fwd.Stats().TCP.Spliced
					start := time.Now()
					client := dialFrom(t, outside4+":40001", outside4+":7001")
					server, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took > timeWait/10 { // else a minute
						t.Errorf("connection %d took %v", i, took)
					}
					if w.fwd.Stats().TCP.Spliced > before && overLink {
						t.Errorf("connection %d did not go over the link", i)
					}
					seen := netip.MustParseAddrPort(server.RemoteAddr().String())
					if closes != "server" && seen.Port() != 40001 || seen.Addr().String() != outside4 {
						t.Errorf("connection %d is seen as %v", i, seen)
					}
					endBy(closes, client, server)
					w.awaitNoConnections(t)
				}
			})
		}
	}
}

// The link has the last word also where no port is without something of a splice's.
func TestPortsThatAllLingerKeepNobodyOut(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	go whoTCP(w.listen("tcp4", ":80"))
	for port := range 1 << 16 {
		w.fwd.ports.sockets.leave(uint16(port))
	}
	w.restInside(true)
	for range 20 {
		askTCP(t, "127.0.0.1", "127.0.0.1:7001")
	}
	if st := w.fwd.Stats().TCP; st.Published != 20 || st.Spliced != 0 {
		t.Errorf("%+v, want 20 over the link", st)
	}
}

// The ports that clients have are not those of who connects from inside: there are to
// be some left.
func TestPortsInsideAreNotUsedUp(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	l := w.listen("tcp4", ":80")
	p := w.fwd.ports.sockets
	p.mu.Lock()
	p.lingering.turn(time.Now())
	p.lingering.kept[0] = portsMost - 2
	p.mu.Unlock()
	for i, want := range []uint64{1, 2, 2, 2} {
		client, server := w.publishedPair(t, l)
		if spliced := w.fwd.Stats().TCP.Spliced; spliced != want {
			t.Errorf("connection %d: %d are spliced, want %d", i, spliced, want)
		}
		endBy("client", client, server)
		w.awaitNoConnections(t)
	}
	p.mu.Lock()
	p.lingering.since = time.Now().Add(-2 * timeWait)
	p.mu.Unlock()
	client, server := w.publishedPair(t, l)
	defer endBy("client", client, server)
	if spliced := w.fwd.Stats().TCP.Spliced; spliced != 3 {
		t.Errorf("%d are spliced when all ports are free again, want 3", spliced)
	}
}

// Two clients appear as the gateway with one port: the SYN of the second may not
// meet the connection of the first, which answers to lo.
func TestPortOfALiveSpliceIsNotTheLinks(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	l := w.listen("tcp4", ":80")
	for i, from := range []string{"127.0.0.1:40001", "127.0.0.2:40001"} {
		w.restInside(i == 1)
		client := dialFrom(t, from, "127.0.0.1:7001")
		defer client.Close()
		l.(*net.TCPListener).SetDeadline(time.Now().Add(timeWait / 10))
		server, err := l.Accept()
		if err != nil {
			t.Fatalf("client %s: %v", from, err)
		}
		defer server.Close()
	}
	if st := w.fwd.Stats().TCP; st.Published != 2 || st.Spliced != 1 {
		t.Errorf("%+v, want the second over the link", st)
	}
}

// endBy ends a connection so that the client's port is free on the host.
func endBy(who string, client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	server.SetDeadline(time.Now().Add(5 * time.Second))
	switch who {
	case "client":
		client.(*net.TCPConn).CloseWrite()
		io.ReadAll(server)
		server.Close()
		io.ReadAll(client)
	case "server":
		server.(*net.TCPConn).CloseWrite()
		io.ReadAll(client)
		client.(*net.TCPConn).CloseWrite()
		io.ReadAll(server)
	case "reset":
		server.(*net.TCPConn).SetLinger(0)
		server.Close()
		io.ReadAll(client)
	}
	client.(*net.TCPConn).SetLinger(0)
}

func dialFrom(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), Timeout: 5 * time.Second,
		Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		},
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, err := d.Dial("tcp", to)
		if err == nil {
			return c
		}
		// What is left of the last one goes in a moment.
		if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) || time.Since(start) > 5*time.Second {
			t.Fatal(err)
		}
	}
}

// Clients that come faster than sockets wait for them a moment, and are served in any
// case.
func TestClientsInABurstAreServed(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	go whoTCP(w.listen("tcp4", ":80"))
	const n = 20 * socketsKept
	var clients []net.Conn
	for range n {
		c, err := net.Dial("tcp", "127.0.0.1:7001")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
			t.Errorf("%q, %v", b, err)
		}
	}
	// All of them, unless the machine is so busy that some have waited for too long.
	st := w.fwd.Stats().TCP
	if st.Published != n || st.Spliced == 0 {
		t.Errorf("%+v, want %d published, and some of them spliced", st, n)
	}
	t.Logf("%d of %d spliced", st.Spliced, n)
}

// Sockets that were made before the sandbox put up a firewall are not used for long.
func TestSocketsInsideAreAskedForAnewBeforeOldOnesAreUsed(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1:7001:80"))
	go whoTCP(w.listen("tcp4", ":80"))
	p := w.fwd.ports.sockets
	var asked atomic.Int32
	var refuse atomic.Bool
	p.mu.Lock()
	sound := p.make
	p.make = func(v6 bool, n int) ([]*os.File, error) {
		asked.Add(1)
		if refuse.Load() {
			return nil, errors.New("there is a firewall now")
		}
		return sound(v6, n)
	}
	p.mu.Unlock()
	age := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range p.families {
			p.families[i].made = time.Now().Add(-socketsFresh)
		}
	}
	age()
	askTCP(t, "127.0.0.1", "127.0.0.1:7001")
	if st := w.fwd.Stats().TCP; st.Spliced != 1 || asked.Load() == 0 {
		t.Errorf("%+v, asked %d times; want it spliced after it was asked for sockets", st, asked.Load())
	}
	p.mu.Lock()
	if n, most := len(p.families[0].free), p.families[0].want; n > most {
		t.Errorf("%d are kept, want %d at most", n, most)
	}
	p.mu.Unlock()
	refuse.Store(true)
	age()
	askTCP(t, "127.0.0.1", "127.0.0.1:7001")
	if st := w.fwd.Stats().TCP; st.Spliced != 1 || st.Published != 2 {
		t.Errorf("%+v, want the second over the link", st)
	}
}
