package socket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"sbxnet/netstack"
	"sbxnet/netstack/socket"
	"sbxnet/tapdev"
)

func TestConnIsANetConn(t *testing.T) {
	for name, options := range map[string][]tapdev.ChannelOption{
		"super-segments": nil,
		"wire":           {tapdev.WithoutSegmentation(), tapdev.WithChecksums()},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				a, b := pair(t, options...)
				c1, c2 = connect(t, a, b)
				return c1, c2, func() { c1.Close(); c2.Close(); a.Close(); b.Close() }, nil
			})
		})
	}
}

func TestHTTPBetweenTwoStacks(t *testing.T) {
	a, b := pair(t)
	l := listen(t, b, "tcp", ":80")
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d %s", r.RemoteAddr, n, body)
	})}
	go server.Serve(l)
	defer server.Close()
	transport := &http.Transport{DialContext: a.DialContext}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 20 * time.Second}
	var group sync.WaitGroup
	for _, host := range []string{"10.0.2.100", "[fd00::100]"} {
		for range 20 {
			group.Go(func() {
				resp, err := client.Post("http://"+host+"/", "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				from, rest, _ := strings.Cut(string(got), " ")
				if err != nil || rest != fmt.Sprintf("%d %s", len(body), body) {
					t.Errorf("%s: %d bytes, %v", host, len(got), err)
				}
				if ap, err := netip.ParseAddrPort(from); err != nil || ap.Addr() != addresses[0][0].Addr() && ap.Addr() != addresses[0][1].Addr() {
					t.Errorf("server saw %q", from)
				}
			})
		}
	}
	group.Wait()
}

func TestHalfCloseCarriesEverythingBothWays(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	const size = 20 << 20
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(server, server)
		server.CloseWrite()
		echoed <- err
	}()
	go func() {
		client.Write(data)
		client.CloseWrite()
	}()
	client.SetReadDeadline(time.Now().Add(50 * time.Second))
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), size, err)
	}
	if err := <-echoed; err != nil {
		t.Errorf("echo: %v", err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: %v, want EPIPE", err)
	}
}

func TestCloseStillSendsWhatWasWritten(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	data := bytes.Repeat([]byte("x"), 3<<20) // more than either window
	go func() {
		client.Write(data)
		client.Close()
	}()
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	time.Sleep(50 * time.Millisecond)
	if got, err := io.ReadAll(server); err != nil || len(got) != len(data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

func TestUnreadDataSurvivesTheEndOfTheConnection(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	data := bytes.Repeat([]byte("x"), 600<<10) // the socket's buffer and some of the stack's
	client.Write(data)
	client.CloseWrite()
	server.CloseWrite()
	time.Sleep(200 * time.Millisecond) // both FINs are acknowledged by now
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(server); err != nil || len(got) != len(data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

func TestWriterWaitsForAReaderThatDoesNot(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	client.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := client.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n > 16<<20 {
		t.Fatalf("Write took %d bytes, %v; want a bounded number and a timeout", n, err)
	}
	client.SetWriteDeadline(time.Time{})
	client.CloseWrite()
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.Copy(io.Discard, server); err != nil || got != int64(n) {
		t.Errorf("reader got %d bytes, %v; want the %d that were taken", got, err, n)
	}
}

func TestClosingWithUnreadDataResets(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	before := stats(t, a).TCPIn
	server.Write([]byte("never read"))
	waitStats(t, a, func(s netstack.Stats) bool { return s.TCPIn > before })
	client.Close()
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %v, want ECONNRESET", err)
	}
	if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Write = %v, want ECONNRESET", err)
	}
}

func TestDataForAClosedSocketResets(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	client.Write(make([]byte, 64<<20)) // more than goes out while nobody reads
	client.Close()
	server.Write([]byte("to nobody"))
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, server); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading ended with %v, want ECONNRESET", err)
	}
}

func TestAbortResets(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	client.Abort()
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %v, want ECONNRESET", err)
	}
}

func TestDialErrors(t *testing.T) {
	a, _ := pair(t)
	for _, c := range []struct {
		network, address string
		want             error
	}{
		{"tcp", "10.0.2.100:81", syscall.ECONNREFUSED},
		{"tcp6", "[fd00::100]:81", syscall.ECONNREFUSED},
		{"tcp", "10.0.2.100:0", nil},
		{"tcp", ":80", nil},
		{"tcp", "host.example:80", nil},
		{"tcp4", "[fd00::100]:80", nil},
		{"udp6", "10.0.2.100:80", nil},
		{"tcp", "10.0.2.100", nil},
		{"unix", "10.0.2.100:80", net.UnknownNetworkError("unix")},
		{"tcp9", "10.0.2.100:80", net.UnknownNetworkError("tcp9")},
	} {
		within(t, 10*time.Second, "Dial "+c.address, func() {
			conn, err := a.Dial(c.network, c.address)
			if err == nil {
				conn.Close()
				t.Errorf("Dial(%q, %q) succeeded", c.network, c.address)
				return
			}
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Dial(%q, %q) = %v, want a net.OpError of %v", c.network, c.address, err, c.want)
			}
		})
	}
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	a, b := pair(t)
	b.Close() // nobody answers any more
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	within(t, 5*time.Second, "Dial", func() {
		_, err := a.DialContext(ctx, "tcp", "10.0.2.100:80")
		var timeout net.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("Dial = %v, want a timeout", err)
		}
	})
}

