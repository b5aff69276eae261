package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// The two ways in which Podman publishes ports: a relay of its own in the
// container's namespace, or our API.
var portHandlers = []string{"rootlesskit", "slirp4netns"}

// fetch asks a web server on the host's side until it answers.
func (p *podman) fetch(addr string) {
	p.t.Helper()
	var got string
	p.eventually("page from "+addr, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			got = err.Error()
			return false
		}
		defer c.Close()
		got = talk(c, "GET / HTTP/1.0\r\n\r\n")
		return strings.Contains(got, "hello from a container")
	})
}

// talk says something and returns what comes back, up to an end or a pause.
func talk(c net.Conn, say string) string {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte(say)); err != nil {
		return err.Error()
	}
	var all strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		all.Write(b[:n])
		if _, datagrams := c.(*net.UDPConn); err != nil || datagrams {
			return all.String()
		}
	}
}

// taken reports whether somebody listens on a host port.
func taken(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		l.Close()
	}
	return err != nil
}

// waitFree waits until a host port is free. Podman does not wait for the program
// that carries its network, but tells it to go.
func (p *podman) waitFree(port int) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("end of port %d", port), func() bool { return !taken(port) })
}

var httpd = []string{"httpd", "-f", "-p", "80", "-h", "/www"}

func TestCompatPodmanPublishedPortAnswers(t *testing.T) {
	p := newPodman(t)
	for _, handler := range portHandlers {
		tcp, private := freePort(t), freePort(t)
		id := p.start(container{"port_handler=" + handler, []string{
			"-p", fmt.Sprintf("%d:80", tcp), "-p", fmt.Sprintf("127.0.0.1:%d:80", private),
		}}, httpd...)
		p.fetch(fmt.Sprintf("127.0.0.1:%d", tcp))
		p.fetch(fmt.Sprintf("%s:%d", hostAddr(t), tcp))
		p.fetch(fmt.Sprintf("127.0.0.1:%d", private))
		if c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", hostAddr(t), private), time.Second); err == nil {
			c.Close()
			t.Errorf("%s: a port of 127.0.0.1 answers on another address", handler)
		}
		p.ok("rm", "-f", "-t", "0", id)
		p.waitFree(tcp)
		p.waitFree(private)
	}
}

func TestCompatPodmanPublishedIPv6(t *testing.T) {
	if !loopback6() {
		unavailable(t, "this host has no IPv6 loopback")
	}
	p := newPodman(t)
	for _, handler := range portHandlers {
		port := freePort(t)
		id := p.start(container{"port_handler=" + handler, []string{"-p", fmt.Sprintf("[::1]:%d:80", port)}}, httpd...)
		p.fetch(fmt.Sprintf("[::1]:%d", port))
		p.ok("rm", "-f", "-t", "0", id)
	}
}

func TestCompatPodmanPublishedRangeAndUDP(t *testing.T) {
	p := newPodman(t)
	first := freeRange(t, 10)
	for _, handler := range portHandlers {
		udp := freePort(t)
		id := p.start(container{"port_handler=" + handler, []string{"-p", fmt.Sprintf("127.0.0.1:%d:5353/udp", udp),
			"-p", fmt.Sprintf("127.0.0.1:%d-%d:8000-8009", first, first+9)}},
			toolIn("who", "udp", ":5353")...)
		p.waitLog(id, "listening")
		var got string
		p.eventually("answer by UDP", func() bool {
			c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", udp))
			p.must(err)
			defer c.Close()
			got = talk(c, "who")
			_, _, err = net.SplitHostPort(strings.TrimSpace(got))
			return err == nil
		})
		for port := first; port < first+10; port++ {
			if !taken(port) {
				t.Errorf("%s: port %d of the range is not published", handler, port)
			}
		}
		p.ok("rm", "-f", "-t", "0", id)
		for port := first; port < first+10; port++ {
			p.waitFree(port)
		}
	}
}

// What rootless containers never had: the client's own address.
func TestCompatPodmanServerSeesTheClientsAddress(t *testing.T) {
	p := newPodman(t)
	host := hostAddr(t)
	for _, network := range []string{"tcp", "udp"} {
		port := freePort(t)
		id := p.start(container{"port_handler=slirp4netns", []string{"-p", fmt.Sprintf("%d:9000/%s", port, network)}}, toolIn("who", network, ":9000")...)
		p.waitLog(id, "listening")
		var saw string
		p.eventually("answer by "+network, func() bool {
			c, err := net.DialTimeout(network, fmt.Sprintf("%s:%d", host, port), time.Second)
			if err != nil {
				return false
			}
			defer c.Close()
			saw, _, _ = net.SplitHostPort(strings.TrimSpace(talk(c, "who")))
			return saw != ""
		})
		if saw != host {
			t.Errorf("%s: the server saw %s, the client has %s", network, saw, host)
		}
		p.ok("rm", "-f", "-t", "0", id)
	}
}

// A port that is taken is an error that Podman shows, and nothing stays.
func TestCompatPodmanTakenPort(t *testing.T) {
	p := newPodman(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for _, handler := range portHandlers {
		_, err := p.try(container{"port_handler=" + handler, []string{"-p", fmt.Sprintf("127.0.0.1:%d:80", port)}}.args([]string{"run", "-d"}, httpd...)...)
		if err == nil {
			t.Errorf("%s: a taken port was published", handler)
		}
		p.ok("rm", "-a", "-f", "-t", "0")
		p.assertNoNetworks()
	}
}
