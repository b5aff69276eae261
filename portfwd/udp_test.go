package portfwd

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// echoUDP answers each datagram with itself until c is closed.
func echoUDP(c *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(buf[:n], from)
	}
}

func exchange(t *testing.T, c net.Conn, n int) {
	t.Helper()
	want := bytes.Repeat([]byte{0xa5, 0, 7}, n/3+1)[:n]
	got := make([]byte, 1<<16)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(want); err != nil {
		t.Fatalf("send %d bytes: %v", n, err)
	}
	k, err := c.Read(got)
	if err != nil {
		t.Fatalf("no answer to %d bytes: %v", n, err)
	}
	if !bytes.Equal(got[:k], want) {
		t.Fatalf("answer of %d bytes differs from the %d sent", k, n)
	}
}

func TestDatagramsGoOutAndBack(t *testing.T) {
	w := newWorld(t)
	for _, host := range []string{outside4, outside6} {
		server := hostListenPacket(t, host)
		go echoUDP(server)
		c := w.mustDial("udp", server.LocalAddr().String())
		for _, n := range []int{0, 1, 100, 1400, 1472, 1473, 9000, 60000} {
			exchange(t, c, n)
		}
	}
	if st := w.fwd.Stats(); st.UDP.Open != 2 || st.UDP.Outbound != 2 {
		t.Errorf("%+v, want two flows", st.UDP)
	}
}

func TestDatagramToClosedPortComesBackAsRefused(t *testing.T) {
	w := newWorld(t)
	for _, host := range []string{outside4, outside6} {
		server := hostListenPacket(t, host)
		address := server.LocalAddr().String()
		server.Close()
		c := w.mustDial("udp", address)
		c.Write([]byte("anybody?"))
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", host, err)
		}
	}
}

func TestDatagramWithoutRouteComesBackAsUnreachable(t *testing.T) {
	w := newWorld(t)
	for host, want := range map[string]unix.Errno{
		noRoute4: unix.ENETUNREACH, noRoute6: unix.ENETUNREACH, unreachable4_: unix.EHOSTUNREACH,
		"169.254.1.1": unix.EHOSTUNREACH, prohibited4: unix.EHOSTUNREACH, // the kernel's word for code 13
	} {
		c := w.mustDial("udp", net.JoinHostPort(host, "9"))
		raw, _ := c.(*net.UDPConn).SyscallConn()
		raw.Control(func(fd uintptr) { // else a UDP socket is told of closed ports only
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		})
		c.Write([]byte("anybody?"))
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", host, err, want)
		}
	}
}

func TestGatewayIsTheHostsLoopbackOnlyIfSo(t *testing.T) {
	for _, hosts := range [][2]string{{"127.0.0.1", gateway4}, {"::1", gateway6}} {
		server := hostListenPacket(t, hosts[0])
		go echoUDP(server)
		address := net.JoinHostPort(hosts[1], portOf(server.LocalAddr()))
		t.Run("closed "+hosts[0], func(t *testing.T) {
			c := newWorld(t).mustDial("udp", address)
			c.Write([]byte("anybody?"))
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%v, want connection refused", err)
			}
		})
		t.Run("open "+hosts[0], func(t *testing.T) {
			exchange(t, newWorld(t, hostLoopback).mustDial("udp", address), 100)
		})
	}
}

func TestNewFlowEvictsTheLongestIdle(t *testing.T) {
	w := newWorld(t, queues(1), withConfig(func(c *Config) { c.Limits.UDP = 8 }))
	server := hostListenPacket(t, outside4)
	go echoUDP(server)
	var conns []net.Conn
	for range 30 {
		c := w.mustDial("udp", server.LocalAddr().String())
		exchange(t, c, 10)
		conns = append(conns, c)
	}
	if st := w.fwd.Stats().UDP; st.Open != 8 || st.Evicted != 22 {
		t.Errorf("%+v, want 8 open and 22 evicted", st)
	}
	exchange(t, conns[0], 10) // a flow that was evicted is simply made again
}

func TestTrainOfDatagramsArrivesWhole(t *testing.T) {
	w := newWorld(t)
	server := hostListenPacket(t, outside4)
	server.SetReadBuffer(1 << 20)
	c := w.mustDial("udp", server.LocalAddr().String())
	raw, _ := c.(*net.UDPConn).SyscallConn()
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1200) })
	train := make([]byte, 20*1200+77)
	for i := range train {
		train[i] = byte(i >> 3)
	}
	if _, err := c.Write(train); err != nil {
		lab.Unavailable(t, "the sandbox's kernel sends no trains: %v", err)
	}
	var got []byte
	buf := make([]byte, 4096)
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	for len(got) < len(train) {
		n, err := server.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		if n != 1200 && n != 77 {
			t.Fatalf("a datagram of %d bytes", n)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, train) {
		t.Error("the datagrams differ from those sent")
	}
}
