package portfwd

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/spec"
)

// ports are the published ports. They outlive the shards that serve them: their
// sockets are closed by Unpublish and Close only, so that a port is not lost to
// somebody else while the sandbox still runs.
type ports struct {
	mu   sync.Mutex // not held while waiting for Forwarder.mu
	list []*port    // as they were published
	next int        // shard for the next one
	// serving is set by Start, closed by Close.
	serving, closed bool
	sockets         *insideSockets // nil: all connections go over the link
}

// port is one published port, on its shard.
type port struct {
	bound spec.Bound
	shard *shard
	serve portServer // nil while nobody accepts
}

// portServer is a port as its shard knows it.
type portServer interface {
	// unpublish is called on the shard's goroutine. The socket is closed next,
	// and the server no longer uses it.
	unpublish()
}

// Publish takes over bound host sockets and begins to accept on them; before
// Start they wait. The descriptors in bound are the forwarder's from then on,
// and -1 in the caller's. They are closed by Unpublish, by Close, and when
// Publish fails, which it does for all of them or none.
func (f *Forwarder) Publish(bound []spec.Bound) error {
	added := take(bound)
	err := f.ports.add(f, added)
	if err == errShardEnded {
		err = f.Err()
		if err == nil {
			err = errClosed
		}
	}
	return err
}

// Unpublish closes the sockets that have the same [spec.Key] as those in bound,
// whose descriptors do not matter. The host's ports are free when it returns.
// Connections that are established go on, UDP flows end. If one of them is not
// published, that is an error and all stay.
func (f *Forwarder) Unpublish(bound []spec.Bound) error {
	f.ports.mu.Lock()
	defer f.ports.mu.Unlock()
	removed, err := f.ports.find(bound)
	if err != nil {
		return err
	}
	f.ports.remove(f, removed)
	return nil
}

// Published lists what is published, in the order in which it was, without
// descriptors.
func (f *Forwarder) Published() []spec.Bound {
	f.ports.mu.Lock()
	defer f.ports.mu.Unlock()
	list := make([]spec.Bound, 0, len(f.ports.list))
	for _, p := range f.ports.list {
		b := p.bound
		b.FD = -1
		list = append(list, b)
	}
	return list
}

// take moves the sockets out of the caller's hands.
func take(bound []spec.Bound) []*port {
	taken := make([]*port, 0, len(bound))
	for i := range bound {
		taken = append(taken, &port{bound: bound[i]})
		bound[i].FD = -1
	}
	return taken
}

func closePorts(list []*port) {
	for _, p := range list {
		p.bound.Close()
	}
}

// errShardEnded says that a port cannot be served; the forwarder knows why.
var errShardEnded = errors.New("shard ended")

// add publishes all of added, or none, and closes them then.
func (t *ports) add(f *Forwarder, added []*port) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		if err != nil {
			closePorts(added)
		}
	}()
	if t.closed {
		return errClosed
	}
	if err := t.check(f, added); err != nil {
		return err
	}
	for _, p := range added {
		p.shard = f.shards[t.next%len(f.shards)]
		t.next++
	}
	if t.serving {
		if err := f.serve(added); err != nil {
			f.unserve(added)
			if !f.isAbandoned() {
				return err
			}
			t.list, added = append(t.list, added...), nil // vacate closes them
			return err
		}
	}
	t.list = append(t.list, added...)
	return nil
}

// check looks for what cannot be published.
func (t *ports) check(f *Forwarder, added []*port) error {
	known := make(map[spec.Key]bool, len(t.list)+len(added))
	for _, p := range t.list {
		known[p.bound.Key()] = true
	}
	for _, p := range added {
		k := p.bound.Key()
		if known[k] {
			return fmt.Errorf("publish %s/%s: it is published already", k.Host, k.Protocol)
		}
		known[k] = true
		if err := f.cfg.publishable(&p.bound); err != nil {
			return fmt.Errorf("publish %s/%s: %w", k.Host, k.Protocol, err)
		}
	}
	return nil
}

