package rootlesskit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sbxnet/portfwd/spec"
)

// testWays begin at this host's 127.0.0.1.
func testWays() *ways {
	return &ways{own: netip.AddrFrom4([4]byte{127, 0, 0, 1}), open: map[loopbackOrder]io.Closer{}}
}

func mustOpen(t *testing.T, w *ways, p spec.Protocol, to net.Addr) (at string, port uint16) {
	t.Helper()
	_, number, err := net.SplitHostPort(to.String())
	if err != nil {
		t.Fatal(err)
	}
	var o loopbackOrder
	fmt.Sscan(number, &o.Port)
	o.Protocol = p
	if port, err = w.obey(o); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", port), port
}

// without6 skips a test for want of ::1. In CI that is a failure.
func without6(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skipf("this machine has no ::1: %v", err)
}

func listen6(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		without6(t, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dial opens a connection that ends, whatever happens, within seconds.
func dial(t *testing.T, network, at string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestStreamsReachTheLoopbackAndCloseInHalves(t *testing.T) {
	l := listen6(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers when the client has said all
				said, _ := io.ReadAll(c)
				c.Write(bytes.ToUpper(said))
				c.Close()
			}()
		}
	}()
	w := testWays()
	at, port := mustOpen(t, w, spec.TCP, l.Addr())
	early := dial(t, "tcp", at)
	said := strings.Repeat("so to say ", 100000)
	go func() {
		io.WriteString(early, said)
		early.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(early); err != nil || string(got) != strings.ToUpper(said) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(said), err)
	}
	late := dial(t, "tcp", at)
	fmt.Fprint(late, "still ")
	if _, err := w.obey(loopbackOrder{Protocol: spec.TCP, At: port}); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("a way that was shut is open")
	}
	if _, err := w.obey(loopbackOrder{Protocol: spec.TCP, At: port}); err == nil {
		t.Error("shut twice")
	}
}

// Connections that there are go on without their way.
func TestEstablishedStreamsOutliveTheirWay(t *testing.T) {
	l := listen6(t)
	w := testWays()
	at, port := mustOpen(t, w, spec.TCP, l.Addr())
	client := dial(t, "tcp", at)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := w.obey(loopbackOrder{Protocol: spec.TCP, At: port}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(client, "here")
	server.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 4)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "here" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestStreamToNobodyIsReset(t *testing.T) {
	l := listen6(t)
	l.Close()
	at, _ := mustOpen(t, testWays(), spec.TCP, l.Addr())
	c, err := net.Dial("tcp", at)
	if err == nil { // else it was faster than we
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestDatagramsReachTheLoopbackEachClientForItself(t *testing.T) {
	server, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		without6(t, err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo([]byte(fmt.Sprintf("%s from %s", b[:n], from)), from)
		}
	}()
	w := testWays()
	at, port := mustOpen(t, w, spec.UDP, server.LocalAddr())
	seen := map[string]bool{}
	for i := range 3 {
		c := dial(t, "udp", at)
		var first string
		for range 2 { // the server sees one client
			fmt.Fprint(c, i)
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err != nil || !strings.HasPrefix(string(b[:n]), fmt.Sprint(i, " from [::1]:")) {
				t.Fatalf("%q, %v", b[:n], err)
			}
			if first == "" {
				first = string(b[2:n])
			} else if first != string(b[2:n]) {
				t.Errorf("one client is seen %s and %s", first, b[2:n])
			}
		}
		if seen[first] {
			t.Errorf("two clients are seen %s", first)
		}
		seen[first] = true
	}
	if _, err := w.obey(loopbackOrder{Protocol: spec.UDP, At: port}); err != nil {
		t.Fatal(err)
	}
	if pc, err := net.ListenPacket("udp", at); err != nil {
		t.Errorf("after it was shut: %v", err)
	} else {
		pc.Close()
	}
}

func TestBadOrdersAreAnsweredAndOpenNothing(t *testing.T) {
	w := testWays()
	var out bytes.Buffer
	w.serve(strings.NewReader(`{"Protocol":"sctp","Port":80}{"Protocol":"tcp","At":7}{"At":70000}{"Protocol":"tcp","Port":80}`), json.NewEncoder(&out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || len(w.open) != 0 { // what is no order ends it
		t.Fatalf("%q; open: %v", lines, w.open)
	}
	for _, l := range lines {
		if !strings.Contains(l, `"Error":"`) {
			t.Errorf("%s", l)
		}
	}
}

func TestLoopbackProcessWithoutASandboxEnds(t *testing.T) {
	for _, args := range [][]string{{}, {"a"}, {"x", "/rootlesskit", "tap0", "10.0.2.100"}, {"no such link", "10.0.2.100"}, {"lo", "x"}} {
		if status := Main(append([]string{"rootlesskit", loopbackArgument}, args...)); status != statusFailed {
			t.Errorf("%q: status %d", args, status)
		}
	}
}
