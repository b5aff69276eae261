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

// addOutward takes a value of -T or -U. Of the modes, those that leave it to us
// what leads out are taken for none: nothing of the host's loopback is in the
// sandbox without being named.
func (p *ports) addOutward(name, value string) error {
	if err := p.add(value); err != nil {
		return err
	}
	if p.All {
		return fmt.Errorf("--%s %s: name the ports that are to lead out", name, console.Shown(value))
	}
	*p = ports{Forwards: p.Forwards}
	return nil
}

// settleOutward is settle for -T and -U.
func (p *ports) settleOutward() error {
	p.said = true
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

// leadsOut reports whether a port inside leads to the host.
func (o *options) leadsOut() bool { return len(o.TCPOut.Forwards)+len(o.UDPOut.Forwards) > 0 }

// An outletPort is a socket inside and where it leads on the host.
type outletPort struct {
	socket userns.Socket
	bound  spec.Bound
}

// outlets are the sockets of -T and -U; without an address, on loopback of both
// families.
func (o *options) outlets(ipv6 bool) []outletPort {
	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if ipv6 {
		loopback = append(loopback, netip.IPv6Loopback())
	}
	var all []outletPort
	for _, of := range []struct {
		protocol spec.Protocol
		ports    *ports
	}{{spec.TCP, &o.TCPOut}, {spec.UDP, &o.UDPOut}} {
		for _, f := range of.ports.Forwards {
			hosts := loopback
			if f.Host.IsValid() {
				hosts = []netip.Addr{f.Host}
			}
			for i := range int(f.Last-f.First) + 1 {
				for _, h := range hosts {
					at := netip.AddrPortFrom(h, f.First+uint16(i))
					all = append(all, outletPort{
						socket: userns.Socket{UDP: of.protocol == spec.UDP, Addr: at, Interface: f.Interface},
						bound:  spec.Bound{FD: -1, Protocol: of.protocol, Host: at, Port: f.ToFirst + uint16(i), Child: f.To},
					})
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
	list := s.options.outlets(hasIPv6())
	sockets := make([]userns.Socket, len(list))
	for i := range list {
		sockets[i] = list[i].socket
	}
	files, err := s.attachment.Listen(sockets)
	if err != nil {
		return fmt.Errorf("ports that lead out: %w", err)
	}
	bound := make([]spec.Bound, len(list))
	for i := range list {
		bound[i] = list[i].bound
	}
	if err := detach(files, bound); err != nil {
		return err
	}
	out := outlet.New(outlet.Config{Logger: s.log})
	if err := out.Open(bound); err != nil {
		return errors.Join(fmt.Errorf("ports that lead out: %w", err), out.Close())
	}
	s.onClose(out.Close)
	return nil
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
