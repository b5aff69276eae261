package userns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestListenBindsInTheNamespace(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	at := netip.MustParseAddrPort
	files, err := a.Listen([]Socket{
		{Addr: at("127.0.0.1:80")}, {Addr: at("[::1]:80")}, {UDP: true, Addr: at("127.0.0.1:53")},
		{UDP: true, Addr: at("[::]:53"), Interface: "lo"}, {Addr: at("10.0.2.100:81")},
	})
	must(t, err)
	defer closeAll(files)
	l, err := net.FileListener(files[0])
	must(t, err)
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
		c, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(c, "from outside\n")
			c.Close()
		}
		served <- err
	}()
	if out := ns.run(t, `bash -c "cat < /dev/tcp/127.0.0.1/80"`); !strings.Contains(out, "from outside") {
		t.Errorf("the namespace got %q", out)
	}
	must(t, <-served)
	if c, err := net.DialTimeout("tcp", "127.0.0.1:80", time.Second); err == nil {
		if b, _ := io.ReadAll(c); string(b) == "from outside\n" {
			t.Error("it listens on the host")
		}
		c.Close()
	}
}

func TestListenIsAllOrNothing(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	at := netip.MustParseAddrPort
	first, err := a.Listen([]Socket{{Addr: at("127.0.0.1:90")}})
	must(t, err)
	defer closeAll(first)
	many := make([]Socket, 300)
	for i := range many {
		many[i] = Socket{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i))}
	}
	for _, c := range []struct {
		last  Socket
		errno error
		want  string
	}{
		{Socket{Addr: at("127.0.0.1:90")}, unix.EADDRINUSE, "127.0.0.1:90/tcp: address already in use"},
		{Socket{Addr: at("192.0.2.1:90")}, unix.EADDRNOTAVAIL, "192.0.2.1:90/tcp"},
		{Socket{UDP: true, Addr: at("127.0.0.1:90"), Interface: "none"}, unix.ENODEV, "127.0.0.1:90/udp%none"},
		{Socket{}, nil, "no address"},
		{Socket{Addr: at("[::ffff:127.0.0.1]:90")}, nil, "in the form of"},
		{Socket{Addr: at("[fe80::1%none]:90")}, nil, "zone none"},
	} {
		files, err := a.Listen(append(many[:len(many):len(many)], c.last))
		if err == nil || files != nil || !strings.Contains(err.Error(), c.want) || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%v: %v", c.last, err)
		}
	}
	all, err := a.Listen(many) // nothing of the failed ones is left
	must(t, err)
	closeAll(all)
	if len(all) != len(many) {
		t.Errorf("%d sockets", len(all))
	}
	pid := a.PID()
	must(t, unix.Kill(pid, unix.SIGKILL))
	gone(t, pid)
	if _, err := a.Listen(many[:1]); err == nil {
		t.Error("a dead process binds")
	}
}
