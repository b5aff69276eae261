package userns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// diverter is a sandbox or an attachment.
type diverter interface {
	asker
	Divert(from, to netip.AddrPort) error
	Undivert(from, to netip.AddrPort) error
}

// namespace is where run runs a script.
type namespace struct {
	diverter
	run func(t testing.TB, script string) string
}

func inside(sb *Sandbox) namespace {
	return namespace{sb, func(t testing.TB, script string) string { t.Helper(); return look(t, sb, script) }}
}

// A family's ends of connections: the sandbox, and who is outside.
var (
	here4, there4 = netip.MustParseAddr("10.0.2.100"), netip.MustParseAddrPort("198.51.100.7:80")
	here6, there6 = netip.MustParseAddr("fd00::100"), netip.MustParseAddrPort("[2001:db8:7::7]:80")

	here4Port, here6Port = netip.AddrPortFrom(here4, 9999), netip.AddrPortFrom(here6, 9999)
)

// connection is one from inside to an address that is not the sandbox's, made
// while it was. The client is a plain socket.
type connection struct {
	client, server *os.File
	from, to       netip.AddrPort
}

// plainClient is a socket inside as any program's. One for both families takes an
// IPv6 socket to IPv4.
func plainClient(t testing.TB, ns namespace, from netip.AddrPort, mapped bool) *os.File {
	t.Helper()
	v6 := from.Addr().Is6() || mapped
	files, err := ns.Sockets(v6, 1)
	must(t, err)
	t.Cleanup(func() { files[0].Close() })
	fd := fdOf(t, files[0])
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0))
	if v6 {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 0))
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	} else {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 0))
	}
	must(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400))
	must(t, unix.Bind(fd, sockaddrOf(from, mapped)))
	return files[0]
}

// sockaddrOf is a's, in the form of an IPv6 one if mapped.
func sockaddrOf(a netip.AddrPort, mapped bool) unix.Sockaddr {
	if mapped {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return sockaddr(a)
}

// connections makes n of them to an address that the sandbox has for that long.
func connections(t testing.TB, ns namespace, to netip.AddrPort, mapped bool, n int) []connection {
	t.Helper()
	here := here4
	if to.Addr().Is6() {
		here = here6
	}
	address := fmt.Sprintf("%s/%d dev lo", to.Addr(), to.Addr().BitLen())
	if to.Addr().Is6() {
		address += " nodad"
	}
	ns.run(t, "ip addr add "+address)
	until(t, to.String()+" to be an address of the sandbox's", func() bool {
		return strings.Contains(ns.run(t, fmt.Sprintf("ip route get %s", to.Addr())), "local")
	})
	l := listening(t, ns, to.String())
	defer l.Close()
	var all []connection
	for range n {
		c := connection{from: netip.AddrPortFrom(here, clientOf("10.0.0.1").Port()), to: to}
		c.client = plainClient(t, ns, c.from, mapped)
		fd := fdOf(t, c.client)
		if err := unix.Connect(fd, sockaddrOf(to, mapped)); err != unix.EINPROGRESS {
			must(t, err)
		}
		_ = l.SetDeadline(time.Now().Add(answered))
		server, err := l.Accept()
		must(t, err)
		c.server, err = server.(*net.TCPConn).File()
		must(t, err)
		server.Close()
		t.Cleanup(func() { c.server.Close() })
		all = append(all, c)
	}
	ns.run(t, "ip addr del "+strings.TrimSuffix(address, " nodad"))
	return all
}

// repaired is the server's end of c as a socket of Sockets: what portfwd does with
// a connection of its own stack, here with one of the kernel's.
func (c connection) repaired(t *testing.T, ns namespace) *os.File {
	t.Helper()
	const receiveQueue, sendQueue, queueSeq, timestamp = 1, 2, unix.TCP_QUEUE_SEQ, unix.TCP_TIMESTAMP
	old := fdOf(t, c.server)
	must(t, unix.SetsockoptInt(old, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON))
	seq := func(queue int) int {
		must(t, unix.SetsockoptInt(old, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue))
		n, err := unix.GetsockoptInt(old, unix.IPPROTO_TCP, queueSeq)
		must(t, err)
		return n
	}
	received, sent := seq(receiveQueue), seq(sendQueue)
	clock, err := unix.GetsockoptInt(old, unix.IPPROTO_TCP, timestamp)
	must(t, err)
	info, err := unix.GetsockoptTCPInfo(old, unix.IPPROTO_TCP, unix.TCP_INFO)
	must(t, err)
	window := make([]byte, 20)
	size := uint32(len(window))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(old), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&window[0])), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		t.Fatal(errno)
	}
	must(t, c.server.Close())

	files, err := ns.Sockets(c.to.Addr().Is6(), 1)
	must(t, err)
	t.Cleanup(func() { files[0].Close() })
	fd := fdOf(t, files[0])
	set := func(option, value int) { t.Helper(); must(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value)) }
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
	must(t, unix.Bind(fd, sockaddr(c.to)))
	set(unix.TCP_REPAIR_QUEUE, sendQueue)
	set(queueSeq, sent)
	set(unix.TCP_REPAIR_QUEUE, receiveQueue)
	set(queueSeq, received)
	must(t, unix.Connect(fd, sockaddr(c.from)))
	// The bit field after Options in struct tcp_info has both window scales.
	scales := *(*uint8)(unsafe.Add(unsafe.Pointer(&info.Options), 1))
	var options []byte
	for _, o := range [][2]uint32{{2, info.Snd_mss}, {3, uint32(scales&15) | uint32(scales>>4)<<16}, {4, 0}, {8, 0}} {
		options = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(options, o[0]), o[1])
	}
	must(t, unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(options)))
	set(timestamp, clock)
	must(t, unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, string(window)))
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP) // else the client would answer before its segments are diverted
	// TCP_REPAIR has taken that away, and others may be made with this address.
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	return files[0]
}

