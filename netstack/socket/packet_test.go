package socket_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/socket"
)

func listenPacket(t *testing.T, n *socket.Net, network, address string) *socket.PacketConn {
	t.Helper()
	c, err := n.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*socket.PacketConn)
}

func TestDatagramsCrossWithTheirAddresses(t *testing.T) {
	a, b := pair(t)
	for _, to := range []string{"10.0.2.100:53", "[fd00::100]:53"} {
		server := listenPacket(t, b, "udp", to)
		client, err := a.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(10 * time.Second))
		for _, size := range []int{0, 1, 1400, 9000, 65000} {
			sent := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := client.Write(sent); err != nil {
				t.Fatalf("%s, %d bytes: %v", to, size, err)
			}
			buf := make([]byte, 65536)
			n, from, err := server.ReadFrom(buf)
			if err != nil || !bytes.Equal(buf[:n], sent) || from.String() != client.LocalAddr().String() {
				t.Fatalf("%s, %d bytes: got %d from %v, %v; want them from %v", to, size, n, from, err, client.LocalAddr())
			}
			if _, err := server.WriteTo(sent, from); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(buf); err != nil || !bytes.Equal(buf[:n], sent) {
				t.Fatalf("%s, %d bytes: answer of %d, %v", to, size, n, err)
			}
		}
	}
}

