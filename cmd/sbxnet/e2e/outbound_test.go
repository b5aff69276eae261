package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onRemote starts a program in the remote host and ends it with the test.
func onRemote(t *testing.T, name string, args ...string) *lockedBuffer {
	t.Helper()
	out := &lockedBuffer{}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	var err error
	remote(t, func() { err = cmd.Start() })
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%v on the remote host:\n%s", cmd.Args, out.String())
		}
	})
	return out
}

func waitFor(t *testing.T, out *lockedBuffer, text string) {
	t.Helper()
	for range 2000 {
		if strings.Contains(out.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %q in %q", text, out.String())
}

func toolLine(args ...string) string {
	return self + " " + toolArg + " " + strings.Join(args, " ")
}

// linkCases are the ways to carry a frame; every end-to-end transfer runs over
// each of them.
var linkCases = map[string][]string{
	"tap":           {"--link", "tap"},
	"packet":        {"--link", "packet"},
	"software-gso":  {"--link", "tap", "--gso=false"},
	"plain":         {"--link", "tap", "--gso=false", "--tx-checksum-offload=false", "--rx-checksum-offload=false"},
	"no-gso-at-all": {"--link", "tap", "--gso=false", "--software-gso=false", "--gro=false", "--qdisc", "fifo"},
	"two-channels":  {"--link", "tap", "--num-network-channels", "2"},
	"large-mtu":     {"--link", "tap", "--mtu", "65520"},
}

const transferBytes = 100 << 20

func TestHundredMegabytesBothWaysWithHalfClose(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	needTAP(t)
	arg := fmt.Sprintf("%%s,%d", transferBytes)
	waitFor(t, onRemote(t, self, toolArg, "serve", fmt.Sprintf(arg, "[::]:7000")), "serving")
	for name, flags := range linkCases {
		t.Run("outbound/"+name, func(t *testing.T) {
			for _, host := range []string{remoteAddr4, remoteAddr6} {
				sh(t, flags, toolLine("exchange", net.JoinHostPort(host, "7000"), fmt.Sprint(transferBytes)))
			}
		})
		t.Run("published/"+name, func(t *testing.T) {
			args := append([]string{"run", "-p", "0.0.0.0:7001:7001"}, flags...)
			p := start(t, append(args, "--", self, toolArg, "serve", fmt.Sprintf(arg, ":7001"))...)
			p.waitOutput("serving", 20*time.Second)
			remote(t, func() {
				if err := exchangeClient(net.JoinHostPort(hostAddr4, "7001"), fmt.Sprint(transferBytes)); err != nil {
					t.Error(err)
				}
			})
			p.waitOutput("exchange done", 20*time.Second)
		})
	}
}

// echoServer echoes on the remote host over TCP until the test ends.
func echoServer(t *testing.T, addr string) {
	t.Helper()
	var l net.Listener
	remote(t, func() {
		var err error
		if l, err = net.Listen("tcp", addr); err != nil {
			t.Errorf("listen: %v", err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				// From socket to socket it would be with a pipe of 1 MiB for each
				// connection. A user has a few dozen, which other tests want, too.
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			}()
		}
	}()
}

// The sandbox ends with its command, but not before the far end, slow as it may
// be, has got what the command's kernel had taken from it.
func TestWhatTheCommandSentArrivesAfterItHasEnded(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	const size = 2 << 20
	var l net.Listener
	remote(t, func() { l, _ = net.Listen("tcp", "[::]:7600") })
	if l == nil {
		t.Fatal("no listener on the remote host")
	}
	defer l.Close()
	// With the packet link the interface goes as soon as the sandbox's kernel has
	// sent everything, and what is not yet the host's must not go with it.
	for _, flags := range [][]string{nil, {"--link", "packet"}} {
		received := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				received <- err
				return
			}
			defer c.Close()
			c.(*net.TCPConn).SetReadBuffer(32 << 10)
			received <- compare(slowReader{c}, stream(1, size))
		}()
		sh(t, flags, toolLine("blast", net.JoinHostPort(remoteAddr4, "7600"), fmt.Sprint(size)))
		select {
		case err := <-received:
			if err != nil {
				t.Errorf("%v: %v", flags, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%v: the stream did not end", flags)
		}
	}
}

// slowReader takes a little at a time.
type slowReader struct{ io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	time.Sleep(2 * time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 8<<10)])
}

func TestThousandConnectionsAtOnce(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	echoServer(t, "[::]:7100")
	for _, host := range []string{remoteAddr4, remoteAddr6} {
		out := sh(t, nil, "ulimit -n 4096 2>/dev/null; "+toolLine("crowd", net.JoinHostPort(host, "7100"), "1000"))
		if !strings.Contains(out, "all 1000 echoed") {
			t.Errorf("%s: %q", host, out)
		}
	}
}

func TestOutboundPrograms(t *testing.T) {
	need(t, "iperf3", "nc", "ping", "curl")
	if !inAWorld(t) {
		return
	}
	t.Run("iperf3", func(t *testing.T) {
		for i, args := range []string{"", "-R", "-P 4", "-u -b 200M -l 1400", "-u -b 100M -l 1400 -R", "-6"} {
			// Each has a server of its own: one turns a client away that comes
			// before it has heard of the last one's end.
			port := fmt.Sprint(5201 + i)
			waitFor(t, onRemote(t, "iperf3", "-s", "-p", port, "--forceflush"), "listening")
			host := remoteAddr4
			if args == "-6" {
				host = remoteAddr6
			}
			sh(t, nil, fmt.Sprintf("iperf3 -c %s -p %s -t 1 %s >/dev/null", host, port, args))
		}
	})
	t.Run("nc half-close", func(t *testing.T) {
		echoServer(t, "[::]:7200")
		for _, host := range []string{remoteAddr4, remoteAddr6} {
			if got := sh(t, nil, fmt.Sprintf("echo through | nc -N -w 5 %s 7200", host)); got != "through\n" {
				t.Errorf("%s: %q", host, got)
			}
		}
	})
	t.Run("udp", func(t *testing.T) {
		waitFor(t, onRemote(t, self, toolArg, "who", "udp", "[::]:7300"), "listening")
		for _, host := range []string{remoteAddr4, remoteAddr6} {
			got := sh(t, nil, fmt.Sprintf("echo who | nc -u -w 2 %s 7300", host))
			if !strings.Contains(got, hostAddr4) && !strings.Contains(got, hostAddr6) {
				t.Errorf("%s: the outside saw %q, not the host", host, got)
			}
		}
	})
	t.Run("ping", func(t *testing.T) {
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0o644); err != nil {
			t.Fatalf("ping_group_range in the world: %v", err)
		}
		for _, host := range []string{remoteAddr4, remoteAddr6} {
			sh(t, nil, fmt.Sprintf("ping -c 3 -i 0.2 -W 10 %s", host))
		}
		sh(t, nil, fmt.Sprintf("ping -c 1 -s 8000 -W 10 %s", remoteAddr4))
	})
}

