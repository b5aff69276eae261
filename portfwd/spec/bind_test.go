package spec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// The tests have ports to themselves: other packages' run at the same time.
func TestMain(m *testing.M) { lab.Main(m, nil) }

// await waits until a socket has something to read. Loopback delivers at once,
// but for when the processor has other things to do.
func await(t *testing.T, fd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("nothing arrives: %v", err)
		}
		return
	}
}

func mustParse(t *testing.T, values ...string) []Spec {
	t.Helper()
	specs, err := ParseAll(values)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func mustBind(t *testing.T, values ...string) []Bound {
	t.Helper()
	bound, err := Bind(mustParse(t, values...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseAll(bound) })
	return bound
}

// needIPv6Loopback is for tests that need ::1 on the host.
func needIPv6Loopback(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		lab.Unavailable(t, "this machine has no IPv6 loopback: %v", err)
	}
	l.Close()
}

func TestFreePortIsTheSameOnBothLoopbacks(t *testing.T) {
	needIPv6Loopback(t)
	for _, proto := range []string{"tcp", "udp"} {
		bound := mustBind(t, "80/"+proto)
		if len(bound) != 2 {
			t.Fatalf("%s: %d sockets, want 127.0.0.1 and ::1", proto, len(bound))
		}
		v4, v6 := bound[0].Host, bound[1].Host
		if v4.Addr() != loopback[0] || v6.Addr() != loopback[1] || v4.Port() != v6.Port() || v4.Port() == 0 {
			t.Errorf("%s: bound to %s and %s", proto, v4, v6)
		}
	}
}

