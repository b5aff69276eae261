package slirp4netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// shelf is a set of ports that opens none: what the API does with one is in
// question.
type shelf struct {
	all  []hostfwd
	next int
	err  error // of Add and Remove
}

func (s *shelf) Add(f hostfwd) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	for _, have := range s.all {
		if have.Proto == f.Proto && have.HostPort == f.HostPort {
			return 0, errors.New("address already in use")
		}
	}
	s.next++
	f.ID = s.next
	s.all = append(s.all, f)
	return f.ID, nil
}

func (s *shelf) Remove(id int) error {
	for i, f := range s.all {
		if f.ID == id && s.err == nil {
			s.all = append(s.all[:i:i], s.all[i+1:]...)
			return nil
		}
	}
	return errors.Join(s.err, os.ErrNotExist)
}

func (s *shelf) List() []hostfwd { return s.all }

func serveAPI(t *testing.T, guest6 bool) (*shelf, *api, string) {
	t.Helper()
	ports := &shelf{}
	a := &api{ports: ports, guest4: netip.MustParseAddr("10.0.2.100"), log: slog.New(slog.DiscardHandler)}
	if guest6 {
		a.guest6 = sandbox6
	}
	path := filepath.Join(t.TempDir(), "api.sock")
	if err := a.listen(path); err != nil {
		t.Fatal(err)
	}
	go a.serve()
	t.Cleanup(func() { a.close() })
	return ports, a, path
}

// ask sends one request, half-closes where told to, and reads to the end.
func ask(t *testing.T, path, request string, halfClose bool) string {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatalf("%.60s: %v", request, err)
	}
	if halfClose {
		c.CloseWrite()
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%.60s: %v", request, err)
	}
	return string(answer)
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func TestCompatExchanges(t *testing.T) {
	for _, halfClose := range []bool{true, false} {
		_, _, path := serveAPI(t, false)
		for _, x := range []struct{ request, answer string }{
			{`{"execute":"list_hostfwd"}`, `{"return":{"entries":[]},"entries":[]}`},
			{`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}}`, `{"return":{"id":1}}`},
			{`{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":5353,"guest_port":53}}`, `{"return":{"id":2}}`},
			{`{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"","host_port":1,"guest_addr":"","guest_port":65535}}` + "\n", `{"return":{"id":3}}`},
			{`{"execute":"remove_hostfwd","arguments":{"id":2}}`, `{"return":{}}`},
			{`{"execute":"list_hostfwd","arguments":{}}`, `{"return":{"entries":[
				{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80},
				{"id":3,"proto":"udp","host_addr":"0.0.0.0","host_port":1,"guest_addr":"10.0.2.100","guest_port":65535}]},"entries":[
				{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80},
				{"id":3,"proto":"udp","host_addr":"0.0.0.0","host_port":1,"guest_addr":"10.0.2.100","guest_port":65535}]}`},
		} {
			if got := ask(t, path, x.request, halfClose); !sameJSON(got, x.answer) {
				t.Errorf("half-close %v, %s:\n got %s\nwant %s", halfClose, x.request, got, x.answer)
			}
		}
	}
}

