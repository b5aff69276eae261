package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// fakeLoopback notes what it is asked for.
type fakeLoopback struct {
	mu     sync.Mutex
	open   map[uint16]string // by where the way begins
	last   uint16
	refuse error
	closed bool
}

func (l *fakeLoopback) Open(p spec.Protocol, port uint16) (uint16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return 0, l.refuse
	}
	l.last++
	l.open[40000+l.last] = fmt.Sprintf("%s %d", p, port)
	return 40000 + l.last, nil
}

func (l *fakeLoopback) Shut(p spec.Protocol, at uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !strings.HasPrefix(l.open[at], string(p)+" ") {
		return errors.New("not open")
	}
	delete(l.open, at)
	return nil
}

func (l *fakeLoopback) Close() error {
	l.closed = true
	return nil
}

func (l *fakeLoopback) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// serveLoopback is a server with a Loopback that counts how often it is started.
func serveLoopback(t *testing.T, ports *network.Ports) (*wire, *fakeLoopback, *int) {
	t.Helper()
	l, started := &fakeLoopback{open: map[uint16]string{}}, new(int)
	a := serve(t, ports, func(sb *Sandbox) {
		sb.Loopback = func() (Loopback, error) { *started++; return l, nil }
	})
	return a, l, started
}

// dockerPort is the body of a request of dockerd's, from version 28 on.
func dockerPort(proto, parent string, port int) string {
	child := "127.0.0.1"
	if strings.HasSuffix(proto, "6") {
		child = "::1"
	}
	return fmt.Sprintf(`{"proto":%q,"parentIP":%q,"parentPort":%d,"childPort":%d,"childIP":%q}`, proto, parent, port, port, child)
}

