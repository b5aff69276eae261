package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sbxnet/portfwd"
	"sbxnet/tapdev/linktest"
)

// tcpOf is what a sandbox's network has carried of TCP.
func tcpOf(t *testing.T, name string) portfwd.TCPStats {
	t.Helper()
	r := runSbxnet(t, "stats", "--json", name)
	var s portfwd.Stats
	if err := json.Unmarshal([]byte(r.stdout), &s); r.status != 0 || err != nil {
		t.Fatalf("stats: %+v, %v", r, err)
	}
	return s.TCP
}

// Clients of published ports do without the link, and statistics tell of them.
func TestPublishedConnectionsAreSpliced(t *testing.T) {
	if !linktest.Chosen().Splice() {
		t.Skip("they are not to be: " + linktest.Env)
	}
	p := start(t, "run", "--name", "spliced", "-p", "80", "--", hello)
	url := "http://127.0.0.1:" + p.publishedPort("80", "tcp")
	answer := get(t, url)
	p.until("a connection that did without the link", 20*time.Second, func() bool { // the first may have been too early
		get(t, url)
		return tcpOf(t, "spliced").Spliced > 0
	})
	st := tcpOf(t, "spliced")
	if st.Spliced > st.Published || st.ToHost < st.Published*uint64(len(answer)) || st.ToSandbox == 0 {
		t.Errorf("%+v, each with an answer of more than %d bytes", st, len(answer))
	}
	if r := runSbxnet(t, "stats", "spliced"); !strings.Contains(r.stdout, "of these without the link") {
		t.Errorf("%+v", r)
	}
}

