package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sbxnet/portfwd/spec"
)

// holder is a publisher that holds sockets, and hands nobody over.
type holder struct {
	mu   sync.Mutex
	held map[spec.Key]spec.Bound
	// refuse is the error of the next Publish.
	refuse error
}

func newHolder() *holder { return &holder{held: map[spec.Key]spec.Bound{}} }

func (h *holder) Publish(bound []spec.Bound) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.refuse; err != nil {
		h.refuse = nil
		spec.CloseAll(bound)
		return err
	}
	for _, b := range bound {
		h.held[b.Key()] = b
	}
	return nil
}

func (h *holder) Unpublish(bound []spec.Bound) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range bound {
		if _, ok := h.held[b.Key()]; !ok {
			return fmt.Errorf("%v is not held", b.Host)
		}
	}
	for _, b := range bound {
		held := h.held[b.Key()]
		held.Close()
		delete(h.held, b.Key())
	}
	return nil
}

// closeAll ends a test's sockets.
func (h *holder) closeAll() {
	for _, b := range h.held {
		b.Close()
	}
}

func testPorts(t *testing.T) (*Ports, *holder) {
	t.Helper()
	h := newHolder()
	t.Cleanup(h.closeAll)
	return NewPorts(h, nil), h
}

func parse(t *testing.T, values ...string) []spec.Spec {
	t.Helper()
	specs, err := spec.ParseAll(values)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

// freePort is a port that is free on 127.0.0.1 and ::1, for the moment.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l6, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", port))
		l.Close()
		if err == nil {
			l6.Close()
		}
		if err == nil || !isTaken(err) {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func isTaken(err error) bool { return strings.Contains(err.Error(), "in use") }

func TestAddingAgainReturnsTheSameEntry(t *testing.T) {
	p, h := testPorts(t)
	port := freePort(t)
	a := fmt.Sprintf("%d:80", port)
	first, err := p.Add(parse(t, a, "443", "53/udp"))
	if err != nil {
		t.Fatal(err)
	}
	if first[0].ID != 1 || first[1].ID != 2 || first[2].ID != 3 {
		t.Errorf("IDs are not 1, 2, 3: %+v", first)
	}
	if first[1].Bound[0].Host.Port() == 0 {
		t.Errorf("the free port is not told: %+v", first[1])
	}
	sockets := len(h.held)
	again, err := p.Add(parse(t, "443", a))
	if err != nil || again[0].ID != 2 || again[1].ID != 1 || len(h.held) != sockets {
		t.Errorf("again: %+v, %v, %d sockets instead of %d", again, err, len(h.held), sockets)
	}
	same := parse(t, "127.0.0.1:8443")
	twice, err := p.Add([]spec.Spec{same[0], same[0]})
	if err != nil || twice[0].ID != twice[1].ID {
		t.Errorf("the same twice in one call: %+v, %v", twice, err)
	}
}

func TestAddIsAllOrNothing(t *testing.T) {
	p, h := testPorts(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, taken := freePort(t), l.Addr().(*net.TCPAddr).Port
	good := fmt.Sprintf("127.0.0.1:%d:80", free)
	if _, err := p.Add(parse(t, good, fmt.Sprintf("127.0.0.1:%d:80", taken))); err == nil || !isTaken(err) {
		t.Errorf("a taken port: %v", err)
	}
	h.refuse = errors.New("not today")
	if _, err := p.Add(parse(t, good)); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("the forwarder's refusal: %v", err)
	}
	if len(p.List()) != 0 || len(h.held) != 0 {
		t.Fatalf("something is published: %+v", p.List())
	}
	again, err := p.Add(parse(t, good))
	if err != nil || again[0].ID != 1 {
		t.Errorf("the good one alone: %+v, %v", again, err)
	}
}

func TestAPortOfAnotherEntryIsNotTaken(t *testing.T) {
	p, _ := testPorts(t)
	port := freePort(t)
	if _, err := p.Add(parse(t, fmt.Sprintf("%d:80", port))); err != nil {
		t.Fatal(err)
	}
	_, err := p.Add(parse(t, fmt.Sprintf("127.0.0.1:%d:81", port)))
	if err == nil || !strings.Contains(err.Error(), "remove port 1 first") {
		t.Errorf("%v", err)
	}
}

// Free means: somebody else can bind it at once.
func TestRemoveFreesTheHostPort(t *testing.T) {
	p, _ := testPorts(t)
	port := freePort(t)
	for range 50 {
		added, err := p.Add(parse(t, fmt.Sprintf("%d:80", port)))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Remove(added[0].ID); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatalf("after Remove: %v", err)
		}
		l.Close()
	}
	if id := p.lastID; id != 50 {
		t.Errorf("an ID was used again: the last is %d", id)
	}
}

func TestRemoveIsAllOrNothing(t *testing.T) {
	p, h := testPorts(t)
	if _, err := p.Add(parse(t, "80", "81")); err != nil {
		t.Fatal(err)
	}
	sockets := len(h.held)
	if err := p.Remove(1, 7); !errors.Is(err, ErrUnknownPort) {
		t.Errorf("%v", err)
	}
	if len(p.List()) != 2 || len(h.held) != sockets {
		t.Errorf("one of them is gone: %+v", p.List())
	}
	if err := p.Remove(1, 2, 1); err != nil || len(h.held) != 0 {
		t.Errorf("%v, %d sockets left", err, len(h.held))
	}
}

func TestSpecsTogetherAreOneEntry(t *testing.T) {
	p, h := testPorts(t)
	any4, any6 := parse(t, "0.0.0.0::80")[0], parse(t, "0.0.0.0::81")[0]
	e, err := p.AddTogether(any4, any6)
	if err != nil || len(e.Specs) != 2 || len(e.Bound) != 2 {
		t.Fatalf("%+v, %v", e, err)
	}
	again, err := p.AddTogether(any4, any6)
	if err != nil || again.ID != e.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	if found, err := p.Find(any4, any6); err != nil || found.ID != e.ID {
		t.Errorf("find: %+v, %v", found, err)
	}
	if err := p.Remove(e.ID); err != nil || len(h.held) != 0 {
		t.Errorf("%v, %d left", err, len(h.held))
	}
}

// What -p published is in the set from the start, grouped as it was asked for.
func TestPublishedPortsAreEntries(t *testing.T) {
	bound, err := spec.Bind(parse(t, "80", "81/udp", "127.0.0.1::82"))
	if err != nil {
		t.Fatal(err)
	}
	defer spec.CloseAll(bound)
	p := NewPorts(newHolder(), bound)
	var ports []uint16
	for _, e := range p.List() {
		ports = append(ports, e.Specs[0].Port)
		if e.Bound[0].FD != -1 {
			t.Errorf("%+v has a descriptor", e.Bound[0])
		}
	}
	if !slices.Equal(ports, []uint16{80, 81, 82}) {
		t.Errorf("%v", ports)
	}
}

func TestChangesAtOnceDoNotDisturbEachOther(t *testing.T) {
	p, h := testPorts(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 25 {
				s := spec.Spec{Protocol: spec.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), Port: uint16(1000 + g), Count: 1}
				e, err := p.Add([]spec.Spec{s})
				if err != nil || len(e[0].Bound) != 1 {
					t.Errorf("add %d.%d: %+v, %v", g, i, e, err)
					return
				}
				p.List()
				if err := p.Remove(e[0].ID); err != nil {
					t.Errorf("remove %d.%d: %v", g, i, err)
				}
			}
		}()
	}
	wg.Wait()
	if len(p.List()) != 0 || len(h.held) != 0 {
		t.Errorf("left: %+v, %d sockets", p.List(), len(h.held))
	}
}

func TestASandboxWithoutANetworkHasNoPorts(t *testing.T) {
	p := NoPorts("no network")
	if _, err := p.Add(parse(t, "80")); err == nil || err.Error() != "no network" {
		t.Errorf("%v", err)
	}
	if err := p.Remove(1); !errors.Is(err, ErrUnknownPort) {
		t.Errorf("%v", err)
	}
	if len(p.List()) != 0 {
		t.Error("it lists some")
	}
}