// What dockerd 28.5.2 sends for -p PORT:53/udp -p PORT:80, when the container
// starts and when it stops.
func TestDockerHasItsPortsAtTheLoopbackAddresses(t *testing.T) {
	ports := realPorts(t)
	a, l, started := serveLoopback(t, ports)
	if status, body := a.ask("GET", "/v1/info", ""); status != 200 ||
		!strings.Contains(body, `"protos":["tcp","tcp4","tcp6","udp","udp4","udp6"]`) || strings.Contains(body, `"disallowLoopbackChildIP":true`) {
		t.Fatalf("%d %s", status, body)
	}
	port := freePort(t)
	for i, c := range []struct{ proto, parent string }{{"udp4", "0.0.0.0"}, {"udp6", "::"}, {"tcp4", "0.0.0.0"}, {"tcp6", "::"}} {
		for range 2 { // the second time is no other port
			want := fmt.Sprintf(`{"id":%d,"spec":%s}`, i+1, dockerPort(c.proto, c.parent, port))
			if status, body := a.ask("POST", "/v1/ports", dockerPort(c.proto, c.parent, port)); status != 201 || body != want {
				t.Errorf("%d %s, want %s", status, body, want)
			}
		}
	}
	loopback, own := netip.MustParseAddr("127.0.0.1"), testPlan().V4.Sandbox
	var to []netip.AddrPort
	for _, e := range ports.List() {
		to = append(to, netip.AddrPortFrom(e.Bound[0].Child, e.Bound[0].Port))
	}
	if want := []netip.AddrPort{
		netip.AddrPortFrom(loopback, uint16(port)), netip.AddrPortFrom(own, 40001),
		netip.AddrPortFrom(loopback, uint16(port)), netip.AddrPortFrom(own, 40002),
	}; !slices.Equal(to, want) {
		t.Errorf("ports lead to %v, want %v", to, want)
	}
	if l.open[40001] != fmt.Sprint("udp ", port) || l.open[40002] != fmt.Sprint("tcp ", port) || l.count() != 2 {
		t.Errorf("ways to ::1: %v", l.open)
	}
	for id := range 4 {
		if status, body := a.ask("DELETE", fmt.Sprint("/v1/ports/", id+1), ""); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	if len(ports.List()) != 0 || l.count() != 0 || !canBind(port) || *started != 1 {
		t.Errorf("left: %v, ways %v; it was started %d times", ports.List(), l.open, *started)
	}
	if err := a.server.Close(); err != nil || !l.closed {
		t.Errorf("%v; the way was closed: %v", err, l.closed)
	}
}

func TestWaysToTheLoopbackGoWithTheirPorts(t *testing.T) {
	ports := realPorts(t)
	a, l, _ := serveLoopback(t, ports)
	port, taken := freePort(t), freePort(t)
	a.ask("GET", "/v1/info", "")
	a.ask("POST", "/v1/ports", dockerPort("tcp6", "::1", port))
	if l.count() != 1 {
		t.Fatalf("ways %v", l.open)
	}
	if err := ports.Remove(1); err != nil { // as "sbxnet port rm" does
		t.Fatal(err)
	}
	if _, body := a.ask("GET", "/v1/ports", ""); body != "[]" || l.count() != 0 {
		t.Errorf("%s, ways %v", body, l.open)
	}
	a.ask("POST", "/v1/ports", dockerPort("tcp6", "::1", taken))
	if status, _ := a.ask("POST", "/v1/ports", strings.Replace(dockerPort("tcp6", "::1", taken), "childPort\":", "childPort\":1", 1)); status != 400 {
		t.Errorf("a taken port: %d", status)
	}
	if l.count() != 1 {
		t.Errorf("the way of a port that could not be opened is left: %v", l.open)
	}
	l.refuse = errors.New("not today")
	if status, body := a.ask("POST", "/v1/ports", dockerPort("udp6", "::1", port)); status != 400 || !strings.Contains(body, "not today") || len(ports.List()) != 1 {
		t.Errorf("%d %s; there are %v", status, body, ports.List())
	}
}

func TestLoopbackIsStartedForWhoAsks(t *testing.T) {
	a, l, started := serveLoopback(t, realPorts(t))
	a.ask("GET", "/v1/ports", "")
	a.ask("POST", "/v1/ports", fmt.Sprintf(`{"proto":"tcp4","parentIP":"127.0.0.1","parentPort":%d,"childPort":80,"childIP":"127.0.0.1"}`, freePort(t)))
	if *started != 0 {
		t.Error("nobody asked for it")
	}
	if err := a.server.Close(); err != nil || l.closed {
		t.Errorf("%v; closed without having been started: %v", err, l.closed)
	}
}

// Where there is no way to the loopback addresses dockerd is told of one address,
// and of IPv4 only: with two families it would listen twice there, and fail.
func TestWithoutALoopbackDockerHasOneAddress(t *testing.T) {
	started := 0
	ports := realPorts(t)
	a := serve(t, ports, func(sb *Sandbox) {
		sb.Loopback = func() (Loopback, error) { started++; return nil, errors.New("no such qdisc") }
	})
	for range 2 {
		if status, body := a.ask("GET", "/v1/info", ""); status != 200 ||
			!strings.Contains(body, `"protos":["tcp","tcp4","udp","udp4"]`) || !strings.Contains(body, `"disallowLoopbackChildIP":true`) {
			t.Errorf("%d %s", status, body)
		}
	}
	port := freePort(t) // dockerd 28.5.2 sends the address in this form
	body := fmt.Sprintf(`{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":%d,"childPort":%[1]d,"childIP":"::ffff:10.0.2.100"}`, port)
	if status, answer := a.ask("POST", "/v1/ports", body); status != 201 || !strings.Contains(answer, body) {
		t.Errorf("%d %s", status, answer)
	}
	if e := ports.List(); len(e) != 1 || e[0].Bound[0].Child.IsValid() {
		t.Errorf("%+v", e)
	}
	if started != 1 {
		t.Errorf("tried %d times", started)
	}
}
