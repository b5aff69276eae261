package userns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// asker is a sandbox or an attachment.
type asker interface {
	Listen([]Socket) ([]*os.File, error)
	Sockets(v6 bool, n int) ([]*os.File, error)
}

// fdOf is the descriptor of f, which stays non-blocking.
func fdOf(t testing.TB, f *os.File) (fd int) {
	t.Helper()
	raw, err := f.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(n uintptr) { fd = int(n) }))
	return fd
}

// listening starts a server in the sandbox; nobody reads the link.
func listening(t testing.TB, a asker, at string) *net.TCPListener {
	t.Helper()
	files, err := a.Listen([]Socket{{Addr: netip.MustParseAddrPort(at)}})
	must(t, err)
	return listenerOf(t, files[0])
}

func listenerOf(t testing.TB, f *os.File) *net.TCPListener {
	t.Helper()
	defer f.Close()
	l, err := net.FileListener(f)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// clientPort is none that another client of a test has had.
var clientPort atomic.Uint32

// clientOf is a client of an address.
func clientOf(address string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), uint16(10000+clientPort.Add(1)))
}

// connectAs connects to a server in the sandbox in the name of from.
func connectAs(t *testing.T, a asker, from, to netip.AddrPort, wait time.Duration) (*os.File, error) {
	t.Helper()
	files, err := a.Sockets(from.Addr().Is6(), 1)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { files[0].Close() })
	fd := fdOf(t, files[0])
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != unix.EINPROGRESS {
		return files[0], err
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(wait); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		if n == 0 {
			return nil, os.ErrDeadlineExceeded
		}
		break
	}
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || n != 0 {
		return nil, errors.Join(err, syscall.Errno(n))
	}
	return files[0], nil
}

// answered is far beyond what a handshake over lo takes.
const answered = 10 * time.Second

// meets connects to a server in the name of a client, and checks what both ends see.
func meets(t *testing.T, a asker, l *net.TCPListener, client, to string) {
	t.Helper()
	from := clientOf(client)
	socket, err := connectAs(t, a, from, netip.MustParseAddrPort(to), answered)
	if err != nil {
		t.Errorf("%s to %s: %v", from, to, err)
		return
	}
	_ = l.SetDeadline(time.Now().Add(answered))
	server, err := l.Accept()
	if err != nil {
		t.Errorf("%s to %s: accept: %v", from, to, err)
		return
	}
	defer server.Close()
	if peer := server.RemoteAddr().String(); peer != from.String() || server.LocalAddr().String() != to {
		t.Errorf("%s to %s: the server sees %s to %s", from, to, peer, server.LocalAddr())
	}
	exchange(t, socket, server)
	socket.Close()
}

// exchange sends something from either end to the other, and the server's end of
// it.
func exchange(t *testing.T, client *os.File, server net.Conn) {
	t.Helper()
	b := make([]byte, 64)
	_ = server.SetDeadline(time.Now().Add(answered))
	_, err := client.Write([]byte("a question"))
	must(t, err)
	n, err := server.Read(b)
	if err != nil || string(b[:n]) != "a question" {
		t.Errorf("the server got %q, %v", b[:n], err)
	}
	_, err = server.Write([]byte("an answer"))
	must(t, err)
	must(t, server.(*net.TCPConn).CloseWrite())
	var got []byte
	until(t, "the answer and its end", func() bool {
		n, err := unix.Read(fdOf(t, client), b)
		got = append(got, b[:max(n, 0)]...)
		return n == 0 && err == nil
	})
	if string(got) != "an answer" {
		t.Errorf("the client got %q", got)
	}
}

// clients are whom a server may have to do with: the gateway and somebody else.
var clients4, clients6 = []string{"10.0.2.2", "203.0.113.7", "8.8.8.8"}, []string{"fd00::2", "2001:db8::7", "2606:4700::1"}

// meetEverywhere meets servers in all places where a server may be.
func meetEverywhere(t *testing.T, a asker) {
	t.Helper()
	for _, s := range []struct {
		listen  string
		targets []string
		clients []string
	}{
		{"0.0.0.0:80", []string{"10.0.2.100:80", "127.0.0.1:80", "127.8.9.1:80"}, clients4},
		{"10.0.2.100:81", []string{"10.0.2.100:81"}, clients4},
		{"127.0.0.1:82", []string{"127.0.0.1:82"}, clients4},
		{"[::]:80", []string{"[fd00::100]:80", "[::1]:80"}, clients6},
		{"[fd00::100]:81", []string{"[fd00::100]:81"}, clients6},
		{"[::1]:82", []string{"[::1]:82"}, clients6},
	} {
		l := listening(t, a, s.listen)
		for _, to := range s.targets {
			for _, from := range s.clients {
				meets(t, a, l, from, to)
			}
		}
		l.Close()
		for _, to := range s.targets { // as if it had never been there
			if _, err := connectAs(t, a, clientOf(s.clients[1]), netip.MustParseAddrPort(to), answered); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("to %s, where nobody listens: %v", to, err)
			}
		}
	}
}

