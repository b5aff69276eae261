package pasta

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/portfwd/outlet"
	"sbxnet/portfwd/spec"
	"sbxnet/userns"
)

// maxOutward bounds the ports of -T and -U: each is a socket in the sandbox and a
// goroutine of ours for each of its loopback addresses.
const maxOutward = 1024

// addOutward takes a value of -T or -U.
func (p *ports) addOutward(name, value string) error {
	if err := p.add(value); err != nil {
		return err
	}
	if p.All {
		return fmt.Errorf("--%s %s: name the ports that are to lead out", name, console.Shown(value))
	}
	return nil
}

// settleOutward is settle for -T and -U.
func (p *ports) settleOutward() error {
	if err := p.settle(); err != nil {
		return err
	}
	n := 0
	for _, f := range p.Forwards {
		n += int(f.Last-f.First) + 1
	}
	if n > maxOutward {
		return fmt.Errorf("-T and -U: %d ports of a protocol are more than the %d that can lead out", n, maxOutward)
	}
	return nil
}

// leadsOut reports whether a port inside leads to the host, or may do so.
func (o *options) leadsOut() bool {
	return o.followsOut() || len(o.TCPOut.Forwards)+len(o.UDPOut.Forwards) > 0
}

// followsOut reports whether ports lead out because something listens on the host.
func (o *options) followsOut() bool { return o.TCPOut.Auto || o.UDPOut.Auto }

// loopbacks are the addresses inside that ports lead out from, of the families
// that are on.
func (o *options) loopbacks(ipv6 bool) []netip.Addr {
	var all []netip.Addr
	if !o.V4.Off {
		all = append(all, loopback4)
	}
	if !o.V6.Off && ipv6 {
		all = append(all, netip.IPv6Loopback())
	}
	return all
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// An outletPort is a socket inside and where it leads on the host.
type outletPort struct {
	socket userns.Socket
	bound  spec.Bound
}

// newOutlet is a socket inside at an address, which leads to a port of another, or
// of the host's loopback.
func newOutlet(x exit, device string, to netip.Addr, port uint16) outletPort {
	return outletPort{
		socket: userns.Socket{UDP: x.Protocol == spec.UDP, Addr: x.At, Interface: device},
		bound:  spec.Bound{FD: -1, Protocol: x.Protocol, Host: x.At, Port: port, Child: to},
	}
}

// outlets are the sockets of -T and -U; without an address, on loopback of both
// families.
func (o *options) outlets(ipv6 bool) []outletPort {
	var all []outletPort
	for _, of := range []struct {
		protocol spec.Protocol
		ports    *ports
	}{{spec.TCP, &o.TCPOut}, {spec.UDP, &o.UDPOut}} {
		for _, f := range of.ports.Forwards {
			hosts := o.loopbacks(ipv6)
			if f.Host.IsValid() {
				hosts = []netip.Addr{f.Host}
			}
			for i := range int(f.Last-f.First) + 1 {
				for _, h := range hosts {
					at := exit{of.protocol, netip.AddrPortFrom(h, f.First+uint16(i))}
					all = append(all, newOutlet(at, f.Interface, f.To, f.ToFirst+uint16(i)))
				}
			}
		}
	}
	return all
}

// openOutlets makes the sockets in the namespace and carries what comes there to
// the host.
func (s *session) openOutlets() error {
	if !s.options.leadsOut() {
		return nil
	}
	out := outlet.New(outlet.Config{Logger: s.log})
	s.onClose(out.Close)
	s.exits = &exits{listen: s.inside.Listen, outlets: out, open: map[exit]bool{}}
	if err := s.exits.add(s.options.outlets(hasIPv6())...); err != nil {
		return fmt.Errorf("ports that lead out: %w", err)
	}
	return nil
}

// An exit is a socket inside: what comes there leads to the host.
type exit struct {
	Protocol spec.Protocol
	At       netip.AddrPort
}

// exits are those that are open. One goroutine at a time may use them.
type exits struct {
	// listen makes sockets in the namespace, all or none.
	listen  func([]userns.Socket) ([]*os.File, error)
	outlets *outlet.Outlets
	open    map[exit]bool
}

// has reports whether a socket inside is an exit.
func (e *exits) has(x exit) bool { return e != nil && e.open[x] }

// add opens sockets inside, all or none.
func (e *exits) add(list ...outletPort) error {
	sockets, bound := make([]userns.Socket, len(list)), make([]spec.Bound, len(list))
	for i := range list {
		sockets[i], bound[i] = list[i].socket, list[i].bound
	}
	files, err := e.listen(sockets)
	if err != nil {
		return err
	}
	if err := detach(files, bound); err != nil {
		return err
	}
	if err := e.outlets.Open(bound); err != nil {
		return err
	}
	for i := range list {
		e.open[exit{list[i].bound.Protocol, list[i].bound.Host}] = true
	}
	return nil
}

// shut closes a socket inside. Connections go on.
func (e *exits) shut(x exit) error {
	delete(e.open, x)
	return e.outlets.Shut([]spec.Bound{{FD: -1, Protocol: x.Protocol, Host: x.At}})
}

// detach gives the descriptors of files to bound, or closes them all.
func detach(files []*os.File, bound []spec.Bound) (err error) {
	for i, f := range files {
		var fd int
		raw, rawErr := f.SyscallConn()
		if rawErr == nil {
			rawErr = raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
		}
		f.Close()
		if err = errors.Join(err, rawErr); err != nil {
			continue
		}
		bound[i].FD = fd
	}
	if err != nil {
		spec.CloseAll(bound)
	}
	return err
}
