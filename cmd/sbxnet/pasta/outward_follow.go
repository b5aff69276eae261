package pasta

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/spec"
)

// An outFollower keeps sockets open inside for what listens on the host, as auto
// does for -T and -U. A server on a loopback address is found at the same one
// inside, and one on every address at the loopback of its family, or of both
// families where its socket may be one for both; there is no way to others.
type outFollower struct {
	exits *exits
	// pid of a process in the host's network.
	pid       int
	table     *table
	tcp, udp  *ports
	loopbacks []netip.Addr
	ephemeral portRange
	log       *slog.Logger
	// ours are the host's sockets that led into the sandbox when last looked.
	ours map[exit]bool
	// opened are what this follower opened, failed what it could not.
	opened map[exit]bool
	failed map[exit]time.Time
	// full: that there are too many has been said.
	full bool
}

func newOutFollower(o *options, e *exits, t *table, log *slog.Logger) *outFollower {
	return &outFollower{
		exits: e, pid: os.Getpid(), table: t, tcp: &o.TCPOut, udp: &o.UDPOut,
		loopbacks: o.loopbacks(hasIPv6()), ephemeral: ephemeralPorts(), log: log,
		ours: map[exit]bool{}, opened: map[exit]bool{}, failed: map[exit]time.Time{},
	}
}

// look opens sockets for what has come, and shuts those of what has gone.
func (f *outFollower) look(now time.Time) {
	wanted, err := f.wanted()
	if err != nil {
		f.log.Debug("look for the host's servers: " + err.Error())
		return
	}
	for x := range f.opened {
		if !wanted[x] {
			delete(f.opened, x)
			if err := f.exits.shut(x); err != nil {
				f.log.Warn("shut " + err.Error())
			}
		}
	}
	for x := range f.failed {
		if !wanted[x] {
			delete(f.failed, x)
		}
	}
	f.open(wanted, now)
}

// open opens what of wanted is not.
func (f *outFollower) open(wanted map[exit]bool, now time.Time) {
	absent := map[netip.Addr]bool{} // addresses that the namespace does not have
	for x := range wanted {
		if f.opened[x] || absent[x.At.Addr()] || now.Sub(f.failed[x]) < retryAfter {
			continue
		}
		if len(f.opened) >= maxOutward {
			if !f.full {
				f.full = true
				f.log.Warn(fmt.Sprintf("more than %d servers listen on the host: not all can be reached from inside; name the ports with -T and -U", maxOutward))
			}
			return
		}
		err := f.exits.add(newOutlet(x, "", x.At.Addr(), x.At.Port()))
		switch {
		case err == nil:
			f.opened[x] = true
			delete(f.failed, x)
			f.log.Debug("leads out", "port", x.At.String(), "protocol", string(x.Protocol))
		case errors.Is(err, unix.EADDRNOTAVAIL): // until somebody brings up lo
			absent[x.At.Addr()] = true
		default: // most likely somebody inside has it
			f.failed[x] = now
			f.log.Debug("does not lead out: " + err.Error())
		}
	}
}

// wanted are the sockets that there should be inside.
func (f *outFollower) wanted() (map[exit]bool, error) {
	all := map[exit]bool{}
	err := eachServer(f.pid, f.tcp.Auto, f.udp.Auto, func(protocol spec.Protocol, at netip.AddrPort) {
		ports := f.tcp
		if protocol == spec.UDP {
			ports = f.udp
		}
		if !ports.excepts(at.Port()) && !ports.names(at.Port()) && (protocol != spec.UDP || !f.ephemeral.contains(at.Port())) {
			all[exit{protocol, at}] = true
		}
	})
	if err != nil {
		return nil, err
	}
	// What leads into the sandbox is not to lead out of it again. The table is
	// asked after the kernel, so that it has all of ours that the kernel showed.
	before := f.ours
	f.ours = f.table.sockets()
	wanted := map[exit]bool{}
	for x := range all {
		if f.ours[x] || before[x] {
			continue
		}
		for _, a := range f.insideOf(x.At.Addr()) {
			wanted[exit{x.Protocol, netip.AddrPortFrom(a, x.At.Port())}] = true
		}
	}
	return wanted, nil
}

// insideOf are the addresses inside for a server at an address of the host.
func (f *outFollower) insideOf(a netip.Addr) []netip.Addr {
	var inside []netip.Addr
	for _, l := range f.loopbacks {
		switch {
		case a == everyIPv6, a.IsUnspecified() && l.Is4():
			inside = append(inside, l)
		case a.IsLoopback() && a.Is4() == l.Is4():
			inside = append(inside, a)
		}
	}
	return inside
}

// sockets are those on the host that lead into the sandbox.
func (t *table) sockets() map[exit]bool {
	all := map[exit]bool{}
	for _, e := range t.ports.List() {
		for _, s := range e.Specs {
			for _, a := range s.Addresses() {
				for i := range s.Count {
					all[exit{s.Protocol, netip.AddrPortFrom(a.WithZone(""), s.HostPort+uint16(i))}] = true
				}
			}
		}
	}
	return all
}
