package outlet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"sbxnet/portfwd/spec"
)

// Config is what [New] is given; all of it may be zero.
type Config struct {
	Limits Limits
	// Logger receives failed connections at debug level. nil discards.
	Logger *slog.Logger
}

// Limits bounds what all outlets hold together. Zero fields take defaults.
type Limits struct {
	Connections int           // further ones are reset; default 1024
	Flows       int           // of UDP; datagrams of further clients are dropped; default 1024
	Connect     time.Duration // until the host's server has answered; default 30 s
	IdleFlow    time.Duration // without a datagram either way; default 120 s
}

func (l *Limits) setDefaults() {
	if l.Connections <= 0 {
		l.Connections = 1024
	}
	if l.Flows <= 0 {
		l.Flows = 1024
	}
	if l.Connect <= 0 {
		l.Connect = 30 * time.Second
	}
	if l.IdleFlow <= 0 {
		l.IdleFlow = 120 * time.Second
	}
}

// Outlets are the ports that lead out of one sandbox. The methods may be called
// from any goroutine.
type Outlets struct {
	cfg     Config
	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	// connections and flows have room for as many as there may be.
	connections, flows chan struct{}

	mu   sync.Mutex
	open map[spec.Key]socket
}

// socket is a listening socket, TCP or UDP.
type socket interface{ Close() error }

// errClosed is what Open says after Close.
var errClosed = errors.New("outlets closed")

// New returns a set of outlets, none yet.
func New(cfg Config) *Outlets {
	cfg.Limits.setDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	o := &Outlets{
		cfg: cfg, open: make(map[spec.Key]socket),
		connections: make(chan struct{}, cfg.Limits.Connections), flows: make(chan struct{}, cfg.Limits.Flows),
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// Open takes over sockets that were bound in the sandbox, also when it fails, and
// begins to accept on them: all or none. Bound.Port is where they lead on the
// host, at Bound.Child; if that is the zero Addr, on the host's loopback of the
// socket's family.
func (o *Outlets) Open(bound []spec.Bound) error {
	defer spec.CloseAll(bound) // the net package has its own descriptors
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return errClosed
	}
	opened := make(map[spec.Key]socket)
	var starts []func()
	for i := range bound {
		k := bound[i].Key()
		s, start, err := o.prepare(&bound[i])
		if err == nil && (o.open[k] != nil || opened[k] != nil) {
			s.Close()
			err = errors.New("it leads out already")
		}
		if err != nil {
			for _, s := range opened {
				s.Close()
			}
			return fmt.Errorf("outlet %s/%s: %w", k.Host, k.Protocol, err)
		}
		opened[k], starts = s, append(starts, start)
	}
	for k, s := range opened {
		o.open[k] = s
	}
	for _, start := range starts {
		o.running.Go(start)
	}
	return nil
}

// prepare makes a socket of the net package's, and what serves it.
func (o *Outlets) prepare(b *spec.Bound) (s socket, serve func(), err error) {
	to := netip.AddrPortFrom(b.Child, b.Port)
	if !b.Child.IsValid() {
		loopback := netip.IPv6Loopback()
		if b.Host.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		to = netip.AddrPortFrom(loopback, b.Port)
	}
	if b.Port == 0 {
		return nil, nil, errors.New("there is no port 0 on the host")
	}
	f := os.NewFile(uintptr(b.FD), b.Host.String())
	if f == nil {
		return nil, nil, os.ErrClosed
	}
	b.FD = -1 // f's
	defer f.Close()
	if b.Protocol == spec.UDP {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, nil, err
		}
		u, ok := c.(*net.UDPConn)
		if !ok {
			c.Close()
			return nil, nil, errors.New("not a UDP socket")
		}
		return u, func() { o.receive(u, to) }, nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, nil, err
	}
	return l, func() { o.accept(l, to) }, nil
}

// Shut closes the sockets with the keys of bound, whose descriptors do not
// matter, or none of them if one is not open. Connections go on.
func (o *Outlets) Shut(bound []spec.Bound) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range bound {
		if k := bound[i].Key(); o.open[k] == nil {
			return fmt.Errorf("outlet %s/%s: there is none", k.Host, k.Protocol)
		}
	}
	for i := range bound {
		k := bound[i].Key()
		if s := o.open[k]; s != nil { // else named twice
			s.Close()
			delete(o.open, k)
		}
	}
	return nil
}

// Close closes all sockets, resets all connections, and waits until no goroutine
// is left. Closing twice is harmless.
func (o *Outlets) Close() error {
	o.mu.Lock()
	o.cancel()
	for _, s := range o.open {
		s.Close()
	}
	clear(o.open)
	o.mu.Unlock()
	o.running.Wait()
	return nil
}

// enter takes one of the places in room, unless there is none.
func enter(room chan struct{}) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
		return false
	}
}

// retry is how long a socket rests after an error that may pass.
const retry = 100 * time.Millisecond

// rest waits for that long, or until Close.
func (o *Outlets) rest() {
	select {
	case <-time.After(retry):
	case <-o.ctx.Done():
	}
}
