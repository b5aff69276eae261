package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// attachName is argv[0] of the process that attaches, and what ps shows.
const attachName = "sbxnet-attach"

// attachSetup is what the process that attaches is told.
type attachSetup struct {
	Link                  tapdev.Options
	Configure             bool
	Addresses             []netip.Prefix
	Gateways              []netip.Addr
	Remove, RemoveIfEmpty []string
}

// attachProcess is the process inside the network namespace.
type attachProcess struct {
	setup    attachSetup
	conn     *net.UnixConn
	found    Found // as last reported
	veth     int   // index of a packet link that was made, or 0
	removals removals
	steering steering
}

// runAttach is that process, from main to exit.
func runAttach([]string) int {
	// Who ends us is sbxnet, by its end of the control socket. What a terminal
	// sends to the group is its to heed.
	signal.Ignore(forwarded...)
	p := &attachProcess{}
	var err error
	if p.conn, err = connectDown(&p.setup); err != nil {
		return StatusFailed // nobody to tell
	}
	p.steering.addresses, p.steering.link = p.steered, p.setup.Link.Name
	// Best effort, for a sbxnet killed while we are stopped: we are to see it. And
	// so that nobody in the namespace who has fewer capabilities than we may trace
	// us.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.removals.open(p.setup.Remove, p.setup.RemoveIfEmpty, p.note)
	status := 0
	if err := p.bringUp(); err != nil {
		sendFailure(p.conn, err)
		status = StatusFailed
	}
	died := p.obey()
	p.steering.takeBack()
	p.removeVeth()
	if died {
		p.removals.remove()
	}
	return status
}

// bringUp gives sbxnet the link, and goes on to tell of changes.
func (p *attachProcess) bringUp() error {
	info, files, err := p.attach()
	if err != nil {
		return err
	}
	defer closeAll(files)
	changes := p.subscribe()
	if p.found, err = learn(info.Name); err != nil {
		return err
	}
	if err := sendMessage(p.conn, message{Op: opReady, Info: &info, Found: &p.found}, files...); err != nil {
		return err
	}
	go p.follow(info.Name, changes)
	return nil
}

// removeVeth removes a packet link that was made: by itself it goes some time after
// its other end's namespace, and its name would be taken for who comes next. A TAP
// goes with its descriptors.
func (p *attachProcess) removeVeth() {
	if p.veth == 0 {
		return
	}
	if l, err := netlink.LinkByIndex(p.veth); err == nil {
		_ = netlink.LinkDel(l)
	}
}

// obey does what sbxnet says until that is to end, or sbxnet has died.
func (p *attachProcess) obey() (died bool) {
	for {
		m, files, err := receiveMessage(p.conn)
		closeAll(files)
		if err != nil {
			return true
		}
		switch m.Op {
		case opEnd:
			return false
		case opListen:
			listenInside(p.conn, m.Sockets)
		case opSockets:
			socketsInside(p.conn, &p.steering, m)
		case opDivert, opUndivert:
			divertInside(p.conn, &p.steering, m)
		case opRemove:
			p.removals.open(m.Paths, nil, p.note)
		}
	}
}

// connectDown takes over the descriptors that a process of ours was started
// with, and reads its setup.
func connectDown(setup any) (*net.UnixConn, error) {
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(setupFD)
	f := os.NewFile(setupFD, "setup")
	err := json.NewDecoder(f).Decode(setup)
	f.Close()
	if err != nil {
		return nil, err
	}
	return controlConn(os.NewFile(controlFD, "control"))
}

// sendFailure tells sbxnet why there will be nothing.
func sendFailure(c *net.UnixConn, err error) {
	m := message{Op: opFailed, Text: err.Error(), Label: appArmorLabel("/proc/self")}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		m.Errno = int(errno)
	}
	var exec *ExecError
	if errors.As(err, &exec) {
		m.Number = exec.Status
	}
	_ = sendMessage(c, m)
}

// note sends a line for the log.
func (p *attachProcess) note(format string, args ...any) {
	_ = sendMessage(p.conn, message{Op: opNote, Text: fmt.Sprintf(format, args...)})
}

// attach opens the link, and gives it its addresses if it is for us to do.
func (p *attachProcess) attach() (tapdev.Info, []*os.File, error) {
	s := &p.setup
	if err := p.checkRoutes(); err != nil {
		return tapdev.Info{}, nil, err
	}
	if s.Configure {
		if err := bringUpLoopback(); err != nil {
			return tapdev.Info{}, nil, err
		}
	}
	info, files, err := openOrTakeOver(s.Link)
	if err != nil {
		return tapdev.Info{}, nil, err
	}
	if info.Kind == tapdev.Packet {
		if l, err := netlink.LinkByName(info.Name); err == nil {
			p.veth = l.Attrs().Index
		}
	}
	if s.Configure {
		// The strictest of this and an interface's own holds.
		_ = setSysctl("net/ipv4/conf/all/rp_filter", "0")
		err = configureLink(&setup{Link: info.Options, Addresses: s.Addresses, Gateways: s.Gateways}, p.note)
	} else {
		tuneTakenOver(info.Name, p.note)
	}
	if err != nil {
		closeAll(files)
		return tapdev.Info{}, nil, err
	}
	return info, files, nil
}

// steered are the addresses that are the namespace's now, and the next hops.
func (p *attachProcess) steered() ([]netip.Prefix, []netip.Addr, error) {
	if p.setup.Configure {
		return p.setup.Addresses, p.setup.Gateways, nil
	}
	found, err := learn(p.setup.Link.Name)
	return found.Addresses, found.Gateways, err
}

// checkRoutes refuses what could not work: one default route too many.
func (p *attachProcess) checkRoutes() error {
	s := &p.setup
	for _, v := range families {
		routes, err := defaultRoutes(v.family)
		if err != nil {
			return fmt.Errorf("list %s routes: %w", v.name, err)
		}
		if len(routes) > 1 {
			return fmt.Errorf("there are %d default routes for %s in it (%s and %s): leave one, with ip -%d route del default",
				len(routes), v.name, routes[0], routes[1], v.number)
		}
		gw, wanted := gatewayOf(s.Gateways, v.family)
		if !s.Configure || !wanted || len(routes) == 0 {
			continue
		}
		if routes[0] != (hop{gw, s.Link.Name}) {
			return fmt.Errorf("there is a default route for %s in it already (%s), and a second one would be by %s: remove it with ip -%d route del default, or leave the addresses alone with --configure=false",
				v.name, routes[0], gw, v.number)
		}
	}
	return nil
}

// quiet is how long changes must have stopped before they are looked at; a
// change of addresses is seldom one.
const quiet = 10 * time.Millisecond

// follow tells sbxnet what is on the interface whenever that has changed.
func (p *attachProcess) follow(name string, changes <-chan struct{}) {
	for range changes {
		time.Sleep(quiet)
		select {
		case <-changes:
		default:
		}
		found, err := learn(name)
		if err != nil || found.equal(p.found) {
			continue // without its interface there is no link either
		}
		p.found = found
		if sendMessage(p.conn, message{Op: opFound, Found: &found}) != nil {
			return
		}
	}
}
