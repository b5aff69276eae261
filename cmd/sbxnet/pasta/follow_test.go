package pasta

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sbxnet/portfwd/spec"
)

func TestSocketTablesAreRead(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for _, c := range []struct {
		protocol spec.Protocol
		table    string
		want     string
	}{
		{spec.TCP, "   0: 0100007F:1F90 00000000:0000 0A 0 0 0\n   1: 0100007F:1F91 0100007F:0050 01 0\n", "127.0.0.1:8080"},
		{spec.TCP, "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A\n", "[::]:80"},
		{spec.TCP, "   0: 00000000000000000000000001000000:0050 0:0 0A\n", "[::1]:80"},
		{spec.TCP, "   0: 0000000000000000FFFF00000100007F:0050 0:0 0A\n", "127.0.0.1:80"},
		{spec.UDP, "   0: 00000000:0035 00000000:0000 07\n   1: 00000000:0036 0100007F:0035 01\n", "0.0.0.0:53"},
		{spec.UDP, "   0: 00000000:0000 00000000:0000 07\n", ""},
		{spec.TCP, "garbage\n\n   0: zz:0050 0:0 0A\n   0: 0100007F 0:0 0A\n   0: 0100007F:xx 0:0 0A\n 0: 01:0050 0:0 0A\n", ""},
	} {
		var got []string
		if err := readSockets(strings.NewReader(head+c.table), c.protocol, func(a netip.AddrPort) { got = append(got, a.String()) }); err != nil {
			t.Errorf("%q: %v", c.table, err)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %v, want %s", c.table, got, c.want)
		}
	}
}

// follow looks once and says what is published then of ports.
func follow(f *follower, now time.Time, ports ...uint16) []string {
	f.look(now)
	var lines []string
	for _, line := range f.table.lines() {
		for _, p := range ports {
			if strings.HasSuffix(line, "/"+strconv.Itoa(int(p))) {
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// Host ports open and close after the servers in the namespace, here this
// process's own: on every address or, for a server on loopback, on loopback.
func TestHostPortsFollowServers(t *testing.T) {
	o := mustParse(t, "-t auto -u auto 1")
	f := newFollower(o, newTable(), os.Getpid, newLog(os.Stderr, &options{}))
	f.ephemeral = portRange{1, 1} // the kernel's own choice of ports is ours
	listen := func(network, at string) (uint16, func()) {
		if network == "udp4" {
			c, err := net.ListenPacket(network, at)
			if err != nil {
				t.Fatal(err)
			}
			return netip.MustParseAddrPort(c.LocalAddr().String()).Port(), func() { c.Close() }
		}
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		return netip.MustParseAddrPort(l.Addr().String()).Port(), func() { l.Close() }
	}
	open, closeOpen := listen("tcp4", "0.0.0.0:0")
	local, closeLocal := listen("tcp4", "127.0.0.1:0")
	datagrams, closeDatagrams := listen("udp4", "0.0.0.0:0")
	now := time.Now()
	want := []string{"-t 0.0.0.0/" + strconv.Itoa(int(open)), "-t 127.0.0.1/" + strconv.Itoa(int(local)), "-u 0.0.0.0/" + strconv.Itoa(int(datagrams))}
	slices.Sort(want)
	for range 2 {
		if got := follow(f, now, open, local, datagrams); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	closeOpen()
	closeDatagrams()
	if got := follow(f, now, open, local, datagrams); len(got) != 1 || !strings.HasPrefix(got[0], "-t 127.0.0.1/") {
		t.Errorf("after two have closed: %v", got)
	}
	// The same port on every address is another rule.
	closeLocal()
	_, closeAgain := listen("tcp4", "0.0.0.0:"+strconv.Itoa(int(local)))
	defer closeAgain()
	if got := follow(f, now, local); len(got) != 1 || got[0] != "-t 0.0.0.0/"+strconv.Itoa(int(local)) {
		t.Errorf("after it has moved: %v", got)
	}
}

// What options name, exclude or leave to clients is not followed, nor what is
// switched off.
func TestWhatIsNotFollowed(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	c, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
	number := strconv.Itoa(int(port))
	for _, args := range []string{
		"-t none -u auto 1",
		"-t auto -t " + number + ":80 -u none 1",
		"-t auto,~" + number + " -u none 1",
	} {
		f := newFollower(mustParse(t, args), newTable(), os.Getpid, newLog(os.Stderr, &options{}))
		f.ephemeral = portRange{client, client}
		if got := follow(f, time.Now(), port, client); len(got) != 0 {
			t.Errorf("%s: %v", args, got)
		}
	}
}

// A host port that is taken is tried again later, not every second: to say who
// has it all processes are looked at.
func TestTakenHostPortIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	f := newFollower(mustParse(t, "-u none 1"), newTable(), os.Getpid, newLog(os.Stderr, &options{}))
	blocker := rule{spec.TCP, forward{Host: everyIPv4, portRange: portRange{port, port}, ToFirst: 9}}
	if err := f.table.add([]rule{blocker}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if got := follow(f, now, port); len(got) != 0 {
		t.Errorf("taken: %v", got)
	}
	if err := f.table.remove([]rule{blocker}); err != nil {
		t.Fatal(err)
	}
	if got := follow(f, now.Add(followEvery), port); len(got) != 0 {
		t.Errorf("tried again at once: %v", got)
	}
	if got := follow(f, now.Add(retryAfter), port); len(got) != 1 {
		t.Errorf("not tried again: %v", got)
	}
}

// Whoever listens on every port does not get every port of the host.
func TestFollowedServersAreBounded(t *testing.T) {
	for range maxFollowed + 20 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	var log strings.Builder
	f := newFollower(mustParse(t, "-u none 1"), newTable(), os.Getpid, newLog(&log, &options{}))
	for range 3 {
		f.look(time.Now())
		if n := len(f.table.lines()); n != maxFollowed {
			t.Errorf("%d ports are published, want %d", n, maxFollowed)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "name the ports") {
		t.Errorf("it was said %d times: %s", n, log.String())
	}
}

// Without a process to look through nothing is withdrawn: the servers may be
// there.
func TestLosingSightWithdrawsNothing(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	pid := os.Getpid()
	f := newFollower(mustParse(t, "-u none 1"), newTable(), func() int { return pid }, newLog(os.Stderr, &options{}))
	if got := follow(f, time.Now(), port); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	pid = 0
	if got := follow(f, time.Now(), port); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func FuzzSocketTable(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 0 0 0\n")
	f.Add("0: 0000000000000000FFFF00000100007F:0050 0:0 07")
	f.Fuzz(func(t *testing.T, table string) {
		for _, p := range []spec.Protocol{spec.TCP, spec.UDP} {
			readSockets(strings.NewReader(table), p, func(a netip.AddrPort) {
				if !a.IsValid() || a.Port() == 0 {
					t.Fatalf("%q: %v", table, a)
				}
			})
		}
	})
}
