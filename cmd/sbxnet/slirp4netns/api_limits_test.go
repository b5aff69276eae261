package slirp4netns

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const listRequest = `{"execute":"list_hostfwd"}`

// A request of maxRequest bytes is one, and with one more byte it is too large,
// whether or not the client says that this was all.
func TestRequestsAreAsLargeAsTheyMayBe(t *testing.T) {
	_, _, path := serveAPI(t, false)
	pad := func(n int) string { return strings.Repeat(" ", n-len(listRequest)) + listRequest }
	for _, halfClose := range []bool{true, false} {
		if got := ask(t, path, pad(maxRequest), halfClose); !strings.HasPrefix(got, `{"return"`) {
			t.Errorf("%d bytes: %s", maxRequest, got)
		}
		if got := ask(t, path, pad(maxRequest+1), halfClose); !strings.Contains(got, "too large message") {
			t.Errorf("%d bytes: %s", maxRequest+1, got)
		}
	}
}

// As many clients as there may be that say nothing keep the next one waiting, and
// no longer than they are waited for.
func TestSilentClientsAreLetGo(t *testing.T) {
	_, _, path := serveAPI(t, false)
	var silent []net.Conn
	begin := time.Now()
	for range maxClients {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	next, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := io.WriteString(next, listRequest); err != nil {
		t.Fatal(err)
	}
	next.SetDeadline(begin.Add(clientTime / 5))
	if n, err := next.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client past the limit was answered at once: %d, %v", n, err)
	}
	next.SetDeadline(begin.Add(clientTime + 20*time.Second))
	if got, err := io.ReadAll(io.LimitReader(next, 9)); err != nil || string(got) != `{"return"` {
		t.Errorf("the client past the limit: %q, %v", got, err)
	}
	if took := time.Since(begin); took < clientTime/2 {
		t.Errorf("the silent ones were let go after %v, want %v", took, clientTime)
	}
	for _, c := range silent {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if got, err := io.ReadAll(c); err != nil || len(got) != 0 {
			t.Errorf("who said nothing was told %q, %v", got, err)
		}
	}
}

// Of what follows a request so much is read that its sender sees the answer, and no
// more: who goes on sending is cut off.
func TestWhatFollowsARequestIsBounded(t *testing.T) {
	_, _, path := serveAPI(t, false)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := 0
	for chunk := make([]byte, 64<<10); ; {
		n, err := c.Write(chunk)
		sent += n
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %d bytes: %v", sent, err)
			}
			break
		}
		if sent > 64*maxUnread {
			t.Fatalf("%d bytes were taken", sent)
		}
	}
	if sent < maxUnread {
		t.Errorf("only %d bytes were taken", sent)
	}
}
