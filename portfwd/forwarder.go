package portfwd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sbxnet/netstack/socket"
	"sbxnet/portfwd/dhcp"
)

// Forwarder carries a sandbox's traffic from New until Close.
type Forwarder struct {
	cfg       Config
	policy    policy
	ports     ports
	epoch     time.Time
	debug     bool
	shards    []*shard
	directory directory
	diverted  diverted
	asking    sync.WaitGroup // questions to Config.Diverter
	conflicts conflicts
	dhcp      *dhcp.Server // nil: nobody is served
	// pingForbidden tells of it, by whichever shard finds out first.
	pingForbidden sync.Once

	mu      sync.Mutex
	started bool
	closed  bool
	err     error
	nets    []*socket.Net
	running sync.WaitGroup
	done    chan struct{}
	closing sync.Once
	// closeErr is what Close returns; abandoned is closed when it waits no longer.
	closeErr  error
	abandoned chan struct{}
}

// closeMost is how long Close waits for shards, which take milliseconds; tests have
// less time.
var closeMost = 5 * time.Second

// errClosed ends what waits for a forwarder that was closed.
var errClosed = errors.New("forwarder closed")

// New prepares a forwarder. Published ports wait, and no frame is read, until
// Start. After an error the published sockets are closed.
func New(cfg Config) (*Forwarder, error) {
	cfg.setDefaults()
	f := &Forwarder{
		cfg: cfg, epoch: time.Now(), done: make(chan struct{}), abandoned: make(chan struct{}),
		policy: newPolicy(&cfg), debug: cfg.Logger.Enabled(context.Background(), slog.LevelDebug),
	}
	f.ports.sockets = newInsideSockets(&f.cfg)
	published := take(cfg.Published)
	err := cfg.check()
	if err == nil {
		f.dhcp, err = cfg.dhcpServer()
	}
	if err == nil {
		err = f.makeShards()
	}
	if err == nil {
		err = f.ports.add(f, published)
	}
	if err != nil {
		for _, s := range f.shards {
			s.close()
		}
		closePorts(published)
		return nil, err
	}
	return f, nil
}

func (f *Forwarder) makeShards() error {
	for i, q := range f.cfg.Link.Queues() {
		var seed [32]byte
		rand.Read(seed[:])
		s, err := newShard(f, i, q, seed)
		if err != nil {
			return fmt.Errorf("start forwarding: %w", err)
		}
		f.shards = append(f.shards, s)
	}
	return nil
}

// debugs reports whether flows are logged. It is asked before a record is made.
func (f *Forwarder) debugs() bool { return f.debug }

// Start begins to forward. After an error the caller still calls Close.
func (f *Forwarder) Start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started || f.closed {
		return errors.New("forwarder was started before")
	}
	f.started = true
	for _, s := range f.shards {
		f.running.Go(func() {
			if err := s.run(); err != nil {
				f.fail(err)
			}
		})
	}
	for _, s := range f.shards {
		if err := f.serveNames(s); err != nil {
			return err
		}
	}
	if err := f.ports.start(f); err != errShardEnded {
		return err
	}
	return f.reason()
}

// call runs f on the shard's goroutine and waits for it. It reports false if
// the shard has ended instead, or is waited for no longer: it may yet run f then.
func (s *shard) call(f func()) bool {
	ran := make(chan struct{})
	if !s.loop.Post(func() { f(); close(ran) }) {
		return false
	}
	select {
	case <-ran:
		return true
	case <-s.abandoned:
		return false
	case <-s.ended:
		select {
		case <-ran:
			return true
		default:
			return false
		}
	}
}

// fail notes why a shard ended; the first reason stands.
func (f *Forwarder) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.closed {
		return
	}
	f.err = err
	close(f.done)
}

func (f *Forwarder) reason() error {
	if err := f.err; err != nil {
		return err
	}
	return errClosed
}

// Done is closed when forwarding has ended by itself, because the link is gone,
// or by Close. Err then says why.
func (f *Forwarder) Done() <-chan struct{} { return f.done }

// Err is why forwarding has ended by itself, or nil.
func (f *Forwarder) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Stats collects the counters. It returns the zero Stats when forwarding has
// ended.
func (f *Forwarder) Stats() Stats {
	var st Stats
	for _, s := range f.shards {
		var one Stats // not shared with a closure that is too late
		if s.call(func() { one = st; one.add(s) }) {
			st = one
		}
	}
	if f.dhcp != nil {
		st.DHCP = f.dhcp.Stats()
	}
	return st
}

// Close ends all flows, closes the published sockets and waits until no
// goroutine is left. It waits for seconds at most: who has every capability in the
// sandbox may have a shard stand still in a call of the kernel's, by a socket that was
// made there. That is an error; the host's ports are free then too, but the link is
// to stay open. Closing twice is harmless, and returns the same.
func (f *Forwarder) Close() error {
	f.closing.Do(f.close)
	return f.closeErr
}

func (f *Forwarder) close() {
	f.mu.Lock()
	nets := f.nets
	started := f.started
	f.closed = true
	f.mu.Unlock()
	for _, n := range nets {
		n.Close()
	}
	for _, s := range f.shards {
		if started {
			s.loop.Post(func() { s.stop = true })
		} else {
			s.close()
		}
	}
	ended := make(chan struct{})
	go func() {
		f.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		f.asking.Wait() // a Diverter has a time limit of its own
		f.ports.close()
	case <-time.After(closeMost):
		f.abandon(ended)
	}
	f.mu.Lock()
	if f.err == nil {
		close(f.done)
	}
	f.mu.Unlock()
}

// abandon leaves shards that do not end to themselves. Should they, the rest is
// closed.
func (f *Forwarder) abandon(ended <-chan struct{}) {
	still := 0
	for _, s := range f.shards {
		select {
		case <-s.ended:
		default:
			still++
		}
	}
	f.closeErr = fmt.Errorf("stop forwarding: %d of %d threads still wait for the kernel after %v, as when a process in the sandbox has had its sockets block: they end with this process",
		still, len(f.shards), closeMost)
	close(f.abandoned)
	f.ports.vacate()
	go func() {
		<-ended
		f.asking.Wait()
		f.ports.close()
	}()
}

// isAbandoned reports whether shards may still do what call has given up.
func (f *Forwarder) isAbandoned() bool {
	select {
	case <-f.abandoned:
		return true
	default:
		return false
	}
}