func TestServersSeeTheClientThatASocketStandsFor(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain":         func(*Config) {},
		"no-net-raw":    func(c *Config) { c.NetRaw = false },
		"pid-namespace": func(c *Config) { c.PIDNamespace = true },
		"single-map":    func(c *Config) { c.UserMap = MapSingle },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := linked()
			change(&cfg)
			meetEverywhere(t, runningSandbox(t, cfg))
		})
	}
}

// A sandbox may have any addresses: pasta gives it the host's.
func TestSandboxMayHaveAddressesForDocumentation(t *testing.T) {
	cfg := linked()
	cfg.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	cfg.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	sb := runningSandbox(t, cfg)
	meets(t, sb, listening(t, sb, "0.0.0.0:80"), "203.0.113.7", "192.0.2.1:80")
	meets(t, sb, listening(t, sb, "[::]:80"), "2001:db8:7::7", "[2001:db8::1]:80")
}

// What is said over the sockets does not leave by the link, not even to reset.
func TestSocketsSayNothingOnTheLink(t *testing.T) {
	sb := runningSandbox(t, linked())
	info, files := sb.Link()
	link, err := tapdev.Attach(info, files)
	must(t, err)
	defer link.Close()
	meetEverywhere(t, sb)
	in := make([]tapdev.Received, 16)
	look(t, sb, "ping -c 1 -W 0.1 10.0.2.99 || true")
	asked := false // for 10.0.2.99, after all else was sent
	read := func(q tapdev.Queue) (frames int) {
		n, err := q.Read(in)
		must(t, err)
		for _, r := range in[:n] {
			d := r.Data
			switch {
			case len(d) >= 34 && d[12] == 0x08 && d[13] == 0x00 && d[23] == unix.IPPROTO_TCP,
				len(d) >= 54 && d[12] == 0x86 && d[13] == 0xdd && d[20] == unix.IPPROTO_TCP:
				t.Errorf("TCP on the link: %x", d)
			case len(d) >= 42 && d[12] == 0x08 && d[13] == 0x06 && d[41] == 99:
				asked = true
			}
		}
		return n
	}
	until(t, "what was sent last", func() bool {
		for _, q := range link.Queues() {
			for read(q) > 0 {
			}
		}
		return asked
	})
}

// A server on [::] that takes IPv4 as well is found at both.
func TestServerOfBothFamiliesSeesTheClient(t *testing.T) {
	sb := runningSandbox(t, linked())
	files, err := sb.Sockets(true, 1)
	must(t, err)
	fd := fdOf(t, files[0])
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0))
	must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	must(t, unix.Bind(fd, &unix.SockaddrInet6{Port: 80}))
	must(t, unix.Listen(fd, 10))
	l := listenerOf(t, files[0])
	meets(t, sb, l, "203.0.113.7", "10.0.2.100:80")
	meets(t, sb, l, "10.0.2.2", "127.0.0.1:80")
	meets(t, sb, l, "2001:db8::7", "[fd00::100]:80")
}