func TestCompatBadRequestsChangeNothing(t *testing.T) {
	ports, _, path := serveAPI(t, false)
	ports.Add(hostfwd{Proto: "tcp", HostPort: 8080})
	before := fmt.Sprint(ports.all)
	for request, desc := range map[string]string{
		``:                            "cannot parse JSON",
		`{bad`:                        "cannot parse JSON",
		`{"execute":"list`:            "cannot parse JSON",
		`[]`:                          "cannot parse JSON",
		`"list_hostfwd"`:              "cannot parse JSON",
		strings.Repeat("\x00", 8<<10): "too large message",
		"\x00\xff":                    "cannot parse JSON",
		strings.Repeat("[", 4e3):      "cannot parse JSON",
		`{}`:                          "no execute found",
		`null`:                        "no execute found",
		`{"execute":17}`:              "no execute found",
		`{"Execute":"list_hostfwd"}`:  "no execute found",
		`{"execute":"quit"}`:          "unknown execute",
		`{"execute":"list_hostfwd","x":"` + big(4070) + `"}`: "too large message",
		big(200 << 10):                                                           "too large message",
		`{"x":"` + big(200<<10):                                                  "too large message",
		`{"execute":"add_hostfwd"}`:                                              "add_hostfwd: bad arguments.proto",
		`{"execute":"add_hostfwd","arguments":[]}`:                               "add_hostfwd: bad arguments.proto",
		add(`"host_port":1,"guest_port":1`):                                      "add_hostfwd: bad arguments.proto",
		add(`"proto":7,"host_port":1,"guest_port":1`):                            "add_hostfwd: bad arguments.proto",
		add(`"proto":"sctp","host_port":1,"guest_port":1`):                       "add_hostfwd: bad arguments.proto",
		add(`"proto":"tcp","host_addr":"x","host_port":1,"guest_port":1`):        "add_hostfwd: bad arguments.host_addr",
		add(`"proto":"tcp","host_addr":"::1","host_port":1,"guest_port":1`):      "add_hostfwd: bad arguments.host_addr",
		add(`"proto":"tcp","host_addr":1,"host_port":1,"guest_port":1`):          "add_hostfwd: bad arguments.host_addr",
		add(`"proto":"tcp","guest_port":1`):                                      "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":0,"guest_port":1`):                        "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":-1,"guest_port":1`):                       "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":70000,"guest_port":1`):                    "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":1.5,"guest_port":1`):                      "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":1e99,"guest_port":1`):                     "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":"80","guest_port":1`):                     "add_hostfwd: bad arguments.host_port",
		add(`"proto":"tcp","host_port":1,"guest_addr":"zz","guest_port":1`):      "add_hostfwd: bad arguments.guest_addr",
		add(`"proto":"tcp","host_port":1,"guest_addr":"0.0.0.0","guest_port":1`): "add_hostfwd: bad arguments.guest_addr",
		add(`"proto":"tcp","host_port":1,"guest_addr":"fd00::5","guest_port":1`): "add_hostfwd: bad arguments.guest_addr",
		add(`"proto":"tcp","host_port":1`):                                       "add_hostfwd: bad arguments.guest_port",
		add(`"proto":"tcp","host_port":1,"guest_port":0`):                        "add_hostfwd: bad arguments.guest_port",
		add(`"proto":"tcp","host_port":1,"guest_port":65536`):                    "add_hostfwd: bad arguments.guest_port",
		add(`"proto":"tcp","host_port":8080,"guest_port":80`):                    "add_hostfwd: slirp_add_hostfwd failed",
		`{"execute":"remove_hostfwd"}`:                                           "remove_hostfwd: bad arguments.id",
		`{"execute":"remove_hostfwd","arguments":{"id":0}}`:                      "remove_hostfwd: bad arguments.id",
		`{"execute":"remove_hostfwd","arguments":{"id":99}}`:                     "remove_hostfwd: bad arguments.id",
		`{"execute":"remove_hostfwd","arguments":{"id":"1"}}`:                    "remove_hostfwd: bad arguments.id",
	} {
		got := ask(t, path, request, true)
		want := fmt.Sprintf(`{"error":{"desc":"bad request: %s"}}`, desc)
		if !sameJSON(got, want) {
			t.Errorf("%.80q:\n got %s\nwant %s", request, got, want)
		}
	}
	ports.err = errors.New("no such port")
	if got := ask(t, path, `{"execute":"remove_hostfwd","arguments":{"id":1}}`, true); !strings.Contains(got, "bad request: remove_hostfwd: slirp_remove_hostfwd failed") {
		t.Error(got)
	}
	if after := fmt.Sprint(ports.all); after != before {
		t.Errorf("ports are %s, were %s", after, before)
	}
}

// A client that sends no JSON is answered though it never says that this was all.
func TestBadRequestWithoutHalfClose(t *testing.T) {
	_, _, path := serveAPI(t, false)
	for _, request := range []string{"badjson", "[]", `{"execute":}`} {
		if got := ask(t, path, request, false); !strings.Contains(got, "cannot parse JSON") {
			t.Errorf("%s: %s", request, got)
		}
	}
}

