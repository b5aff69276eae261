package pasta

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"sbxnet/portfwd/spec"
)

// retryAfter is how long a port that could not be had is left alone: on the host,
// saying who has it means looking at every process.
const retryAfter = 10 * time.Second

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
	pid   func() int
	table *table
	// exits are no servers of the sandbox's; nil: there are none.
	exits     *exits
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
	err := eachServer(pid, f.tcp.Auto, f.udp.Auto, func(protocol spec.Protocol, at netip.AddrPort) {
		s, ports := server{protocol, at.Port()}, f.tcp
		if protocol == spec.UDP {
			ports = f.udp
		}
		switch {
		case ports.excepts(s.Port), ports.names(s.Port):
		case f.exits.has(exit{protocol, at}): // it leads back to the host
		case protocol == spec.UDP && f.ephemeral.contains(s.Port): // a client, most likely
		default:
			before, known := found[s]
			found[s] = at.Addr().IsLoopback() && (before || !known)
		}
	})
	return found, err
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
