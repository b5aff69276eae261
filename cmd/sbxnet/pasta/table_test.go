package pasta

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// memoryPorts are published ports without sockets. Host port 7 is always taken.
type memoryPorts struct {
	last    int
	entries []network.Entry
}

func (m *memoryPorts) Add(specs []spec.Spec) ([]network.Entry, error) {
	var out, fresh []network.Entry
	for _, s := range specs {
		if s.HostPort <= 7 && int(s.HostPort)+s.Count > 7 {
			return nil, errors.New("port 7: address already in use")
		}
		known := slices.IndexFunc(m.entries, func(e network.Entry) bool { return e.Specs[0] == s })
		if known >= 0 {
			out = append(out, m.entries[known])
			continue
		}
		for _, e := range m.entries {
			if err := spec.Check([]spec.Spec{e.Specs[0], s}); err != nil {
				return nil, err
			}
		}
		m.last++
		fresh = append(fresh, network.Entry{ID: m.last, Specs: []spec.Spec{s}})
	}
	m.entries = append(m.entries, fresh...)
	return append(out, fresh...), nil
}

func (m *memoryPorts) Remove(ids ...int) error {
	m.entries = slices.DeleteFunc(m.entries, func(e network.Entry) bool { return slices.Contains(ids, e.ID) })
	return nil
}

func (m *memoryPorts) List() []network.Entry { return slices.Clone(m.entries) }

func newTable() *table {
	return &table{ports: &memoryPorts{}, wildcards: []netip.Addr{everyIPv4}}
}

// changes reads "add tcp 80 81; delete udp 53; set tcp 90".
func changes(text string) []change {
	var out []change
	for _, part := range strings.Split(text, ";") {
		f := strings.Fields(part)
		out = append(out, change{f[0], spec.Protocol(f[1]), f[2:]})
	}
	return out
}

// Each request leads from one set of published ports to the next, or leaves it
// as it is and says why.
func TestChangesOfPublishedPorts(t *testing.T) {
	tb := newTable()
	for _, c := range []struct{ request, err, want string }{
		{"add tcp 80:8080", "", "-t 0.0.0.0/80:8080"},
		{"add tcp 80:8080", "", "-t 0.0.0.0/80:8080"},
		{"add udp 127.0.0.1/53", "", "-t 0.0.0.0/80:8080, -u 127.0.0.1/53"},
		{"delete tcp 443; delete udp 54", "", "-t 0.0.0.0/80:8080, -u 127.0.0.1/53"},
		{"delete tcp 80", "", "-t 0.0.0.0/80:8080, -u 127.0.0.1/53"}, // it leads to 8080
		{"delete udp 53", "", "-t 0.0.0.0/80:8080, -u 127.0.0.1/53"}, // it is not on that address
		{"delete udp 127.0.0.1/53", "", "-t 0.0.0.0/80:8080"},
		{"add tcp 81 7", "already in use", "-t 0.0.0.0/80:8080"},
		{"delete tcp 80:8080; add tcp 7", "already in use", "-t 0.0.0.0/80:8080"},
		{"add tcp 80:9090", "already taken", "-t 0.0.0.0/80:8080"},
		{"set tcp 80:9090 90", "", "-t 0.0.0.0/80:9090, -t 0.0.0.0/90"},
		{"set tcp 90 91", "", "-t 0.0.0.0/90, -t 0.0.0.0/91"},
		{"set tcp none", "", ""},
		{"add tcp 100-110:200-210", "", "-t 0.0.0.0/100-110:200-210"},
		{"delete tcp 103-104:203-204", "", "-t 0.0.0.0/100-102:200-202, -t 0.0.0.0/105-110:205-210"},
		{"delete tcp 100-110:200-210", "", ""},
		{"add tcp 127.0.0.1%lo/80:10.0.2.100/81", "", "-t 127.0.0.1%lo/80:10.0.2.100/81"},
		{"delete tcp 127.0.0.1/80:10.0.2.100/81", "", "-t 127.0.0.1%lo/80:10.0.2.100/81"},
		{"delete tcp 127.0.0.1%lo/80:10.0.2.100/81", "", ""},
		{"add tcp 0", "Invalid port specifier 0", ""},
		{"add tcp 70000", "Invalid port specifier 70000", ""},
		{"add tcp auto", "name the ports", ""},
		{"add sctp 80", "sctp: no such protocol", ""},
		{"open tcp 80", "open: no such operation", ""},
	} {
		err := tb.apply(changes(c.request))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.request, err, c.err)
		}
		if got := strings.Join(tb.lines(), ", "); got != c.want {
			t.Errorf("after %s: %s, want %s", c.request, got, c.want)
		}
	}
}

// A rule without an address is a socket in each family that there is.
func TestNoAddressIsEveryAddress(t *testing.T) {
	p, err := portsOf("80-81:90-91")
	if err != nil {
		t.Fatal(err)
	}
	r := rule{spec.TCP, p.Forwards[0]}
	got := fmt.Sprint(r.specs([]netip.Addr{everyIPv4, everyIPv6}))
	if want := "[0.0.0.0:80-81:90-91 [::]:80-81:90-91]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAllPortsLeaveOutWhatIsNamedOrForClients(t *testing.T) {
	o := mustParse(t, "-t all,~1-1000,~2000-65535 -t 1500-1990:500-990 1")
	got := o.TCP.allPorts(portRange{1010, 1490})
	if want := "[1001 1002 1003 1004 1005 1006 1007 1008 1009 1491 1492 1493 1494 1495 1496 1497 1498 1499 1991 1992 1993 1994 1995 1996 1997 1998 1999]"; fmt.Sprint(got) != want {
		t.Errorf("%v", got)
	}
}

// Of all ports, those that are taken are left out; with nothing left it is an
// error.
func TestAllPortsAreThoseThatAreFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken, other := netip.MustParseAddrPort(l.Addr().String()).Port(), netip.MustParseAddrPort(free.Addr().String()).Port()
	free.Close()
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	bound, err := bindAll(spec.TCP, netip.Addr{}, []uint16{taken, other}, loopback)
	if err != nil || len(bound) != 1 || bound[0].Host.Port() != other || bound[0].Port != other {
		t.Errorf("%v, %v", bound, err)
	}
	spec.CloseAll(bound)
	if bound, err := bindAll(spec.TCP, netip.Addr{}, []uint16{taken}, loopback); err == nil || err.Error() != "Failed to bind any port for '-t all', exiting" {
		t.Errorf("%v, %v", bound, err)
	}
}

// A port that is taken is an error that says by whom, and nothing stays bound.
func TestTakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, other, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	o := mustParse(t, "-t 127.0.0.1/"+other+" -t 127.0.0.1/"+port+" 1")
	_, err = bindRules(o, nil)
	if err == nil || !strings.Contains(err.Error(), "already in use") || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("%v", err)
	}
	if l, err := net.Listen("tcp4", "127.0.0.1:"+other); err != nil {
		t.Errorf("the free port stayed bound: %v", err)
	} else {
		l.Close()
	}
}