// A firewall inside sees what comes in, as it would anyway.
func TestAFirewallInsideSeesPublishedConnections(t *testing.T) {
	need(t, "iptables")
	p := start(t, "run", "--name", "walled", "--ipv6=false", "-p", "80", "--", hello) // else a server is looked for by IPv6, too
	url := "http://127.0.0.1:" + p.publishedPort("80", "tcp")
	get(t, url)
	if r := runSbxnet(t, "exec", "walled", "--", "iptables", "-A", "INPUT", "-i", "tap0", "-p", "tcp", "--dport", "80", "-j", "REJECT", "--reject-with", "tcp-reset"); r.status != 0 {
		unavailable(t, "no iptables: %+v", r)
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	p.until("the firewall's answer", 5*time.Second, func() bool { // sockets from before it are used for a second
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	for range 5 {
		if resp, err := client.Get(url); err == nil {
			resp.Body.Close()
			t.Error("the firewall is passed by")
		}
	}
}

// What looks at the link is to see them, too.
func TestPublishedConnectionsAreOnTheLinkWhereItIsWatched(t *testing.T) {
	file := filepath.Join(scratch(t), "capture.pcapng")
	for _, flag := range []string{"--pcap=" + file, "--log-packets", "--impair=delay=1ms", "--splice=false"} {
		t.Run(flag, func(t *testing.T) {
			p := start(t, "run", "--name", "watched", flag, "-p", "80", "--", hello)
			url := "http://127.0.0.1:" + p.publishedPort("80", "tcp")
			answer := ""
			for range 3 {
				answer = get(t, url)
			}
			if st := tcpOf(t, "watched"); st.Spliced != 0 || st.Published < 3 {
				t.Errorf("%+v, want 3 published, none of them spliced", st)
			}
			if !strings.HasPrefix(flag, "--pcap") {
				return
			}
			p.until("the answer in the capture", 20*time.Second, func() bool {
				b, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(b), strings.TrimSpace(answer))
			})
		})
	}
}

// No packet comes to ::1 by a link.
func TestServerOnIPv6LoopbackIsReached(t *testing.T) {
	if !linktest.Chosen().Splice() {
		t.Skip("only without the link: " + linktest.Env)
	}
	p := start(t, "run", "-p", "80", "--", hello, "-addr", "[::1]:80")
	port := p.publishedPort("80", "tcp")
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		if out := get(t, "http://"+host+":"+port); !strings.Contains(strings.ToLower(out), "hello") {
			t.Errorf("via %s: %q", host, out)
		}
	}
}

// Bulk out of the sandbox leaves the link while it runs, and nobody notices.
func TestBulkLeavesTheLink(t *testing.T) {
	if !linktest.Chosen().Splice() {
		t.Skip("it is not to: " + linktest.Env)
	}
	need(t, "curl", "sha256sum")
	const size = 200 << 20
	want, fetch := bulkServer(t, size)
	p := start(t, "run", "--name", "bulk", "--host-loopback", "--", "sh", "-c", "while "+fetch+" | sha256sum; do :; done")
	inspectUp(t, "bulk")
	p.until("a connection that left the link", 60*time.Second, func() bool { // a busy machine may be too slow at first
		return tcpOf(t, "bulk").Diverted > 0
	})
	before := strings.Count(p.stdout.String(), "\n") // it may not be over yet
	p.until("what it carried", 60*time.Second, func() bool {
		return strings.Count(p.stdout.String(), "\n") >= before+2
	})
	for line := range strings.Lines(p.stdout.String()) {
		if strings.HasSuffix(line, "\n") && !strings.HasPrefix(line, want) {
			t.Errorf("%q, want the sum %s", line, want)
		}
	}
}

// What looks at the link is to see bulk, too.
func TestBulkStaysOnTheLinkWhereItIsWatched(t *testing.T) {
	need(t, "curl", "sha256sum")
	const size = 50 << 20
	want, fetch := bulkServer(t, size)
	for _, flag := range []string{"--pcap=/dev/null", "--log-packets", "--impair=rate=20gbit", "--splice=false"} {
		t.Run(flag, func(t *testing.T) {
			p := start(t, "run", "--name", "watched", flag, "--host-loopback", "--", "sh", "-c", fetch+" | sha256sum; exec sleep 1000")
			p.waitOutput(want, 60*time.Second)
			if st := tcpOf(t, "watched"); st.Diverted != 0 || st.Outbound != 1 || st.ToSandbox < size {
				t.Errorf("%+v, want one connection with %d bytes, on the link", st, size)
			}
		})
	}
}

// What is attached to does without the link as a sandbox does.
func TestAttachedNamespaceDoesWithoutTheLink(t *testing.T) {
	if !linktest.Chosen().Splice() {
		t.Skip("it is not to: " + linktest.Env)
	}
	need(t, "unshare", "curl", "sha256sum")
	needTAP(t)
	want, fetch := bulkServer(t, 200<<20)
	target := fmt.Sprint(bareNamespace(t, ":").Pid)
	p := start(t, "attach", "--name", "near", "--host-loopback", "--cidr", "10.77.0.0/24", "-p", "80", target)
	url := "http://127.0.0.1:" + p.publishedPort("80", "tcp")
	start(t, "exec", "near", "--", hello).waitOutput("listening", 20*time.Second)
	p.until("a published connection without the link", 20*time.Second, func() bool {
		get(t, url)
		return tcpOf(t, "near").Spliced > 0
	})
	fetch = strings.Replace(fetch, "host.sbxnet.internal", "10.77.0.2", 1) // nobody has told it of our name server
	p.until("bulk without the link", 60*time.Second, func() bool {         // a busy machine may be too slow at first
		if r := runSbxnet(t, "exec", "near", "--", "sh", "-c", fetch+" | sha256sum"); !strings.HasPrefix(r.stdout, want) {
			t.Fatalf("%+v, want the sum %s", r, want)
		}
		return tcpOf(t, "near").Diverted > 0
	})
}

// bulkServer serves so many bytes on the host's loopback. It returns their sum, and
// the command that fetches them in a sandbox with --host-loopback.
func bulkServer(t *testing.T, size int64) (sum, fetch string) {
	h := sha256.New()
	io.Copy(h, bulk(size))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		io.Copy(w, bulk(size))
	}))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	return hex.EncodeToString(h.Sum(nil)), "curl -s http://host.sbxnet.internal:" + port + "/"
}

// bulk is a stream of so many bytes that does not repeat itself soon.
func bulk(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), n) }
