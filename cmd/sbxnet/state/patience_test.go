package state

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Who says nothing, who stops in the middle, who does not read the answer and who
// stays afterwards are let go, each after its own time.
func TestClientsThatTakeTooLongAreLetGo(t *testing.T) {
	const short, long = 50 * time.Millisecond, time.Hour
	for _, c := range []struct {
		name, says string
		p          *patience
	}{
		{"silent", "", &patience{header: short, request: long, idle: long}},
		{"in the middle of the headers", "GET / HTTP/1.1\r\nHost: a\r\n", &patience{header: short, request: long, idle: long}},
		{"in the middle of the body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive!", &patience{header: long, request: short, idle: long}},
		{"afterwards", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &patience{header: long, request: long, idle: short}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.p.look = 10 * time.Millisecond
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, "done")
			}))
			s.Config.ConnState = c.p.state
			s.Start()
			defer s.Close()
			client, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := io.WriteString(client, c.says); err != nil {
				t.Fatal(err)
			}
			client.SetReadDeadline(time.Now().Add(20 * time.Second))
			said, err := io.ReadAll(client)
			if err != nil || strings.Contains(string(said), "done") != (c.name == "afterwards") {
				t.Errorf("%q, %v", said, err)
			}
		})
	}
}

// Nobody looks when there is nothing to look at, so that an idle sandbox sleeps.
func TestNobodyLooksWhereThereAreNoClients(t *testing.T) {
	p := patience{header: time.Hour, request: time.Hour, idle: time.Hour, look: time.Millisecond}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = p.state
	s.Start()
	defer s.Close()
	for range 3 {
		client, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := bufio.NewReader(client).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		looks := func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.looks }
		if !looks() {
			t.Error("nobody looks at a client")
		}
		client.Close()
		for start := time.Now(); looks(); time.Sleep(time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatal("somebody looks for clients that have gone")
			}
		}
	}
}
