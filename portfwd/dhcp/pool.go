package dhcp

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// client is who asks.
type client struct {
	id      string     // the identifier: of one machine, as it says
	key     string     // the identifier with the IAID: of one address
	station header.MAC // whence the message came
}

type leaseState uint8

const (
	free leaseState = iota // or given back: key is the last client's
	offered
	bound
	declined
)

// lease is one address of a pool.
type lease struct {
	addr  netip.Addr
	state leaseState
	until timer.Instant // of all states but free
	client
}

// pool is the addresses of a family. leases has a fixed length; the sandbox's
// own address, if it is given out, is the first.
type pool struct {
	leases   []lease
	byAddr   map[netip.Addr]int
	byKey    map[string]int
	reserved bool       // leases[0] is the owner's
	owner    header.MAC // zero: nobody has asked yet
	fixed    bool       // owner was told, not found
	now      timer.Instant
}

func (p *pool) init(f *Family, owner header.MAC) {
	if !f.served() {
		return
	}
	p.byAddr, p.byKey = make(map[netip.Addr]int), make(map[string]int)
	p.owner, p.fixed = owner, !owner.IsZero()
	if f.Sandbox.IsValid() {
		p.reserved = true
		p.add(f.Sandbox)
	}
	for a := f.Range.First; a.IsValid() && !f.Range.Last.Less(a) && len(p.leases) < MaxLeases; a = a.Next() {
		if a != f.Sandbox && f.isHost(a) {
			p.add(a)
		}
	}
}

func (p *pool) add(a netip.Addr) {
	p.byAddr[a] = len(p.leases)
	p.leases = append(p.leases, lease{addr: a})
}

// taken counts the addresses that are not to be had, as of the last request.
func (p *pool) taken() (n int) {
	for i := range p.leases {
		if l := &p.leases[i]; l.state != free && p.now.Before(l.until) {
			n++
		}
	}
	return n
}

// at is the lease of an address, or nil if it is not the pool's.
func (p *pool) at(a netip.Addr) *lease {
	if i, ok := p.byAddr[a]; ok {
		return &p.leases[i]
	}
	return nil
}

// of is what c has or had last, or nil.
func (p *pool) of(c client) *lease {
	if i, ok := p.byKey[c.key]; ok {
		return &p.leases[i]
	}
	return nil
}

// current is what c has now, offered or bound, or nil.
func (p *pool) current(c client) *lease {
	l := p.of(c)
	if l == nil || l.state == free || !p.now.Before(l.until) {
		return nil
	}
	return l
}

// available reports whether l may be given to c.
func (p *pool) available(l *lease, c client) bool {
	mine := p.reserved && l == &p.leases[0]
	if mine && !p.mayOwn(c) {
		return false
	}
	if l.state == free || !p.now.Before(l.until) || l.state != declined && l.key == c.key {
		return true
	}
	// The owner under another identifier.
	return mine && l.state != declined && l.station == c.station && l.id != c.id
}

// mayOwn reports whether c may have the owner's address. An owner that was told
// is the only one; one that was merely the first keeps it while its lease runs.
func (p *pool) mayOwn(c client) bool {
	if p.owner.IsZero() || p.owner == c.station {
		return true
	}
	l := &p.leases[0]
	return !p.fixed && l.state != declined && !p.now.Before(l.until)
}

// choose finds an address for c: the one it has or had, the owner's if it is
// the owner, the one it wishes for, one that nobody has had, or that whose last
// client has been gone longest. It returns nil if there is none.
func (p *pool) choose(c client, wish netip.Addr) *lease {
	if l := p.of(c); l != nil && p.available(l, c) {
		return l
	}
	if p.reserved && p.available(&p.leases[0], c) {
		return &p.leases[0]
	}
	if l := p.at(wish); l != nil && p.available(l, c) {
		return l
	}
	var best *lease
	for i := range p.leases {
		l := &p.leases[i]
		if !p.available(l, c) {
			continue
		}
		if l.key == "" {
			return l
		}
		if best == nil || l.until < best.until {
			best = l
		}
	}
	return best
}

// give makes l the address of c until the given instant.
func (p *pool) give(l *lease, c client, s leaseState, until timer.Instant) {
	if old := p.of(c); old != nil && old != l {
		p.forget(old)
		old.state = free
	}
	p.forget(l)
	if s == offered && l.state == bound && p.now.Before(l.until) {
		s, until = bound, l.until // an offer takes nothing away
	}
	l.state, l.until, l.client = s, until, c
	i := p.byAddr[l.addr]
	p.byKey[c.key] = i
	if p.reserved && i == 0 && !p.fixed {
		p.owner = c.station
	}
}

// forget cuts the tie between a lease and its client.
func (p *pool) forget(l *lease) {
	if l.key != "" {
		delete(p.byKey, l.key)
	}
	l.client = client{}
}

// release frees what c has, and remembers it.
func (p *pool) release(l *lease) { l.state, l.until = free, p.now }

// decline takes an address out of use that somebody else has.
func (p *pool) decline(l *lease) {
	p.forget(l)
	l.state, l.until = declined, p.now.Add(declineTime)
}
