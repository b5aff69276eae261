package state

import (
	"io"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/rootless-containers/rootlesskit/v3/pkg/port"

	"sbxnet/portfwd/spec"
)

// A Loopback is a way to servers at a sandbox's loopback addresses: what is sent
// to 127.0.0.1 there arrives with its client's address, and what is to go to ::1
// is carried on within the sandbox.
type Loopback interface {
	// Open has a port of the sandbox's own IPv4 address lead to the one given of
	// ::1, and returns it.
	Open(p spec.Protocol, port uint16) (at uint16, err error)
	// Shut ends what Open has begun at that port. Connections go on.
	Shut(p spec.Protocol, at uint16) error
	// Close ends all of it.
	io.Closer
}

// lateLoopback is a sandbox's Loopback, which is started when it is asked for
// first: most sandboxes never need it.
type lateLoopback struct {
	start func() (Loopback, error) // nil: there is none
	log   *slog.Logger

	mu sync.Mutex
	// done: it was started, or will not be.
	done bool
	is   Loopback
}

// get returns it, or nil if there is none.
func (l *lateLoopback) get() Loopback {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.start == nil {
		return l.is
	}
	l.done = true
	is, err := l.start()
	if err != nil {
		l.log.Info("Docker 28 and later can open no IPv6 ports of the host: " + err.Error())
		return nil
	}
	l.is = is
	return is
}

// started returns it if get did, before.
func (l *lateLoopback) started() Loopback {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is
}

// close ends it, if it was started, and for good.
func (l *lateLoopback) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	is := l.is
	l.done, l.is = true, nil
	if is == nil {
		return nil
	}
	return is.Close()
}

// A way leads to ::1 in the sandbox; the zero one leads nowhere.
type way struct {
	loopback Loopback
	protocol spec.Protocol
	at       uint16
}

func (w way) open() bool { return w.loopback != nil }

// shut closes the way. That it cannot be is no loss: what began it has ended.
func (w way) shut() {
	if w.open() {
		_ = w.loopback.Shut(w.protocol, w.at)
	}
}

// lead has specs, which are of s, lead to where they are to by the sandbox's
// Loopback, if anybody has been told of that: else they lead to every place where
// a server may be.
func (d *portDriver) lead(s port.Spec, specs []spec.Spec) (way, error) {
	child := address(s.ChildIP)
	if !child.IsLoopback() {
		return way{}, nil
	}
	l := d.loopback.started()
	if l == nil {
		return way{}, nil
	}
	if child.Is4() {
		for i := range specs {
			specs[i].Child = child
		}
		return way{}, nil
	}
	w := way{loopback: l, protocol: specs[0].Protocol}
	var err error
	if w.at, err = l.Open(w.protocol, specs[0].Port); err != nil {
		return way{}, err
	}
	for i := range specs {
		specs[i].Child, specs[i].Port = d.relay, w.at
	}
	return w, nil
}

// firstIPv4 is the address at which ways to ::1 begin.
func (sb *Sandbox) firstIPv4() netip.Addr {
	for _, a := range sb.Addresses {
		if a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
