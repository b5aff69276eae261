package socket

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"

	"sbxnet/netstack"
)

// Runner runs closures on the goroutine that owns a stack.
type Runner interface {
	// Post has f called by the stack's owner, in the order of the Posts, before
	// it next calls Flush. It may be called from any goroutine, also the owner's,
	// must not call f itself, and reports whether the owner is still there.
	Post(f func()) bool
}

// Net is the sockets of one stack. Its methods, and those of its sockets, may be
// called from any goroutine.
type Net struct {
	stack     *netstack.Stack
	runner    Runner
	addresses []netip.Prefix
	loop      *loop // that Start made; nil with New

	mu      sync.Mutex
	sockets map[abandoner]struct{} // nil once closed
	closed  chan struct{}
}

// abandoner is a socket, seen from the Net that it is open in.
type abandoner interface {
	io.Closer
	// abandon makes every call on the socket fail with err from now on.
	abandon(err error)
}

// New returns the sockets of a stack that runner's goroutine owns. addresses are
// the stack's own, as in netstack.Config: sockets that are not told otherwise
// connect from the one whose prefix holds the remote address, or from the first
// of its family. Whoever ends the stack's owner calls Close before that, or
// calls that wait will wait for ever.
func New(stack *netstack.Stack, runner Runner, addresses []netip.Prefix) *Net {
	return &Net{
		stack: stack, runner: runner, addresses: slices.Clone(addresses),
		sockets: make(map[abandoner]struct{}), closed: make(chan struct{}),
	}
}

// Close closes all sockets. With a stack of [Start] it also ends its loop, after
// one more turn in which the sockets' farewells go out, and waits for that.
func (n *Net) Close() error {
	for s := range n.retire() {
		s.Close()
	}
	if n.loop != nil {
		n.loop.stop()
	}
	return nil
}

// fail makes every call on the sockets fail with err: there is no owner any more.
func (n *Net) fail(err error) {
	for s := range n.retire() {
		s.abandon(err)
	}
}

// retire lets no new sockets in and returns those that there are.
func (n *Net) retire() map[abandoner]struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	sockets := n.sockets
	n.sockets = nil
	if sockets != nil {
		close(n.closed)
	}
	return sockets
}

// Done is closed when the sockets are: by Close, or because the loop that
// [Start] began has ended.
func (n *Net) Done() <-chan struct{} { return n.closed }

// Stats returns the stack's counters, as its owner sees them between two turns.
// It fails with net.ErrClosed when that owner has ended.
func (n *Net) Stats() (stats netstack.Stats, err error) {
	got := make(chan netstack.Stats, 1)
	if err := n.do(func() { got <- n.stack.Stats() }); err != nil {
		return stats, err
	}
	return <-got, nil
}

// register fails once n is closed.
func (n *Net) register(s abandoner) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets == nil {
		return net.ErrClosed
	}
	n.sockets[s] = struct{}{}
	return nil
}

func (n *Net) forget(s abandoner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.sockets, s)
}

// do runs f on the owner's goroutine and waits for it.
func (n *Net) do(f func()) error {
	done := make(chan struct{})
	if !n.runner.Post(func() { f(); close(done) }) {
		return net.ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-n.closed:
		return net.ErrClosed
	}
}

// source is the address of ours from which to reach remote.
func (n *Net) source(remote netip.Addr) (netip.Addr, bool) {
	var best netip.Addr
	for _, p := range n.addresses {
		if p.Addr().Is4() != remote.Is4() {
			continue
		}
		if p.Masked().Contains(remote) {
			return p.Addr(), true
		}
		if !best.IsValid() {
			best = p.Addr()
		}
	}
	return best, best.IsValid()
}
