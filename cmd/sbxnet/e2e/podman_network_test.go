package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCompatPodmanContainerHasItsNetwork(t *testing.T) {
	p := newPodman(t)
	got := p.sh(container{}, "ip addr show tap0; ip route; ip -6 route; cat /etc/resolv.conf")
	for _, want := range []string{
		"mtu 65520", "inet 10.0.2.100/24", "inet6 fd00::100/64",
		"default via 10.0.2.2 dev tap0", "default via fd00::2 dev tap0", "nameserver 10.0.2.3",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if info := p.ok("info"); !strings.Contains(info, "version: |-\n") || !strings.Contains(info, "slirp4netns version") || !strings.Contains(info, p.slirp()) {
		t.Errorf("podman info does not show us:\n%s", info)
	}
}

func TestCompatPodmanNetworkOptions(t *testing.T) {
	p := newPodman(t)
	got := p.sh(container{network: "cidr=10.91.0.0/16,mtu=1400,enable_ipv6=false"}, "ip addr show tap0; ip route; cat /etc/resolv.conf")
	for _, want := range []string{"mtu 1400", "inet 10.91.0.100/16", "default via 10.91.0.2", "nameserver 10.91.0.3"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "inet6 fd00") {
		t.Errorf("IPv6 all the same:\n%s", got)
	}
	// A block that cannot be is our error, which Podman passes on.
	_, err := p.try(container{network: "cidr=10.91.0.7/16"}.args([]string{"run", "--rm"}, "true")...)
	if err == nil || !strings.Contains(err.Error(), "CIDR") {
		t.Errorf("a CIDR with host bits: %v", err)
	}
}

const podmanTransfer = 4 << 20

// The host's loopback, by way of the gateway, for containers that may.
func TestCompatPodmanOutboundToTheHostsLoopback(t *testing.T) {
	p := newPodman(t)
	c := container{network: "allow_host_loopback=true"}
	for host, gateway := range map[string]string{"127.0.0.1": "10.0.2.2", "::1": "fd00::2"} {
		if host == "::1" && !loopback6() {
			continue
		}
		tcp := serveExchange(t, host, podmanTransfer)
		udp := serveUDP(t, host)
		script := fmt.Sprintf("%s && %s",
			toolScript("exchange", net.JoinHostPort(gateway, tcp), fmt.Sprint(podmanTransfer)),
			toolScript("refused", "udp", net.JoinHostPort(gateway, udp)))
		if got := p.sh(c, script); got != "connected" {
			t.Errorf("%s by way of %s: %q", host, gateway, got)
		}
	}
}

func TestCompatPodmanHostLoopbackIsUnreachableByDefault(t *testing.T) {
	p := newPodman(t)
	port := serveExchange(t, "127.0.0.1", 1)
	got := p.sh(container{}, toolScript("refused", "tcp", "10.0.2.2:"+port))
	if !strings.Contains(got, "network is unreachable") {
		t.Errorf("%q", got)
	}
}

func TestCompatPodmanOutboundToAnAddressOfTheHosts(t *testing.T) {
	p := newPodman(t)
	host := hostAddr(t)
	tcp, udp := serveExchange(t, host, podmanTransfer), serveUDP(t, host)
	got := p.sh(container{}, toolScript("exchange", host+":"+tcp, fmt.Sprint(podmanTransfer))+" && "+toolScript("refused", "udp", host+":"+udp))
	if got != "connected" {
		t.Errorf("%q", got)
	}
}

// outbound_addr is the source that servers see.
func TestCompatPodmanOutboundAddress(t *testing.T) {
	p := newPodman(t)
	host := hostAddr(t)
	source, port := sourceOf(t, host)
	p.sh(container{network: "outbound_addr=127.0.0.5"}, "echo hello | nc "+host+" "+port)
	if got := <-source; got != "127.0.0.5" {
		t.Errorf("the server saw %s", got)
	}
	_, err := p.try(container{network: "outbound_addr=nosuch0"}.args([]string{"run", "--rm"}, "true")...)
	if err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

func TestCompatPodmanPing(t *testing.T) {
	p := newPodman(t)
	c := container{flags: []string{"--cap-add", "NET_RAW"}}
	p.sh(c, "ping -c 1 -W 5 10.0.2.2 && ping -c 1 -W 5 fd00::2")
	// Beyond the gateway it takes a ping socket of the user's.
	host := hostAddr(t)
	_, err := p.try(c.args([]string{"run", "--rm"}, "ping", "-c", "1", "-W", "3", host)...)
	if allowed := pingSocketsFor(t, p.user.gid); allowed != (err == nil) {
		t.Errorf("ping sockets allowed to the user's group: %v; ping: %v", allowed, err)
	}
}

// pingSocketsFor reads net.ipv4.ping_group_range.
func pingSocketsFor(t *testing.T, gid int) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range")
	if err != nil {
		t.Fatal(err)
	}
	var low, high int
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		t.Fatal(err)
	}
	return low <= gid && gid <= high
}