// Where the host forbids ping sockets, sbxnet says so once and names the cure.
func TestPingWithoutPingSocketsIsExplained(t *testing.T) {
	need(t, "ping")
	if !inAWorld(t) {
		return
	}
	// A new network namespace has the kernel's default, "1 0": nobody. The
	// world's root has CAP_NET_RAW there; an ordinary user has not.
	p := start(t, "run", "--", "sh", "-c", fmt.Sprintf("ping -c 2 -i 0.2 -W 5 %s; true", remoteAddr4))
	r := p.wait(20 * time.Second)
	answered := strings.Contains(r.stdout, " 0% packet loss")
	explained := strings.Count(r.stderr, "ping_group_range") == 1
	if answered == explained {
		t.Errorf("answered %v, explained %v\n%s\n%s", answered, explained, r.stdout, r.stderr)
	}
}

func TestRefusedUnreachableAndResetArriveAsThemselves(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	var l net.Listener
	remote(t, func() { l, _ = net.Listen("tcp", "[::]:7400") })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// Not before the client has something to say: a reset right after
			// the handshake is an error of connect where the client is slow.
			c.Read(make([]byte, 1))
			c.(*net.TCPConn).SetLinger(0) // RST
			c.Close()
		}
	}()
	for _, c := range []struct{ network, addr, want string }{
		{"tcp", net.JoinHostPort(remoteAddr4, "1"), "connection refused"},
		{"tcp", net.JoinHostPort(remoteAddr6, "1"), "connection refused"},
		{"udp", net.JoinHostPort(remoteAddr4, "1"), "connection refused"},
		{"udp", net.JoinHostPort(remoteAddr6, "1"), "connection refused"},
		{"tcp", "198.51.100.1:80", "unreachable"},
		{"tcp", "[2001:db8:1::1]:80", "unreachable"},
	} {
		if got := sh(t, nil, toolLine("refused", c.network, c.addr)); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.network, c.addr, got, c.want)
		}
	}
	need(t, "nc")
	r := runSbxnet(t, "run", "--", "sh", "-c", fmt.Sprintf("sleep 1 | curl -sS http://%s:7400/ 2>&1", remoteAddr4))
	if !strings.Contains(r.stdout, "reset by peer") {
		t.Errorf("reset: %q", r.stdout)
	}
}