func TestDialFromAnyAddress(t *testing.T) {
	a, b := pair(t)
	l := listen(t, b, "tcp", "10.0.2.100:80")
	client := netip.MustParseAddrPort("198.51.100.7:4321")
	go func() {
		c, err := a.DialTCP(context.Background(), client, netip.MustParseAddrPort("10.0.2.100:80"))
		if err != nil {
			t.Error(err)
			return
		}
		c.Write([]byte("hello"))
		c.CloseWrite()
	}()
	l.(*socket.Listener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" || c.RemoteAddr().String() != client.String() {
		t.Errorf("%q from %v, %v", got, c.RemoteAddr(), err)
	}
}

func TestListenerErrors(t *testing.T) {
	a, _ := pair(t)
	l := listen(t, a, "tcp", "10.0.2.2:80").(*socket.Listener)
	if _, err := a.Listen("tcp4", "10.0.2.2:80"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v, want EADDRINUSE", err)
	}
	l.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept = %v, want a timeout", err)
	}
	l.SetDeadline(time.Time{})
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	within(t, 5*time.Second, "Accept on a closed listener", func() {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v, want net.ErrClosed", err)
		}
	})
	listen(t, a, "tcp", "10.0.2.2:80")
}

func TestConnectionsWaitInTheBacklogForAccept(t *testing.T) {
	a, b := pair(t)
	l := listen(t, b, "tcp", ":80")
	const n = 50
	for i := range n {
		c, err := a.Dial("tcp", "10.0.2.100:80")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, i)
		c.Close()
	}
	l.(*socket.Listener).SetDeadline(time.Now().Add(10 * time.Second))
	for i := range n {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprint(i) {
			t.Errorf("connection %d: %q, %v", i, got, err)
		}
		c.Close()
	}
}

func TestNetCloseEndsEveryWait(t *testing.T) {
	a, b := pair(t)
	client, _ := connect(t, a, b)
	l := listen(t, a, "tcp", ":81")
	pc := listenPacket(t, a, "udp", ":81")
	pc.SetDeadline(time.Time{})
	var group sync.WaitGroup
	for what, call := range map[string]func() error{
		"Read":     func() error { _, err := client.Read(make([]byte, 1)); return err },
		"Accept":   func() error { _, err := l.Accept(); return err },
		"ReadFrom": func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err },
	} {
		group.Go(func() {
			if err := call(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s = %v, want net.ErrClosed", what, err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	within(t, 5*time.Second, "Close", func() { a.Close(); group.Wait() })
	if _, err := a.Listen("tcp", ":82"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen after Close = %v", err)
	}
	if _, err := a.Dial("udp", "10.0.2.100:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close = %v", err)
	}
}

func TestPeerLearnsOfNetClose(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	client.Write([]byte("last words"))
	a.Close()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(server); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLostLinkFailsSockets(t *testing.T) {
	a, b, link := pairOnLink(t)
	client, _ := connect(t, a, b)
	time.AfterFunc(20*time.Millisecond, func() { link.Close() })
	within(t, 5*time.Second, "Read", func() {
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("Read = %v, want ENETDOWN", err)
		}
	})
	<-a.Done()
}

func TestStackEndsWithItsContext(t *testing.T) {
	end, _ := tapdev.NewChannel(1500)
	ctx, cancel := context.WithCancel(context.Background())
	n, err := socket.Start(ctx, config(0), end)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, n, "tcp", ":80")
	time.AfterFunc(20*time.Millisecond, cancel)
	within(t, 5*time.Second, "Accept", func() {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v, want net.ErrClosed", err)
		}
	})
}

func TestStatsCountWhatTheStackSent(t *testing.T) {
	a, b := pair(t)
	client, server := connect(t, a, b)
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	s, err := b.Stats()
	if err != nil || s.TCPIn < 2 || s.FramesOut == 0 {
		t.Fatalf("%d TCP segments in, %d frames out, %v", s.TCPIn, s.FramesOut, err)
	}
	b.Close()
	if _, err := b.Stats(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}
