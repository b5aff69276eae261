package pasta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sbxnet/portfwd/spec"
)

// How often the namespace is looked at, and how long a host port that could not
// be had is left alone: saying who has it means looking at every process.
const (
	followEvery = time.Second
	retryAfter  = 10 * time.Second
)

// maxFollowed bounds what is published because it listens, for whoever is in the
// namespace may listen on as many ports as there are.
const maxFollowed = 1024

// A server is a port that something listens on in the sandbox.
type server struct {
	Protocol spec.Protocol
	Port     uint16
}

// A follower keeps host ports open for what listens in the sandbox.
type follower struct {
	// pid of a process in the sandbox's network; 0: it has gone.
	pid       func() int
	table     *table
	tcp, udp  *ports
	ephemeral portRange
	log       *slog.Logger
	// opened are what this follower published, by server.
	opened map[server][]rule
	failed map[server]time.Time
	// full: that there are too many has been said.
	full bool
}

func newFollower(o *options, t *table, pid func() int, log *slog.Logger) *follower {
	return &follower{
		pid: pid, table: t, tcp: &o.TCP, udp: &o.UDP, ephemeral: ephemeralPorts(), log: log,
		opened: map[server][]rule{}, failed: map[server]time.Time{},
	}
}

// needed reports whether anything is to be followed.
func (f *follower) needed() bool { return f.tcp.Auto || f.udp.Auto }

// run follows until stop is closed.
func (f *follower) run(stop <-chan struct{}) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			f.look(now)
		}
	}
}

// look publishes what has come, and withdraws what has gone.
func (f *follower) look(now time.Time) {
	servers, err := f.servers()
	if err != nil {
		f.log.Debug("look for servers: " + err.Error())
		return
	}
	for s, rules := range f.opened {
		if loopback, ok := servers[s]; !ok || !slices.Equal(f.rulesFor(s, loopback), rules) {
			delete(f.opened, s)
			if err := f.table.remove(rules); err != nil {
				f.log.Warn(fmt.Sprintf("close %s: %v", rules[0], err))
			}
		}
	}
	for s, loopback := range servers {
		if _, ok := f.opened[s]; ok || now.Sub(f.failed[s]) < retryAfter {
			continue
		}
		if len(f.opened) >= maxFollowed {
			if !f.full {
				f.full = true
				f.log.Warn(fmt.Sprintf("more than %d servers listen in the namespace: not all are published; name the ports with -t and -u", maxFollowed))
			}
			break
		}
		rules := f.rulesFor(s, loopback)
		if err := f.table.add(rules); err != nil {
			f.failed[s] = now
			f.log.Debug(fmt.Sprintf("%s is not published: %v", rules[0], err))
			continue
		}
		f.log.Debug("published", "rule", rules[0].String())
		f.opened[s] = rules
		delete(f.failed, s)
	}
	for s := range f.failed {
		if _, ok := servers[s]; !ok {
			delete(f.failed, s)
		}
	}
}

// rulesFor publishes a server that only the sandbox itself can reach to the host
// itself only.
func (f *follower) rulesFor(s server, loopback bool) []rule {
	r := rule{s.Protocol, forward{portRange: portRange{s.Port, s.Port}, ToFirst: s.Port}}
	if !loopback {
		return []rule{r}
	}
	var rules []rule
	for _, a := range f.table.wildcards {
		if r.Host = netip.IPv6Loopback(); a.Is4() {
			r.Host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		rules = append(rules, r)
	}
	return rules
}

// servers are what is to be published now, and whether it listens on loopback
// only.
func (f *follower) servers() (map[server]bool, error) {
	pid := f.pid()
	if pid == 0 {
		return nil, fmt.Errorf("no process is in the namespace any more")
	}
	found := map[server]bool{}
	for _, t := range []struct {
		name     string
		protocol spec.Protocol
		ports    *ports
	}{{"tcp", spec.TCP, f.tcp}, {"tcp6", spec.TCP, f.tcp}, {"udp", spec.UDP, f.udp}, {"udp6", spec.UDP, f.udp}} {
		if !t.ports.Auto {
			continue
		}
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, t.name))
		if os.IsNotExist(err) && strings.HasSuffix(t.name, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		err = readSockets(file, t.protocol, func(at netip.AddrPort) {
			s := server{t.protocol, at.Port()}
			switch {
			case t.ports.excepts(s.Port), t.ports.names(s.Port):
			case s.Protocol == spec.UDP && f.ephemeral.contains(s.Port): // a client, most likely
			default:
				before, known := found[s]
				found[s] = at.Addr().IsLoopback() && (before || !known)
			}
		})
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	return found, nil
}

// names reports a host port that an option leads somewhere.
func (p *ports) names(port uint16) bool {
	for _, f := range p.Forwards {
		if f.contains(port) {
			return true
		}
	}
	return false
}

// States of sockets in /proc/net (include/net/tcp_states.h): a listening TCP
// socket, and a UDP socket that is not connected.
const (
	stateListen = "0A"
	stateClose  = "07"
)

// maxSockets bounds how much of a namespace's table is read, in bytes: some 25000
// sockets.
const maxSockets = 4 << 20

// readSockets calls f for each server in a table of /proc/net.
func readSockets(table io.Reader, protocol spec.Protocol, f func(netip.AddrPort)) error {
	state := stateListen
	if protocol == spec.UDP {
		state = stateClose
	}
	lines := bufio.NewScanner(io.LimitReader(table, maxSockets))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		if at, ok := parseSocket(fields[1]); ok && at.Port() != 0 {
			f(at)
		}
	}
	return lines.Err()
}

// parseSocket reads an address of /proc/net, such as 0100007F:1F90: each group of
// four bytes is a number in the machine's byte order.
func parseSocket(text string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(text, ":")
	if !ok || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(address); i += 8 {
		n, err := strconv.ParseUint(address[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(n))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}