// publishable reports why a port could lead nowhere.
func (c *Config) publishable(b *spec.Bound) error {
	switch {
	case b.Protocol == spec.TCP && c.NoTCP, b.Protocol == spec.UDP && c.NoUDP:
		return fmt.Errorf("the sandbox's network does without %s", b.Protocol)
	case b.Protocol != spec.TCP && b.Protocol != spec.UDP:
		return fmt.Errorf("unknown protocol %q", string(b.Protocol))
	case b.Port == 0:
		return errors.New("there is no port 0 in the sandbox")
	}
	return c.leadsIn(b.Child)
}

// leadsIn reports why child is no address in the sandbox.
func (c *Config) leadsIn(child netip.Addr) error {
	if !child.IsValid() || child == loopback6 {
		return nil
	}
	family := c.IPv4
	if !child.Is4() {
		family = c.IPv6
	}
	switch {
	case !family.enabled():
		return fmt.Errorf("the sandbox has no address of the family of %v", child)
	case child.IsLoopback():
		return nil
	case child == family.Gateway || child == family.DNS,
		neverRouted(child), child.IsMulticast(), isBroadcast(child, family.Prefix), child.Zone() != "":
		return fmt.Errorf("%v is no address in the sandbox: leave it out, or name one such as %v", child, family.Sandbox)
	}
	return nil
}

// find returns the ports that bound names, each once.
func (t *ports) find(bound []spec.Bound) ([]*port, error) {
	byKey := make(map[spec.Key]*port, len(t.list))
	for _, p := range t.list {
		byKey[p.bound.Key()] = p
	}
	found := make([]*port, 0, len(bound))
	for i := range bound {
		k := bound[i].Key()
		p := byKey[k]
		if p == nil {
			return nil, fmt.Errorf("unpublish %s/%s: it is not published", k.Host, k.Protocol)
		}
		delete(byKey, k)
		found = append(found, p)
	}
	return found, nil
}

func (t *ports) remove(f *Forwarder, removed []*port) {
	if t.serving {
		f.unserve(removed)
	}
	if f.isAbandoned() {
		return // vacate closes them
	}
	closePorts(removed)
	gone := make(map[*port]bool, len(removed))
	for _, p := range removed {
		gone[p] = true
	}
	var left []*port
	for _, p := range t.list {
		if !gone[p] {
			left = append(left, p)
		}
	}
	t.list = left
}

// start begins to serve what has waited for Start.
func (t *ports) start(f *Forwarder) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serving = true
	return f.serve(t.list)
}

// close closes all sockets, after the shards have ended.
func (t *ports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	closePorts(t.list)
	t.list = nil
	t.sockets.close()
}

// vacate closes the host's sockets while shards may still use their descriptors, which
// go on to be none of anybody else's until close.
func (t *ports) vacate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	nothing, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil { // the ports are more urgent
		closePorts(t.list)
		return
	}
	defer unix.Close(nothing)
	for _, p := range t.list {
		if p.bound.FD >= 0 {
			_ = unix.Dup3(nothing, p.bound.FD, unix.O_CLOEXEC)
		}
	}
}

// onShards calls do for each port on its shard's goroutine, with one visit to
// each shard, which goes up to its first error. It returns one shard's,
// errShardEnded if one has ended.
func (f *Forwarder) onShards(list []*port, do func(*port) error) (first error) {
	byShard := make(map[*shard][]*port)
	for _, p := range list {
		byShard[p.shard] = append(byShard[p.shard], p)
	}
	for s, some := range byShard {
		var done error // not to be looked at where the closure is too late
		err := errShardEnded
		if s.call(func() {
			for i := 0; i < len(some) && done == nil; i++ {
				done = do(some[i])
			}
		}) {
			err = done
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (f *Forwarder) serve(list []*port) error {
	return f.onShards(list, func(p *port) (err error) {
		if p.bound.Protocol == spec.UDP {
			p.serve, err = p.shard.publishUDP(&p.bound)
		} else {
			p.serve, err = p.shard.publishTCP(&p.bound)
			f.ports.sockets.fill()
		}
		if err != nil {
			p.serve = nil
			return fmt.Errorf("publish %s: %w", p.bound.Host, err)
		}
		return nil
	})
}

// unserve has the shards let go of the ports that they serve. A shard that has
// ended has done so.
func (f *Forwarder) unserve(list []*port) {
	f.onShards(list, func(p *port) error {
		if p.serve != nil {
			p.serve.unpublish()
			p.serve = nil
		}
		return nil
	})
}