func TestSocketsAreWhatTheyAreSaidToBe(t *testing.T) {
	sb := started(t, linked()) // before there is a command, as well
	for _, v6 := range []bool{false, true} {
		transparent := [2]int{unix.IPPROTO_IP, unix.IP_TRANSPARENT}
		if v6 {
			transparent = [2]int{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT}
		}
		for _, n := range []int{0, 1, maxSockets, maxSockets + 1, 1000} {
			files, err := sb.Sockets(v6, n)
			must(t, err)
			if len(files) != n {
				t.Errorf("%d sockets, want %d", len(files), n)
			}
			for _, f := range files {
				fd := fdOf(t, f)
				for _, o := range []struct{ level, option, want int }{
					{unix.SOL_SOCKET, unix.SO_DOMAIN, socketFamily(v6)}, {unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
					{unix.SOL_SOCKET, unix.SO_MARK, SocketMark}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
					{transparent[0], transparent[1], 1}, {unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
				} {
					if got, err := unix.GetsockoptInt(fd, o.level, o.option); err != nil || got != o.want {
						t.Fatalf("option %d of level %d is %#x, %v; want %#x", o.option, o.level, got, err, o.want)
					}
				}
				flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
				must(t, err)
				if on, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || on&unix.FD_CLOEXEC == 0 || flags&unix.O_NONBLOCK == 0 {
					t.Fatalf("flags %#x and %#x, %v", flags, on, err)
				}
			}
			closeAll(files)
		}
		if files, err := sb.Sockets(v6, -1); err == nil || files != nil {
			t.Errorf("-1 sockets: %v, %v", files, err)
		}
	}
}

// The bound holds in the process inside, too, whoever asks it.
func TestOneMessageGetsABoundedNumberOfSockets(t *testing.T) {
	sb := started(t, linked())
	for _, n := range []int{-1, 0, maxSockets + 1, 1 << 30} {
		sb.asking.Lock()
		_, err := sb.ask("make sockets", message{Op: opSockets, Number: n}, n)
		sb.asking.Unlock()
		if err == nil || !strings.Contains(err.Error(), "in a message that holds") {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// Who traces the sandbox's first process could have it send something else.
func TestOtherDescriptorsAreNotTakenForSockets(t *testing.T) {
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	if err := checkSocket(null, false); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a file: %v", err)
	}
	sb := runningSandbox(t, linked())
	files, err := sb.Sockets(false, 2)
	must(t, err)
	defer closeAll(files)
	if err := checkSocket(files[0], true); err == nil || !strings.Contains(err.Error(), "family") {
		t.Errorf("of the other family: %v", err)
	}
	must(t, unix.SetNonblock(fdOf(t, files[0]), false))
	if err := checkSocket(files[0], false); err == nil || !strings.Contains(err.Error(), "blocks") {
		t.Errorf("blocking: %v", err)
	}
	must(t, unix.Bind(fdOf(t, files[1]), &unix.SockaddrInet4{}))
	must(t, unix.Listen(fdOf(t, files[1]), 1))
	if err := checkSocket(files[1], false); err == nil || !strings.Contains(err.Error(), "listening") {
		t.Errorf("listening: %v", err)
	}
}

func TestSocketsAreMadeForManyAtOnce(t *testing.T) {
	sb := runningSandbox(t, linked())
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 5 {
				files, err := sb.Sockets(i%2 == 0, 16)
				if err != nil || len(files) != 16 {
					t.Errorf("%d sockets, %v", len(files), err)
				}
				closeAll(files)
				at := netip.AddrPortFrom(netip.MustParseAddr("10.0.2.100"), uint16(1000+i))
				if files, err = sb.Listen([]Socket{{Addr: at}}); err != nil {
					t.Errorf("%v: %v", at, err)
				}
				closeAll(files)
			}
		})
	}
	wait.Wait()
}

func TestSandboxHasNoSocketsForAFamilyOrNetworkThatItLacks(t *testing.T) {
	only4, host, detached := linked(), unlinked(), linked()
	only4.Addresses, only4.Gateways = only4.Addresses[:1], only4.Gateways[:1]
	host.Network = NetworkHost
	detached.DetachNetNS = name(t)
	for _, c := range []struct {
		cfg  Config
		v6   bool
		want string
	}{
		{only4, true, "no IPv6 address"}, {unlinked(), false, "no IPv4 address"}, {unlinked(), true, "no IPv6 address"},
		{host, false, "the host's network"}, {detached, false, "detached"},
	} {
		sb := runningSandbox(t, c.cfg)
		files, err := sb.Sockets(c.v6, 1)
		if err == nil || files != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want %q: %v", c.want, err)
		}
		if c.cfg.Network == NetworkSandbox && c.cfg.DetachNetNS == "" {
			meets(t, sb, listening(t, sb, "0.0.0.0:80"), "203.0.113.7", "10.0.2.100:80")
			if out := look(t, sb, "ip -6 rule"); strings.Contains(out, "fwmark") {
				t.Errorf("without IPv6 it has rules:\n%s", out)
			}
		}
	}
}

func TestSandboxThatHasEndedMakesNoSockets(t *testing.T) {
	sb := runningSandbox(t, linked())
	before, err := sb.Sockets(false, 1)
	must(t, err)
	defer closeAll(before)
	must(t, sb.Close())
	if files, err := sb.Sockets(false, 1); err == nil || files != nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, %v", files, err)
	}
}

// The kernel bounds the descriptors that a user's processes have sent and nobody
// has received, of other sandboxes as well.
func TestSocketsThatCannotBeSentAreAnError(t *testing.T) {
	sb := runningSandbox(t, linked())
	const most = 200 // more than it has open
	must(t, unix.Prlimit(sb.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}, nil))
	ours, file, err := controlPair()
	must(t, err)
	defer ours.Close()
	theirs, err := controlConn(file)
	must(t, err)
	defer theirs.Close()
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	must(t, sendMessage(theirs, message{Op: opNote}, slices.Repeat([]*os.File{null}, maxMessageFiles)...))
	if files, err := sb.Sockets(false, 1); !errors.Is(err, unix.ETOOMANYREFS) || files != nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("Sockets: %v, %v", files, err)
	}
	if files, err := sb.Listen([]Socket{{Addr: netip.MustParseAddrPort("10.0.2.100:80")}}); !errors.Is(err, unix.ETOOMANYREFS) || files != nil {
		t.Errorf("Listen: %v, %v", files, err)
	}
	_, received, err := receiveMessage(ours)
	must(t, err)
	closeAll(received)
	meets(t, sb, listening(t, sb, "0.0.0.0:80"), "203.0.113.7", "10.0.2.100:80")
}