// Names are asked of the host's resolvers. Who may bind port 53 has one of its
// own answer; the gateway's name is ours to answer in any case.
func TestCompatPodmanDNS(t *testing.T) {
	p := newPodman(t)
	if got := p.sh(container{}, "nslookup host.sbxnet.internal 10.0.2.3"); !strings.Contains(got, "10.0.2.2") {
		t.Errorf("%q", got)
	}
	if os.Getuid() != 0 {
		return
	}
	fakeResolver(t, "127.0.0.53:53", "203.0.113.53")
	conf := p.dir + "/resolv.conf"
	p.write(conf, "nameserver 127.0.0.53\n")
	// Podman's commands share a mount namespace, which is the user's own.
	p.ok("unshare", "mount", "--bind", conf, "/etc/resolv.conf")
	if got := p.sh(container{}, "nslookup name.example 10.0.2.3"); !strings.Contains(got, "203.0.113.53") {
		t.Errorf("%q", got)
	}
}

func loopback6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// serveExchange is the other end of the exchange tool, for one client. It ends
// its stream when it has all of the client's: a client that is done has lost
// nothing if its network ends with it.
func serveExchange(t *testing.T, host string, n int64) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(podmanTimeout))
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(c, stream(2, n))
			sent <- err
		}()
		if err := errors.Join(compare(c, stream(1, n)), <-sent); err != nil {
			t.Errorf("exchange on %s: %v", host, err)
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// A container ends with its command, but not before the far end, slow as it may
// be, has got what the command's kernel had taken from it.
func TestCompatPodmanWhatTheCommandSentArrivesAfterItHasEnded(t *testing.T) {
	const n = 3 << 20
	p := newPodman(t)
	host := hostAddr(t)
	l, err := net.Listen("tcp", host+":0")
	p.must(err)
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		time.Sleep(300 * time.Millisecond) // by then the command has ended
		got <- compare(c, stream(1, n))
	}()
	p.sh(container{network: "mtu=1500"}, toolScript("blast", l.Addr().String(), fmt.Sprint(n)))
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// serveUDP answers datagrams with themselves.
func serveUDP(t *testing.T, host string) (port string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
	_, port, _ = net.SplitHostPort(pc.LocalAddr().String())
	return port
}

// sourceOf accepts one connection and tells the client's address.
func sourceOf(t *testing.T, host string) (source <-chan string, port string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	seen := make(chan string, 1)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(podmanTimeout))
	go func() {
		c, err := l.Accept()
		if err != nil {
			seen <- err.Error()
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		seen <- host
		c.Close()
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return seen, port
}

// privatePort listens on the host's loopback. untouched, called when whoever
// should not get there has tried, asserts that nobody did: connections are
// accepted in their order, and the test's own is the first. What the one inside
// thinks proves nothing: nc takes a poll's premature answer for a connection.
func privatePort(t *testing.T) (port string, untouched func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() {
		t.Helper()
		own, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.RemoteAddr().String() != own.LocalAddr().String() {
			t.Errorf("the host's loopback was reached from %v", c.RemoteAddr())
		}
	}
}