func TestHostLoopbackIsClosedUnlessAskedFor(t *testing.T) {
	var addrs []string
	for _, a := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "the host's secret")
				c.Close()
			}
		}()
		addrs = append(addrs, l.Addr().String())
	}
	_, port4, _ := net.SplitHostPort(addrs[0])
	_, port6, _ := net.SplitHostPort(addrs[1])
	flags := []string{"--cidr", "10.77.0.0/24", "--cidr6", "fd77::/64"}
	gateway := []string{"10.77.0.2:" + port4, "[fd77::2]:" + port6}
	// Every spelling of the host's loopback that has ever fooled a forwarder.
	sneaky := []string{"127.0.0.1:" + port4, "[::1]:" + port6, "0.0.0.0:" + port4, "[::ffff:127.0.0.1]:" + port4, "10.77.0.3:" + port4}
	for _, a := range append(sneaky, gateway...) {
		if got := sh(t, flags, toolLine("refused", "tcp", a)); strings.Contains(got, "connected") {
			t.Errorf("%s connects without --host-loopback", a)
		}
	}
	open := append(flags, "--host-loopback")
	for _, a := range gateway {
		if got := sh(t, open, toolLine("refused", "tcp", a)); !strings.Contains(got, "connected") {
			t.Errorf("%s with --host-loopback: %q", a, got)
		}
	}
}

// fakeResolver answers every A query with addr, over UDP and TCP.
func fakeResolver(t *testing.T, listen, addr string) {
	t.Helper()
	answer := func(q []byte) []byte {
		if len(q) < 17 {
			return nil
		}
		r := append([]byte(nil), q...)
		r[2], r[3] = 0x84, 0x80
		end := 12
		for end < len(q) && q[end] != 0 {
			end += int(q[end]) + 1
		}
		r = r[:end+5]
		r[6], r[7], r[8], r[9], r[10], r[11] = 0, 1, 0, 0, 0, 0
		r = append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		return append(r, net.ParseIP(addr).To4()...)
	}
	pc, err := net.ListenPacket("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(answer(b[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				var size [2]byte
				for {
					if _, err := io.ReadFull(r, size[:]); err != nil {
						return
					}
					q := make([]byte, int(size[0])<<8|int(size[1]))
					if _, err := io.ReadFull(r, q); err != nil {
						return
					}
					a := answer(q)
					c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...))
				}
			}()
		}
	}()
}

func TestDNSFollowsTheHostsResolvers(t *testing.T) {
	need(t, "dig", "mount")
	if !inAWorld(t) {
		return
	}
	fakeResolver(t, "127.0.0.53:53", "203.0.113.53")
	fakeResolver(t, "127.0.0.54:53", "203.0.113.54")
	conf := scratch(t) + "/resolv.conf"
	use := func(ns string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte("search example\nnameserver "+ns+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	use("127.0.0.53")
	target, _ := os.Readlink("/etc/resolv.conf")
	if target == "" {
		target = "/etc/resolv.conf"
	}
	if out, err := exec.Command("mount", "--bind", conf, target).CombinedOutput(); err != nil {
		t.Fatalf("mount over %s: %v: %s", target, err, out)
	}
	fifo := scratch(t) + "/go"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "run", "--", "sh", "-ec", `
		for s in 10.0.2.3 fd00::3; do for o in +notcp +tcp; do dig +short +timeout=3 $o @$s name.example; done; done
		dig +short +timeout=3 @10.0.2.3 host.sbxnet.internal
		dig +short +timeout=3 @10.0.2.3 AAAA host.sbxnet.internal
		getent hosts name.example || true
		echo first-done; cat `+fifo+`
		dig +short +timeout=3 @10.0.2.3 name.example; echo second-done`)
	p.waitOutput("first-done", 30*time.Second)
	use("127.0.0.54")
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	r := p.wait(30 * time.Second)
	first, second, _ := strings.Cut(r.stdout, "first-done")
	if strings.Count(first, "203.0.113.53\n") != 4 || !strings.Contains(first, "10.0.2.2\n") || !strings.Contains(first, "fd00::2\n") {
		t.Errorf("first: %q", first)
	}
	if !strings.Contains(second, "203.0.113.54\n") {
		t.Errorf("after the host's resolver changed: %q", second)
	}
}
