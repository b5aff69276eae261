package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var publishedLine = regexp.MustCompile(`published (?:http://|udp )(\S+?):(\d+) -> (\d+)/(tcp|udp)`)

// publishedPort waits for the line about the sandbox's port and returns the host's.
func (p *process) publishedPort(sandboxPort string, proto string) string {
	p.t.Helper()
	var port string
	p.until("published line for "+sandboxPort+"/"+proto, 20*time.Second, func() bool {
		for _, m := range publishedLine.FindAllStringSubmatch(p.stderr.String(), -1) {
			if m[3] == sandboxPort && m[4] == proto {
				port = m[2]
			}
		}
		return port != ""
	})
	return port
}

// startHello starts examples/hello in a sandbox and waits until it serves.
func startHello(t *testing.T, flags ...string) *process {
	t.Helper()
	args := append([]string{"run"}, flags...)
	p := start(t, append(args, "--", hello)...)
	return p
}

// get fetches a URL, again while the server inside is still starting: until it
// listens every target refuses and the connection is reset.
func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := client.Get(url)
		if err == nil {
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("GET %s: %v", url, err)
			}
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatalf("GET %s: %v", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestPublishedPortAnswersOverBothFamilies(t *testing.T) {
	need(t, "curl")
	p := startHello(t, "-p", "80")
	port := p.publishedPort("80", "tcp")
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		get(t, "http://"+host+":"+port)
		out, err := outside(t, "curl", "-sS", "--max-time", "10", "http://"+host+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		// A client on the host's loopback appears as the gateway.
		if !strings.Contains(out, "10.0.2.2") && !strings.Contains(out, "::2") {
			t.Errorf("%s: caller in %q is not the gateway", host, out)
		}
	}
}

func TestPublishedPortOnThePacketLinkWithoutTUN(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	hideTUN(t)
	for _, kind := range []string{"packet", "auto"} {
		p := startHello(t, "--link", kind, "-p", "80")
		port := p.publishedPort("80", "tcp")
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			if out := get(t, "http://"+host+":"+port); !strings.Contains(strings.ToLower(out), "hello") {
				t.Errorf("%s over %s: %q", host, kind, out)
			}
		}
	}
}

func TestRemoteClientsAddressIsTheSourceTheServerSees(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	p := start(t, "run", "-p", "0.0.0.0:8080:80", "-p", "[::]:8080:80", "-p", "0.0.0.0:8053:53/udp", "-p", "[::]:8053:53/udp", "--",
		"sh", "-c", fmt.Sprintf("%[1]s e2e-tool who udp :53 & exec %[1]s e2e-tool who tcp :80", self))
	p.publishedPort("80", "tcp")
	p.until("both servers", 20*time.Second, func() bool { return strings.Count(p.stdout.String(), "listening") == 2 })
	remote(t, func() {
		for _, host := range []string{hostAddr4, hostAddr6} {
			for network, port := range map[string]string{"tcp": "8080", "udp": "8053"} {
				c, err := net.DialTimeout(network, net.JoinHostPort(host, port), 5*time.Second)
				if err != nil {
					t.Errorf("dial: %v", err)
					continue
				}
				c.SetDeadline(time.Now().Add(5 * time.Second))
				if network == "udp" {
					fmt.Fprint(c, "who am I?")
				}
				b := make([]byte, 200)
				n, err := c.Read(b)
				if got := strings.TrimSpace(string(b[:n])); err != nil || got != c.LocalAddr().String() {
					t.Errorf("%s to %s: the server saw %q, the client is %v (%v)", network, host, got, c.LocalAddr(), err)
				}
				c.Close()
			}
		}
	})
}

// A port published on the host's loopback is not there for anyone else.
func TestPublishedPortIsPrivateByDefault(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	p := startHello(t, "-p", "8080:80")
	p.publishedPort("80", "tcp")
	get(t, "http://127.0.0.1:8080")
	remote(t, func() {
		for _, host := range []string{hostAddr4, hostAddr6} {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, "8080"), 2*time.Second)
			if err == nil {
				c.Close()
				t.Errorf("%s answers from outside", host)
			}
		}
	})
}

// The server is reached however it is bound.
func TestServerIsReachedHoweverItIsBound(t *testing.T) {
	flags := []string{"--cidr", "10.77.0.0/24", "--cidr6", "fd77::/64"}
	for _, bound := range []string{"0.0.0.0:80", "10.77.0.100:80", "127.0.0.1:80", "[fd77::100]:80", "[::]:80"} {
		t.Run(bound, func(t *testing.T) {
			args := append([]string{"run"}, flags...)
			p := start(t, append(args, "-p", "80", "--", hello, "-addr", bound)...)
			port := p.publishedPort("80", "tcp")
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				if out := get(t, "http://"+host+":"+port); !strings.Contains(strings.ToLower(out), "hello") {
					t.Errorf("via %s: %q", host, out)
				}
			}
		})
	}
}

func TestRangeIsPublishedPortByPort(t *testing.T) {
	first := freeRange(t, 4)
	p := start(t, "run", "-p", fmt.Sprintf("%d-%d:8300-8303", first, first+3), "--", "sh", "-c",
		fmt.Sprintf("for p in 8300 8301 8302; do %[1]s e2e-tool who tcp :$p & done; exec %[1]s e2e-tool who tcp :8303", self))
	p.until("four servers", 20*time.Second, func() bool { return strings.Count(p.stdout.String(), "listening") == 4 })
	for port := first; port < first+4; port++ {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(c)
		c.Close()
		if err != nil || !strings.Contains(string(b), ":") {
			t.Errorf("port %d: %q %v", port, b, err)
		}
	}
}

func TestPublishedUDP(t *testing.T) {
	p := start(t, "run", "-p", "53/udp", "--", self, toolArg, "who", "udp", ":53")
	port := p.publishedPort("53", "udp")
	p.waitOutput("listening", 10*time.Second)
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("udp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b := make([]byte, 100)
		var n int
		for range 10 {
			fmt.Fprint(c, "who?")
			c.SetReadDeadline(time.Now().Add(time.Second))
			if n, err = c.Read(b); err == nil {
				break
			}
		}
		if err != nil || !strings.Contains(string(b[:n]), "2") {
			t.Errorf("%s: %q %v", host, b[:n], err)
		}
	}
}

// A port that is published and not served resets the caller, it does not hang.
func TestUnservedPortResets(t *testing.T) {
	p := start(t, "run", "-p", "80", "--", "sleep", "30")
	port := p.publishedPort("80", "tcp")
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v, want a reset", err)
	}
	p.cmd.Process.Signal(os.Interrupt)
}
