package socket_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/netstack/socket"
	"sbxnet/tapdev"
)

// Two hosts on one link in memory.
var (
	addresses = [2][]netip.Prefix{
		{netip.MustParsePrefix("10.0.2.2/24"), netip.MustParsePrefix("fd00::2/64")},
		{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")},
	}
	stations = [2]header.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
)

func config(i int) netstack.Config {
	other := 1 - i
	return netstack.Config{
		HardwareAddr: stations[i],
		Addresses:    addresses[i],
		NextHop4:     addresses[other][0].Addr(),
		NextHop6:     addresses[other][1].Addr(),
		Neighbors: []netstack.Neighbor{
			{Addr: addresses[other][0].Addr(), MAC: stations[other]},
			{Addr: addresses[other][1].Addr(), MAC: stations[other]},
		},
	}
}

// pair starts two stacks that see each other.
func pair(t testing.TB, options ...tapdev.ChannelOption) (a, b *socket.Net) {
	t.Helper()
	a, b, _ = pairOnLink(t, options...)
	return a, b
}

func pairOnLink(t testing.TB, options ...tapdev.ChannelOption) (a, b *socket.Net, link *tapdev.Channel) {
	t.Helper()
	var nets [2]*socket.Net
	ends := [2]*tapdev.Channel{}
	ends[0], ends[1] = tapdev.NewChannel(1500, options...)
	for i := range nets {
		n, err := socket.Start(context.Background(), config(i), ends[i])
		if err != nil {
			t.Fatal(err)
		}
		nets[i] = n
		t.Cleanup(func() { n.Close() })
	}
	return nets[0], nets[1], ends[0]
}

// within fails the test if f takes too long: most failures of sockets are hangs.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s still hangs after %v", what, limit)
	}
}

func listen(t testing.TB, n *socket.Net, network, address string) net.Listener {
	t.Helper()
	l, err := n.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns the two ends of a connection from a to b.
func connect(t testing.TB, a, b *socket.Net) (client, server *socket.Conn) {
	t.Helper()
	l := listen(t, b, "tcp", "10.0.2.100:0")
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	c, err := a.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	select {
	case s := <-accepted:
		t.Cleanup(func() { s.Close() })
		return c.(*socket.Conn), s.(*socket.Conn)
	case <-time.After(5 * time.Second):
		t.Fatal("connection is not accepted")
		return nil, nil
	}
}