func big(n int) string            { return strings.Repeat("x", n) }
func add(arguments string) string { return `{"execute":"add_hostfwd","arguments":{` + arguments + `}}` }

// With IPv6 the host's IPv6 addresses lead in too, to the guest's own.
func TestIPv6HostAddressesLeadToTheGuest(t *testing.T) {
	ports, _, path := serveAPI(t, true)
	for _, request := range []string{
		add(`"proto":"tcp","host_addr":"::1","host_port":1,"guest_port":80`),
		add(`"proto":"tcp","host_addr":"::","host_port":2,"guest_addr":"10.0.2.100","guest_port":80`),
		add(`"proto":"tcp","host_addr":"::1","host_port":3,"guest_addr":"fd00::100","guest_port":80`),
	} {
		if got := ask(t, path, request, true); !strings.Contains(got, `"return"`) {
			t.Errorf("%s: %s", request, got)
		}
	}
	for _, f := range ports.List() {
		if f.GuestAddr != sandbox6 {
			t.Errorf("%+v", f)
		}
	}
	if got := ask(t, path, add(`"proto":"tcp","host_addr":"::1","host_port":4,"guest_addr":"10.0.2.99","guest_port":80`), true); !strings.Contains(got, "bad arguments.guest_addr") {
		t.Error(got)
	}
}

// A client that says nothing holds up nobody.
func TestManyClientsAtOnce(t *testing.T) {
	_, _, path := serveAPI(t, false)
	for range maxClients - 1 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var done sync.WaitGroup
	for i := range 40 {
		done.Go(func() {
			want := `{"return"`
			if got := ask(t, path, add(fmt.Sprintf(`"proto":"tcp","host_port":%d,"guest_port":80`, 1+i)), i%2 == 0); !strings.HasPrefix(got, want) {
				t.Errorf("%d: %s", i, got)
			}
		})
	}
	done.Wait()
}

func TestSocketIsForItsUserAlone(t *testing.T) {
	_, a, path := serveAPI(t, false)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A container that is started again has the same path, perhaps before the
// process of its first run is gone.
func TestStaleSocketIsReplacedAndTheNewOneStays(t *testing.T) {
	_, old, path := serveAPI(t, false)
	fresh := &api{ports: &shelf{}, guest4: old.guest4, log: old.log}
	if err := fresh.listen(path); err != nil {
		t.Fatal(err)
	}
	go fresh.serve()
	defer fresh.close()
	if err := old.close(); err != nil {
		t.Error(err)
	}
	if got := ask(t, path, `{"execute":"list_hostfwd"}`, true); !strings.Contains(got, "entries") {
		t.Error(got)
	}
}

func TestSocketPathsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                            "no socket",
		dir:                             "no socket",
		filepath.Join(dir, "no", "dir"): "no such file or directory",
	} {
		a := &api{ports: &shelf{}, log: slog.New(slog.DiscardHandler)}
		if err := a.listen(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(add(`"proto":"tcp","host_port":1,"guest_port":80`)))
	f.Add([]byte(`{"execute":"remove_hostfwd","arguments":{"id":1}}`))
	f.Fuzz(func(t *testing.T, request []byte) {
		a := &api{ports: &shelf{}, guest4: netip.MustParseAddr("10.0.2.100"), guest6: sandbox6, log: slog.New(slog.DiscardHandler)}
		var reply map[string]any
		if err := json.Unmarshal(a.answer(request), &reply); err != nil {
			t.Fatal(err)
		}
		if _, failed := reply["error"]; failed && len(a.ports.List()) != 0 {
			t.Errorf("%s failed and changed %v", request, a.ports.List())
		}
		for _, p := range a.ports.List() {
			if p.HostPort == 0 || p.GuestPort == 0 || !p.HostAddr.IsValid() || p.HostAddr.Is4() != p.GuestAddr.Is4() {
				t.Errorf("%s: %+v", request, p)
			}
		}
	})
}