func connOf(t *testing.T, f *os.File) *net.TCPConn {
	t.Helper()
	c, err := net.FileConn(f)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	f.Close()
	_ = c.SetDeadline(time.Now().Add(answered))
	return c.(*net.TCPConn)
}

// say sends b from one end to the other, and its end.
func say(t *testing.T, b []byte, from, to *net.TCPConn) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(b)
		sent <- errors.Join(err, from.CloseWrite())
	}()
	got, err := io.ReadAll(to)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(b), err)
	}
	must(t, <-sent)
}

// outgoing is what has left by the link.
type outgoing struct {
	link tapdev.Link
	tcp  []flow
}

func watch(t *testing.T, of interface {
	Link() (tapdev.Info, []*os.File)
}) *outgoing {
	t.Helper()
	link, err := tapdev.Attach(of.Link())
	must(t, err)
	t.Cleanup(func() { link.Close() })
	return &outgoing{link: link}
}

// read adds what has left since.
func (o *outgoing) read(t *testing.T) {
	t.Helper()
	in := make([]tapdev.Received, 16)
	for _, q := range o.link.Queues() {
		for {
			n, err := q.Read(in)
			must(t, err)
			if n == 0 {
				break
			}
			for _, r := range in[:n] {
				if c, ok := tcpFlow(r.Data); ok {
					o.tcp = append(o.tcp, c)
				}
			}
		}
	}
}

// tcpFlow is the connection that a frame without IP options belongs to.
func tcpFlow(d []byte) (flow, bool) {
	addresses := func(at, length, ports int) (flow, bool) {
		from, _ := netip.AddrFromSlice(d[at : at+length])
		to, _ := netip.AddrFromSlice(d[at+length : at+2*length])
		return flow{
			netip.AddrPortFrom(from, binary.BigEndian.Uint16(d[ports:])),
			netip.AddrPortFrom(to, binary.BigEndian.Uint16(d[ports+2:])),
		}, true
	}
	switch {
	case len(d) >= 54 && d[12] == 0x08 && d[13] == 0x00 && d[23] == unix.IPPROTO_TCP:
		return addresses(26, 4, 34)
	case len(d) >= 74 && d[12] == 0x86 && d[13] == 0xdd && d[20] == unix.IPPROTO_TCP:
		return addresses(22, 16, 54)
	}
	return flow{}, false
}

// awaits waits until something of c leaves by the link.
func (o *outgoing) awaits(t *testing.T, c connection) {
	t.Helper()
	until(t, fmt.Sprintf("%s to %s on the link", c.from, c.to), func() bool {
		o.read(t)
		return slices.Contains(o.tcp, flow{c.from, c.to})
	})
}

// known makes the gateways' hardware addresses known, so that nobody has to answer
// for what is sent to them to leave.
const known = "ip neigh replace 10.0.2.2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent; ip -6 neigh replace fd00::2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent"