func TestSocketWithoutHostTakesBothFamilies(t *testing.T) {
	a, b := pair(t)
	server := listenPacket(t, b, "udp", ":0")
	port := netip.MustParseAddrPort(server.LocalAddr().String()).Port()
	for _, host := range []string{"10.0.2.100", "fd00::100"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
		client, err := a.Dial("udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(10 * time.Second))
		client.Write([]byte("ping"))
		buf := make([]byte, 16)
		n, from, err := server.ReadFromAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		// The client is connected, so the answer must come from the address it asked.
		if _, err := server.WriteToAddrPort(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(buf); err != nil || string(buf[:n]) != "ping" {
			t.Errorf("%s: %q, %v", host, buf[:n], err)
		}
	}
}

func TestLongDatagramIsCutToTheBuffer(t *testing.T) {
	a, b := pair(t)
	server, client := listenPacket(t, b, "udp4", "10.0.2.100:9"), listenPacket(t, a, "udp4", ":0")
	client.WriteTo([]byte("0123456789"), server.LocalAddr())
	client.WriteTo([]byte("next"), server.LocalAddr())
	buf := make([]byte, 4)
	for _, want := range []string{"0123", "next"} {
		if n, _, err := server.ReadFrom(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v; want %q", buf[:n], err, want)
		}
	}
}

func TestConnectedSocketHearsOnlyItsPeer(t *testing.T) {
	a, b := pair(t)
	peer, stranger := listenPacket(t, b, "udp", "10.0.2.100:1000"), listenPacket(t, b, "udp", "10.0.2.100:1001")
	client, err := a.Dial("udp", "10.0.2.100:1000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	stranger.WriteTo([]byte("forged"), client.LocalAddr())
	peer.WriteTo([]byte("real"), client.LocalAddr())
	buf := make([]byte, 16)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "real" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := client.(*socket.PacketConn).WriteTo([]byte("x"), stranger.LocalAddr()); !errors.Is(err, net.ErrWriteToConnected) {
		t.Errorf("WriteTo on a connected socket: %v", err)
	}
}

func TestUnreachablePortRefusesTheConnectedSocketOnce(t *testing.T) {
	a, b := pair(t)
	client, err := a.Dial("udp", "10.0.2.100:7")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	client.Write([]byte("anybody?"))
	if _, err := client.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("Read = %v, want ECONNREFUSED", err)
	}
	server := listenPacket(t, b, "udp", "10.0.2.100:7")
	if _, err := client.Write([]byte("again")); err != nil {
		t.Fatalf("Write after the error was reported: %v", err)
	}
	if _, _, err := server.ReadFrom(make([]byte, 16)); err != nil {
		t.Error(err)
	}
}

func TestFloodIsDroppedNotKept(t *testing.T) {
	a, b := pair(t)
	server, client := listenPacket(t, b, "udp", "10.0.2.100:9"), listenPacket(t, a, "udp4", ":0")
	payload := make([]byte, 60000)
	for range 200 { // 12 MB for a queue of 1 MiB
		if _, err := client.WriteTo(payload, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	client.WriteTo([]byte("last"), server.LocalAddr())
	got := 0
	buf := make([]byte, 65536)
	for {
		server.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, _, err := server.ReadFrom(buf)
		if err != nil {
			break
		}
		got += n
	}
	if got == 0 || got > 12e6 {
		t.Errorf("received %d bytes", got)
	}
	// What is left of the flood may still be under way, and crowd this out.
	for start := time.Now(); ; {
		client.WriteTo([]byte("after"), server.LocalAddr())
		server.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, _, err := server.ReadFrom(buf)
		if err == nil && string(buf[:n]) == "after" {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("after the flood: %d bytes, %v", n, err)
		}
	}
}

// Datagrams without payload take no bytes, so it is their number that is bounded.
func TestFloodOfEmptyDatagramsIsBoundedAndCounted(t *testing.T) {
	a, b := pair(t)
	server, client := listenPacket(t, b, "udp", "10.0.2.100:9"), listenPacket(t, a, "udp4", ":0")
	const sent, kept = 5000, 4096
	for i := range sent {
		if _, err := client.WriteTo(nil, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if i%64 == 63 || i == sent-1 { // the link's own queue is not to overflow
			waitStats(t, b, func(s netstack.Stats) bool { return s.UDPIn == uint64(i+1) })
		}
	}
	if s := stats(t, b); s.Drops.EndpointFull != sent-kept {
		t.Errorf("%d dropped for want of room, want %d", s.Drops.EndpointFull, sent-kept)
	}
	for i := range kept {
		if n, _, err := server.ReadFrom(make([]byte, 1)); n != 0 || err != nil {
			t.Fatalf("datagram %d: %d bytes, %v", i, n, err)
		}
	}
}

func stats(t *testing.T, n *socket.Net) netstack.Stats {
	t.Helper()
	s, err := n.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func waitStats(t *testing.T, n *socket.Net, good func(netstack.Stats) bool) {
	t.Helper()
	for start := time.Now(); !good(stats(t, n)); time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("after 10 s: %+v", stats(t, n))
		}
	}
}

func TestPacketConnErrors(t *testing.T) {
	a, _ := pair(t)
	c := listenPacket(t, a, "udp", "10.0.2.2:500")
	if _, err := a.ListenPacket("udp", "10.0.2.2:500"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second socket: %v, want EADDRINUSE", err)
	}
	to := func(s string) net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for what, call := range map[string]struct {
		f    func() error
		want error
	}{
		"too long":         {func() error { _, err := c.WriteTo(make([]byte, 65536), to("10.0.2.100:1")); return err }, syscall.EMSGSIZE},
		"the other family": {func() error { _, err := c.WriteTo(nil, to("[fd00::100]:1")); return err }, syscall.EAFNOSUPPORT},
		"port 0":           {func() error { _, err := c.WriteTo(nil, to("10.0.2.100:0")); return err }, syscall.EINVAL},
		"not connected":    {func() error { _, err := c.Write(nil); return err }, syscall.EDESTADDRREQ},
		"read deadline": {func() error {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _, err := c.ReadFrom(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
	} {
		err := call.f()
		var op *net.OpError
		if !errors.Is(err, call.want) || !errors.As(err, &op) {
			t.Errorf("%s: %v, want a net.OpError of %v", what, err, call.want)
		}
	}
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	c.SetReadDeadline(time.Time{})
	within(t, 5*time.Second, "Read of a closed socket", func() {
		if _, _, err := c.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read = %v, want net.ErrClosed", err)
		}
	})
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close = %v", err)
	}
}
