package pasta

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pesto's other end, without a pasta around it.
func startControl(t *testing.T) (string, *table) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	tb := newTable()
	c, err := listenControl(path, tb, newLog(os.Stderr, &options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return path, tb
}

// pesto runs a command line of it.
func pesto(args string) (int, string) {
	var out strings.Builder
	status := runPesto(strings.Fields(args), &out, &out)
	return status, out.String()
}

func TestPestoChangesPorts(t *testing.T) {
	path, tb := startControl(t)
	for _, c := range []struct {
		args   string
		status int
		out    string
		want   string
	}{
		// As RootlessKit has it.
		{"-A --tcp-ports=0.0.0.0/8080:80", 0, "", "-t 0.0.0.0/8080:80"},
		{"-A --udp-ports=::1/53:53", 0, "", "-t 0.0.0.0/8080:80, -u ::1/53"},
		{"-D --tcp-ports=0.0.0.0/8080:80", 0, "", "-u ::1/53"},
		{"-D --tcp-ports=0.0.0.0/8080:80", 0, "", "-u ::1/53"},
		{"--add -t 80 -t 81 --delete -u [::1]/53", 0, "", "-t 0.0.0.0/80, -t 0.0.0.0/81"},
		{"--show", 0, "-t 0.0.0.0/80\n-t 0.0.0.0/81\n", "-t 0.0.0.0/80, -t 0.0.0.0/81"},
		{"-t 81", 0, "", "-t 0.0.0.0/81"},
		{"-A -t 90,7", 1, "pesto: port 7: address already in use\n", "-t 0.0.0.0/81"},
		{"-A -t 0", 1, "pesto: Invalid port specifier 0\n", "-t 0.0.0.0/81"},
		{"-A -t auto", 1, "pesto: auto and all are for pasta's own command line; name the ports\n", "-t 0.0.0.0/81"},
		{"--bogus", 1, "pesto: unrecognized option '--bogus'; see pesto --help\n", "-t 0.0.0.0/81"},
		{"-A", 1, "pesto: nothing to do: give --add, --delete or --show, with -t or -u; see pesto --help\n", "-t 0.0.0.0/81"},
		{"-t none", 0, "", ""},
	} {
		status, out := pesto(c.args + " " + path)
		if status != c.status || out != c.out {
			t.Errorf("pesto %s: %d %q, want %d %q", c.args, status, out, c.status, c.out)
		}
		if got := strings.Join(tb.lines(), ", "); got != c.want {
			t.Errorf("after pesto %s: %s, want %s", c.args, got, c.want)
		}
	}
	if status, _ := pesto("--version"); status != 0 {
		t.Errorf("--version: %d", status)
	}
	if status, out := pesto("-A -t 80"); status != 1 || !strings.Contains(out, "SOCKET") {
		t.Errorf("without a socket: %d %q", status, out)
	}
	if status, out := pesto("-A -t 80 " + path + "x"); status != 1 || !strings.Contains(out, "is pasta running with --conf-path") {
		t.Errorf("nobody there: %d %q", status, out)
	}
}

// What is not pesto on the socket changes nothing, gets an answer, and leaves the
// next one be served.
func TestControlSocketRefusesNonsense(t *testing.T) {
	path, tb := startControl(t)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	for _, c := range []struct{ body, want string }{
		{"", "not understood"},
		{"{", "not understood"},
		{"[]", "not understood"},
		{`{"changes":[{"operation":"add","protocol":"tcp","specs":["` + strings.Repeat("80,", 1<<19) + `"]}]}`, "longer than"},
		{`{"changes":[{"operation":"add","protocol":"tcp","specs":["\n\u001b[31m"]}]}`, "Invalid port specifier"},
		{`{"changes":[{"operation":"add","protocol":"icmp","specs":["80"]}]}`, "no such protocol"},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(c.body))
		conn.(*net.UnixConn).CloseWrite()
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		conn.Close()
		if err != nil || !strings.Contains(string(b[:n]), c.want) || strings.Contains(string(b[:n]), "\x1b") {
			t.Errorf("%.60q: %q, %v", c.body, b[:n], err)
		}
	}
	if status, out := pesto("-A -t 80 " + path); status != 0 || len(tb.lines()) != 1 {
		t.Errorf("%d %s %v", status, out, tb.lines())
	}
}

// Clients that say nothing are no reason to wait at the end.
func TestSilentClientsDoNotHoldUpTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	c, err := listenControl(path, newTable(), newLog(os.Stderr, &options{}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxClients {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for deadline := time.Now().Add(5 * time.Second); len(c.slots) < maxClients && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > controlTimeout/2 {
		t.Errorf("the end took %v", took)
	}
}

// So many clients are served at once. The next one waits until one of them has
// gone, or has taken too long.
func TestClientsOfTheControlSocketAreBounded(t *testing.T) {
	const patience = 200 * time.Millisecond
	for _, timeout := range []time.Duration{controlTimeout, patience} {
		path := filepath.Join(t.TempDir(), "c.sock")
		c, err := listenControlFor(path, newTable(), newLog(os.Stderr, &options{}), timeout)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var silent []net.Conn
		for range maxClients {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			silent = append(silent, conn)
		}
		if timeout == patience { // they are told that it took too long
			b := make([]byte, 4096)
			silent[0].SetDeadline(time.Now().Add(controlTimeout))
			if n, err := silent[0].Read(b); err != nil || !strings.Contains(string(b[:n]), "timeout") {
				t.Errorf("a client that says nothing is told %q, %v", b[:n], err)
			}
			if status, out := pesto("--show " + path); status != 0 {
				t.Errorf("after they have had their time: %d %s", status, out)
			}
			continue
		}
		for deadline := time.Now().Add(5 * time.Second); len(c.slots) < maxClients; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d are served at once, want %d", len(c.slots), maxClients)
			}
		}
		next, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		next.Write([]byte(`{"changes":[]}`))
		next.(*net.UnixConn).CloseWrite()
		b := make([]byte, 4096)
		next.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := next.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one more is served: %q, %v", b[:n], err)
		}
		silent[0].Close()
		next.SetDeadline(time.Now().Add(controlTimeout))
		if n, err := next.Read(b); err != nil || string(b[:n]) != "{}\n" {
			t.Errorf("when one has gone: %q, %v", b[:n], err)
		}
	}
}

// A socket that nobody listens on any more is replaced, a living one and other
// files are not.
func TestControlSocketReplacesOnlyADeadOne(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	log := newLog(os.Stderr, &options{})
	if _, err := listenControl(dead, newTable(), log); err == nil || !strings.Contains(err.Error(), "another program listens on it") {
		t.Errorf("a living socket: %v", err)
	}
	l.Close()
	c, err := listenControl(dead, newTable(), log)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(file, newTable(), log); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file has gone")
	}
}
