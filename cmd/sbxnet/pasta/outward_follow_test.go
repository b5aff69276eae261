package pasta

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/outlet"
	"sbxnet/portfwd/spec"
	"sbxnet/userns"
)

// fakeExits are exits of a namespace that is not there: what is to listen in it
// are two sockets of ours, time and again.
type fakeExits struct {
	*exits
	// refuses are the errors for some of the sockets, by their String.
	refuses map[string]error
}

func newExits(t *testing.T) *fakeExits {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 1, 1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, 1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	out := outlet.New(outlet.Config{})
	t.Cleanup(func() { out.Close() })
	e := &fakeExits{refuses: map[string]error{}}
	e.exits = &exits{outlets: out, open: map[exit]bool{}, listen: func(sockets []userns.Socket) (files []*os.File, err error) {
		for _, s := range sockets {
			if err := e.refuses[s.String()]; err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			var f *os.File
			if s.UDP {
				f, err = c.File()
			} else {
				f, err = l.File()
			}
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
		return files, nil
	}}
	return e
}

// leadsOut looks once and says what leads out then, of some ports.
func leadsOut(f *outFollower, now time.Time, ports ...uint16) string {
	f.look(now)
	var found []string
	for x := range f.exits.open {
		if slices.Contains(ports, x.At.Port()) {
			found = append(found, fmt.Sprintf("%s %s", x.Protocol, x.At))
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

// newLeadingOut follows what this process's own network listens on.
func newLeadingOut(t *testing.T, args string, e *exits, tb *table) *outFollower {
	t.Helper()
	f := newOutFollower(mustParse(t, args), e, tb, newLog(os.Stderr, &options{}))
	f.loopbacks = []netip.Addr{loopback4, netip.IPv6Loopback()}
	f.ephemeral = portRange{1, 1} // the kernel's own choice of ports is ours
	return f
}

// listenOn is a server of this test's.
func listenOn(t *testing.T, network, at string) (port uint16, shut func()) {
	t.Helper()
	var c interface{ Close() error }
	var local net.Addr
	if strings.HasPrefix(network, "udp") {
		p, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		c, local = p, p.LocalAddr()
	} else {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		c, local = l, l.Addr()
	}
	t.Cleanup(func() { c.Close() })
	return netip.MustParseAddrPort(local.String()).Port(), func() { c.Close() }
}

// Sockets inside open and close after the host's servers: at the same loopback
// address, or at those that stand for every address.
func TestExitsFollowTheHostsServers(t *testing.T) {
	for _, c := range []struct{ network, at, want string }{
		{"tcp4", "0.0.0.0:0", "tcp 127.0.0.1:PORT"},
		{"tcp4", "127.0.0.1:0", "tcp 127.0.0.1:PORT"},
		{"tcp4", "127.0.0.53:0", "tcp 127.0.0.53:PORT"},
		{"tcp", "[::]:0", "tcp 127.0.0.1:PORT, tcp [::1]:PORT"},
		{"tcp6", "[::1]:0", "tcp [::1]:PORT"},
		{"udp4", "127.0.0.1:0", "udp 127.0.0.1:PORT"},
		{"udp4", "0.0.0.0:0", "udp 127.0.0.1:PORT"},
	} {
		if strings.HasPrefix(c.at, "[") && !hasIPv6() {
			continue
		}
		f := newLeadingOut(t, "-T auto -U auto 1", newExits(t).exits, newTable())
		now := time.Now()
		before := leadsOut(f, now)
		port, shut := listenOn(t, c.network, c.at)
		want := strings.ReplaceAll(c.want, "PORT", strconv.Itoa(int(port)))
		for range 2 {
			if got := leadsOut(f, now, port); got != want {
				t.Errorf("%s %s, before %q: %q, want %q", c.network, c.at, before, got, want)
			}
		}
		shut()
		if got := leadsOut(f, now, port); got != "" {
			t.Errorf("%s %s has closed: %q", c.network, c.at, got)
		}
	}
}

// What options name, exclude, switch off or leave to clients does not lead out by
// itself.
func TestWhatDoesNotLeadOut(t *testing.T) {
	port, _ := listenOn(t, "tcp4", "127.0.0.1:0")
	client, _ := listenOn(t, "udp4", "127.0.0.1:0")
	number := strconv.Itoa(int(port))
	for _, args := range []string{
		"-T none -U auto 1",
		"-T auto -T " + number + ":80 -U none 1",
		"-T auto,~" + number + " -U none 1",
		"--no-tcp 1",
	} {
		f := newLeadingOut(t, args, newExits(t).exits, newTable())
		f.ephemeral = portRange{client, client}
		if got := leadsOut(f, time.Now(), port, client); got != "" {
			t.Errorf("%s: %s", args, got)
		}
	}
	f := newLeadingOut(t, "-6 1", newExits(t).exits, newTable())
	f.loopbacks = mustParse(t, "-6 1").loopbacks(true)
	if got := leadsOut(f, time.Now(), port); got != "" {
		t.Errorf("without IPv4: %s", got)
	}
}

// What leads into the sandbox does not lead out of it again, and the other way
// round: neither end would ever close.
func TestPortsDoNotLeadInACircle(t *testing.T) {
	port, _ := listenOn(t, "tcp4", "0.0.0.0:0") // stands for the published one
	tb := newTable()
	if err := tb.add([]rule{{spec.TCP, forward{Host: everyIPv4, portRange: portRange{port, port}, ToFirst: port}}}); err != nil {
		t.Fatal(err)
	}
	e := newExits(t)
	f := newLeadingOut(t, "1", e.exits, tb)
	now := time.Now()
	if got := leadsOut(f, now, port); got != "" {
		t.Errorf("what is published leads out: %s", got)
	}
	// Its port may be freed between our look at the kernel and that at the table.
	if err := tb.change([]rule{{spec.TCP, forward{Host: everyIPv4, portRange: portRange{port, port}, ToFirst: port}}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := leadsOut(f, now, port); got != "" {
		t.Errorf("what was published a moment ago leads out: %s", got)
	}
	if got := leadsOut(f, now, port); got == "" {
		t.Error("somebody else's server does not lead out")
	}
	in := newFollower(mustParse(t, "-u none 1"), newTable(), os.Getpid, newLog(os.Stderr, &options{}))
	in.exits = e.exits
	e.open[exit{spec.TCP, netip.AddrPortFrom(everyIPv4, port)}] = true // stands for the exit, which is its own in the namespace
	if got := follow(in, now, port); len(got) != 0 {
		t.Errorf("what leads out is published: %v", got)
	}
}

// A port that somebody inside has is tried again later; an address that the
// namespace does not have, as before its loopback is up, at the next look.
func TestExitsThatCannotBeHadAreTriedAgain(t *testing.T) {
	port, _ := listenOn(t, "tcp4", "127.0.0.1:0")
	at := "127.0.0.1:" + strconv.Itoa(int(port)) + "/tcp"
	for _, c := range []struct {
		err   error
		after time.Duration
	}{{unix.EADDRINUSE, retryAfter}, {unix.EADDRNOTAVAIL, followEvery}} {
		e := newExits(t)
		f := newLeadingOut(t, "-U none 1", e.exits, newTable())
		now := time.Now()
		e.refuses[at] = c.err
		if got := leadsOut(f, now, port); got != "" {
			t.Errorf("%v: %s", c.err, got)
		}
		delete(e.refuses, at)
		if c.after > followEvery {
			if got := leadsOut(f, now.Add(followEvery), port); got != "" {
				t.Errorf("%v: tried again at once: %s", c.err, got)
			}
		}
		if got := leadsOut(f, now.Add(c.after), port); got == "" {
			t.Errorf("%v: not tried again", c.err)
		}
	}
}

// However many servers the host has, the sandbox has so many sockets of ours.
func TestExitsAreBounded(t *testing.T) {
	for range maxOutward + 20 {
		listenOn(t, "tcp4", "127.0.0.1:0")
	}
	var log strings.Builder
	e := newExits(t)
	f := newLeadingOut(t, "-U none 1", e.exits, newTable())
	f.log = newLog(&log, &options{})
	for range 3 {
		f.look(time.Now())
		if n := len(e.open); n != maxOutward {
			t.Errorf("%d ports lead out, want %d", n, maxOutward)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "name the ports") {
		t.Errorf("it was said %d times: %s", n, log.String())
	}
}
