package spec

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Bound is one host socket of a published port.
type Bound struct {
	// FD is a non-blocking, close-on-exec descriptor: a listening TCP socket,
	// or a UDP socket that reports each datagram's destination address
	// (IP_PKTINFO, IPV6_RECVPKTINFO). Bound owns it until Close; -1 after that.
	FD       int
	Protocol Protocol
	// Host is the address and port that FD is bound to.
	Host netip.AddrPort
	// Port is where it leads to in the sandbox, at Child; the zero Addr means
	// every place where a server may be, see [Spec].
	Port  uint16
	Child netip.Addr
	// Spec is what asked for it.
	Spec Spec
}

// Key tells host sockets apart: of two with equal keys only one can be open.
type Key struct {
	Protocol  Protocol
	Host      netip.AddrPort
	Interface string
}

// Key is what the socket is known by, also when it is closed.
func (b *Bound) Key() Key { return Key{b.Protocol, b.Host, b.Spec.Interface} }

// Close closes the socket. Closing twice is harmless.
func (b *Bound) Close() error {
	if b.FD < 0 {
		return nil
	}
	fd := b.FD
	b.FD = -1
	return unix.Close(fd)
}

// CloseAll closes every socket of a list that [Bind] returned.
func CloseAll(bound []Bound) {
	for i := range bound {
		bound[i].Close()
	}
}

// Bind opens the host sockets of all specs, or none of them. TCP sockets listen
// when it returns, so early clients wait instead of being refused. The result
// is in the order of the specs, their ports, and 127.0.0.1 before ::1. Where
// the host has no IPv6 at all, the ::1 that a spec without HOSTIP implies is
// left out.
//
// The error is one line that names the socket, the spec, the cause and the way
// out; it wraps the system call's error.
func Bind(specs []Spec) ([]Bound, error) {
	if err := Check(specs); err != nil {
		return nil, err
	}
	b := binder{perSpec: make([][]Bound, len(specs))}
	// Named ports first: a port that the kernel picks must not be one that a
	// later spec names.
	err := b.bindAll(specs, func(s Spec) bool { return s.HostPort != 0 })
	if err == nil {
		err = b.bindAll(specs, func(s Spec) bool { return s.HostPort == 0 })
	}
	var bound []Bound
	for _, of := range b.perSpec {
		bound = append(bound, of...)
	}
	if err != nil {
		CloseAll(bound)
		return nil, err
	}
	return bound, nil
}

type binder struct{ perSpec [][]Bound }

func (b *binder) bindAll(specs []Spec, which func(Spec) bool) error {
	for i, s := range specs {
		if !which(s) {
			continue
		}
		for offset := range s.Count {
			port, err := s.bindPort(offset)
			if err != nil {
				return err
			}
			b.perSpec[i] = append(b.perSpec[i], port...)
		}
	}
	return nil
}

// A port that is free on 127.0.0.1 may be taken on ::1; this many are tried.
const freePortAttempts = 128

// bindPort opens the sockets of the spec's port number offset, one for each
// address.
func (s Spec) bindPort(offset int) ([]Bound, error) {
	if s.HostPort != 0 {
		bound, at, err := s.bindAddresses(offset, s.HostPort+uint16(offset))
		return bound, s.explain(at, err)
	}
	for attempt := 1; ; attempt++ {
		bound, at, err := s.bindAddresses(offset, 0)
		if !errors.Is(err, unix.EADDRINUSE) || attempt == freePortAttempts {
			return bound, s.explain(at, err)
		}
	}
}

// bindAddresses binds one port, chosen by the first socket if it is 0, on every
// address. On failure it says where.
func (s Spec) bindAddresses(offset int, port uint16) (bound []Bound, at netip.AddrPort, err error) {
	for _, a := range s.Addresses() {
		at = netip.AddrPortFrom(a, port)
		fd, local, err := s.open(at)
		if err != nil && a.Is6() && !s.HostIP.IsValid() && noIPv6(err) {
			continue
		}
		if err != nil {
			CloseAll(bound)
			return nil, at, err
		}
		port = local.Port()
		bound = append(bound, Bound{FD: fd, Protocol: s.Protocol, Host: local,
			Port: s.Port + uint16(offset), Child: s.Child, Spec: s})
	}
	return bound, at, nil
}

// noIPv6 tells from the error of binding ::1 that the kernel has no IPv6
// (ipv6.disable=1) or that it is switched off (disable_ipv6).
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// explain makes an error for the user of one from a system call.
func (s Spec) explain(at netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("publish %s: %w", at, s.cause(at, err))
}
