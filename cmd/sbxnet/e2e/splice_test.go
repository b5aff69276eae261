package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	const size = 200 << 20
	sum := sha256.New()
	io.Copy(sum, bulk(size))
	want := hex.EncodeToString(sum.Sum(nil))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		io.Copy(w, bulk(size))
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	p := start(t, "run", "--name", "bulk", "--host-loopback", "--", "sh", "-c",
		"while curl -s http://host.sbxnet.internal:"+port+"/ | sha256sum; do :; done")
	inspectUp(t, "bulk")
	p.until("a connection that left the link", 60*time.Second, func() bool { // a busy machine may be too slow at first
		return tcpOf(t, "bulk").Diverted > 0
	})
	p.until("what it carried", 60*time.Second, func() bool {
		return strings.Count(p.stdout.String(), "\n") >= 3
	})
	for line := range strings.Lines(p.stdout.String()) {
		if strings.HasSuffix(line, "\n") && !strings.HasPrefix(line, want) {
			t.Errorf("%q, want the sum %s", line, want)
		}
	}
}

// bulk is a stream of so many bytes that does not repeat itself soon.
func bulk(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), n) }