func TestClientsConnectBeforeAnybodyAccepts(t *testing.T) {
	for _, b := range mustBind(t, "80") {
		c, err := net.Dial("tcp", b.Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		await(t, b.FD) // the client is connected before its last ACK has arrived
		fd, _, err := unix.Accept4(b.FD, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if _, _, err := unix.Accept4(b.FD, unix.SOCK_CLOEXEC); err != unix.EAGAIN {
			t.Errorf("accept on an empty queue: %v, want EAGAIN", err)
		}
	}
}

func TestSocketIsClosedOnExecAndByClose(t *testing.T) {
	b := &mustBind(t, "80")[0]
	flags, err := unix.FcntlInt(uintptr(b.FD), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v; want close-on-exec", flags, err)
	}
	if err := b.Close(); err != nil || b.FD != -1 {
		t.Errorf("Close = %v, FD %d", err, b.FD)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if c, err := net.Dial("tcp", b.Host.String()); err == nil {
		c.Close()
		t.Error("still listening after Close")
	}
}

func TestUDPSocketReportsDestination(t *testing.T) {
	for _, b := range mustBind(t, "53/udp") {
		c, err := net.Dial("udp", b.Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		await(t, b.FD)
		data, oob := make([]byte, 8), make([]byte, 128)
		_, n, _, _, err := unix.Recvmsg(b.FD, data, oob, 0)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%s: control messages %v, %v", b.Host, messages, err)
		}
		if h := messages[0].Header; h.Type != unix.IP_PKTINFO && h.Type != unix.IPV6_PKTINFO {
			t.Errorf("%s: control message %+v is no destination address", b.Host, h)
		}
	}
}

func TestRangeKeepsPortsInStep(t *testing.T) {
	first := freeRange(t, 3)
	bound := mustBind(t, fmt.Sprintf("127.0.0.1:%d-%d:80-82", first, first+2))
	if len(bound) != 3 {
		t.Fatalf("%d sockets, want 3", len(bound))
	}
	for i, b := range bound {
		if int(b.Host.Port()) != first+i || int(b.Port) != 80+i {
			t.Errorf("socket %d: %s", i, &b)
		}
	}
}

// freeRange finds n ports in a row that are free on 127.0.0.1 at the moment.
func freeRange(t *testing.T, n int) int {
	t.Helper()
next:
	for first := 20000; first < 30000; first += n {
		for port := first; port < first+n; port++ {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first
	}
	t.Fatal("no free ports")
	return 0
}

func TestWildcardOfOneFamilyLeavesTheOtherFree(t *testing.T) {
	needIPv6Loopback(t)
	six := mustBind(t, "[::]:80")
	port := six[0].Host.Port()
	mustBind(t, fmt.Sprintf("0.0.0.0:%d:80", port))
}

func TestTakenPortNamesTheProcessAndLeavesNothingOpen(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := netip.MustParseAddrPort(l.Addr().String())
	free := freeRange(t, 1)
	before := openDescriptors(t)

	_, err = Bind(mustParse(t, fmt.Sprintf("127.0.0.1:%d:79", free), fmt.Sprintf("%d:80", taken.Port())))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("Bind = %v, want EADDRINUSE", err)
	}
	self := command("/proc/self/comm")
	want := fmt.Sprintf("publish %s: address already in use by %s (pid %d)", taken, self, os.Getpid())
	if !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "with -p 80") {
		t.Errorf("error %q; want %q and the way out", err, want)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", free)); err != nil {
		t.Errorf("the other spec's port is still taken: %v", err)
	} else {
		l.Close()
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestUDPPortIsNotShared(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := c.LocalAddr().(*net.UDPAddr).Port
	_, err = Bind(mustParse(t, fmt.Sprintf("%d:53/udp", port)))
	if want := fmt.Sprintf("in use by %s (pid %d)", command("/proc/self/comm"), os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Bind = %v; want %q", err, want)
	}
}

func TestDualStackListenerIsFoundForIPv4(t *testing.T) {
	needIPv6Loopback(t)
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = Bind(mustParse(t, fmt.Sprintf("127.0.0.1:%d:80", port)))
	if want := fmt.Sprintf("(pid %d)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Bind = %v; want %q", err, want)
	}
}

func TestAddressThatTheHostLacks(t *testing.T) {
	_, err := Bind(mustParse(t, "192.0.2.1:8080:80"))
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no address 192.0.2.1: -p 192.0.2.1:8080:80") {
		t.Errorf("Bind = %v", err)
	}
}

func TestUnknownZone(t *testing.T) {
	_, err := Bind(mustParse(t, "[fe80::1%nosuchif]:8080:80"))
	if err == nil || !strings.Contains(err.Error(), "no network interface nosuchif") {
		t.Errorf("Bind = %v", err)
	}
}

// The test takes the capability from one thread, which ends with the goroutine.
func TestLowPortNamesTheThreeWaysOut(t *testing.T) {
	if unprivilegedStart() <= 81 {
		lab.Unavailable(t, "this machine lets everyone bind port 81 (ip_unprivileged_port_start)")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := dropBindCapability(); err != nil {
			result <- fmt.Errorf("capset: %w", err)
			return
		}
		_, err := Bind([]Spec{{Protocol: TCP, HostPort: 81, Port: 80, Count: 1}})
		result <- err
	}()
	err := <-result
	if !errors.Is(err, syscall.EACCES) {
		t.Fatalf("Bind = %v, want EACCES", err)
	}
	program, _ := os.Executable()
	for _, want := range []string{"publish 127.0.0.1:81", "(-p 8081:80)",
		"(sudo sysctl net.ipv4.ip_unprivileged_port_start=81)", "(sudo setcap cap_net_bind_service=+ep " + program + ")"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func dropBindCapability() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
	return unix.Capset(&header, &data[0])
}

func TestSuggestedPortNeedsNoPrivilege(t *testing.T) {
	for _, c := range []struct {
		port         uint16
		count, start int
		want         uint16
	}{{80, 1, 1024, 8080}, {443, 1, 1024, 8443}, {53, 1, 1024, 8053}, {80, 1, 10000, 18080}, {1, 65000, 1024, 0}} {
		if got := aboveStart(c.port, c.count, c.start); got != c.want {
			t.Errorf("aboveStart(%d, %d, %d) = %d, want %d", c.port, c.count, c.start, got, c.want)
		}
	}
}

const withoutIPv6 = "SBXNET_TEST_WITHOUT_IPV6"

// The test runs itself again in a user and network namespace whose loopback has
// 127.0.0.1 but no ::1.
func TestHostWithoutIPv6SkipsItsLoopback(t *testing.T) {
	if os.Getenv(withoutIPv6) != "" {
		checkWithoutIPv6(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHostWithoutIPv6SkipsItsLoopback$", "-test.v")
	cmd.Env = append(os.Environ(), withoutIPv6+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		lab.Unavailable(t, "this machine does not let us make a network namespace: %v", err)
	}
	if err != nil || !strings.Contains(string(output), "--- PASS") {
		t.Errorf("%v\n%s", err, output)
	}
}

func checkWithoutIPv6(t *testing.T) {
	const sysctl = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	if err := os.WriteFile(sysctl, []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := loopbackUp(); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"8080:80", "80/udp"} {
		bound := mustBind(t, value)
		if len(bound) != 1 || bound[0].Host.Addr() != loopback[0] {
			t.Errorf("-p %s: bound %v", value, Lines(bound))
		}
	}
	if _, err := Bind(mustParse(t, "[::1]:8080:80")); err == nil || !strings.Contains(err.Error(), "-p [::1]:8080:80") {
		t.Errorf("::1 by name: %v, want an error", err)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func TestLinesAreLinks(t *testing.T) {
	bound := []Bound{
		{Protocol: TCP, Host: netip.MustParseAddrPort("127.0.0.1:8080"), Port: 80},
		{Protocol: TCP, Host: netip.MustParseAddrPort("[::1]:8080"), Port: 80},
		{Protocol: UDP, Host: netip.MustParseAddrPort("127.0.0.1:5353"), Port: 53},
	}
	want := "published http://127.0.0.1:8080 -> 80/tcp\n" +
		"published http://[::1]:8080 -> 80/tcp\n" +
		"published udp 127.0.0.1:5353 -> 53/udp"
	if got := strings.Join(Lines(bound), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLongRangeIsOneLineForEachAddress(t *testing.T) {
	var bound []Bound
	for i := range uint16(100) {
		for _, a := range loopback {
			bound = append(bound, Bound{Protocol: TCP, Host: netip.AddrPortFrom(a, 8000+i), Port: 80 + i})
		}
	}
	want := "published tcp 127.0.0.1:8000-8099 -> 80-179/tcp\npublished tcp [::1]:8000-8099 -> 80-179/tcp"
	if got := strings.Join(Lines(bound), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestProcessNameIsFitForATerminal(t *testing.T) {
	path := t.TempDir() + "/comm"
	if err := os.WriteFile(path, []byte("\x1b[2Jevil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := command(path); strings.ContainsAny(got, "\x1b\n") {
		t.Errorf("command = %q", got)
	}
}
