package neighbor

import (
	"net/netip"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Times of RFC 4861 §10. ARP uses the same.
const (
	ReachableTime = 30 * time.Second
	RetransTime   = time.Second
	MaxSolicits   = 3 // multicast while incomplete, unicast while probing
)

// Limits bound the cache. Zero fields take the defaults.
type Limits struct {
	Entries    int // static ones not counted
	HeldFrames int // of one incomplete neighbour
	HeldBytes  int // of one incomplete neighbour
}

// The defaults of [Limits].
const (
	DefaultEntries    = 256
	DefaultHeldFrames = 64
	DefaultHeldBytes  = 128 << 10
)

// Link is what a cache needs of the stack around it.
type Link interface {
	// Solicit asks for addr's Ethernet address: of everyone if to is
	// [header.Broadcast], else of that station only. The family decides
	// what everyone means.
	Solicit(addr netip.Addr, to header.MAC)
	// Release sends a held frame, whose Ethernet destination is filled in now.
	Release(f *Held)
	// Abandon is told of a held frame whose neighbour did not answer, so that
	// it will not be sent.
	Abandon(f *Held)
}

type state uint8

const (
	incomplete state = iota
	reachable
	stale
	probe
	static
)

type entry struct {
	addr     netip.Addr
	mac      header.MAC
	state    state
	solicits int // sent in this state
	used     timer.Instant
	held     []*Held
	bytes    int
	timer    timer.Timer
}

// Cache maps addresses of one family to stations. Its one owner passes the
// time in.
type Cache struct {
	limits  Limits
	link    Link
	timers  *timer.Queue
	entries map[netip.Addr]*entry
	dynamic int
	gen     uint32
	pinning []*Held // held frames whose payload is not yet their own
	stats   Stats
}

// Stats counts what happened in a cache.
type Stats struct {
	Resolved     uint64 // entries that got their first answer
	Failed       uint64 // entries given up for want of an answer
	Contradicted uint64 // claims that did not match and were not asked for
	Evicted      uint64 // entries that made room
	HeldDropped  uint64 // frames that found no room to wait, or waited in vain
}

// New returns an empty cache. timers is the owner's to run, and may be shared.
func New(limits Limits, link Link, timers *timer.Queue) *Cache {
	setDefault(&limits.Entries, DefaultEntries)
	setDefault(&limits.HeldFrames, DefaultHeldFrames)
	setDefault(&limits.HeldBytes, DefaultHeldBytes)
	return &Cache{limits: limits, link: link, timers: timers, entries: make(map[netip.Addr]*entry)}
}

func setDefault(n *int, def int) {
	if *n <= 0 {
		*n = def
	}
}

// Generation changes whenever what Lookup answered before may no longer be so.
// Whoever keeps an answer, such as a ready-made header, compares it.
func (c *Cache) Generation() uint32 { return c.gen }

// Stats returns the counters.
func (c *Cache) Stats() Stats { return c.stats }

// Len is the number of entries, static ones included.
func (c *Cache) Len() int { return len(c.entries) }

// AddStatic makes an entry that never expires, that no message changes, and that
// does not count against Limits.Entries.
func (c *Cache) AddStatic(addr netip.Addr, mac header.MAC) {
	c.remove(addr)
	c.entries[addr] = &entry{addr: addr, mac: mac, state: static}
	c.gen++
}

// Lookup returns addr's Ethernet address, if it is known well enough to send
// to. If not, it has begun to ask: see [Cache.Hold].
func (c *Cache) Lookup(now timer.Instant, addr netip.Addr) (mac header.MAC, ok bool) {
	e := c.entries[addr]
	if e == nil {
		e = c.open(now, addr, incomplete)
		c.solicit(now, e)
	}
	e.used = now
	if e.state == stale {
		e.state, e.solicits = probe, 0
		c.solicit(now, e)
	}
	return e.mac, e.state != incomplete
}

// Answered takes in a reply that addr is at mac. It counts as an answer only
// if we asked (RFC 4861 §7.2.5).
func (c *Cache) Answered(now timer.Instant, addr netip.Addr, mac header.MAC) {
	e := c.entries[addr]
	switch {
	case e == nil || e.state == static:
	case e.state == incomplete:
		c.learn(now, e, mac, reachable)
	case e.state == probe:
		c.confirm(now, e, mac)
	default:
		c.claim(e, mac)
	}
}

// Heard takes in that addr, at mac, wants something of us: that is where our
// answer goes (RFC 826, RFC 4861 §7.2.3). It makes entries and completes them,
// but does not overwrite.
func (c *Cache) Heard(now timer.Instant, addr netip.Addr, mac header.MAC) {
	if c.entries[addr] == nil {
		c.open(now, addr, stale).mac = mac
		return
	}
	c.Claimed(now, addr, mac)
}

// Claimed takes in what was said to everyone, such as a gratuitous ARP or an
// unsolicited advertisement. It completes an entry that is being asked for, and
// neither makes nor overwrites one.
func (c *Cache) Claimed(now timer.Instant, addr netip.Addr, mac header.MAC) {
	e := c.entries[addr]
	switch {
	case e == nil || e.state == static:
	case e.state == incomplete:
		c.learn(now, e, mac, stale)
	default:
		c.claim(e, mac)
	}
}

// learn gives an incomplete entry its address and sends what waited for it.
func (c *Cache) learn(now timer.Instant, e *entry, mac header.MAC, s state) {
	e.mac, e.state, e.solicits = mac, s, 0
	c.stats.Resolved++
	c.timers.Disarm(&e.timer)
	if s == reachable {
		c.timers.Arm(&e.timer, now.Add(ReachableTime))
	}
	c.gen++
	held := e.held
	e.held, e.bytes = nil, 0
	for _, f := range held {
		f.left = true
		f.address(mac)
		c.link.Release(f)
	}
}

// confirm ends a probe, with the address that answered.
func (c *Cache) confirm(now timer.Instant, e *entry, mac header.MAC) {
	if e.mac != mac {
		e.mac = mac
		c.gen++
	}
	e.state = reachable
	c.timers.Arm(&e.timer, now.Add(ReachableTime))
}

// claim weighs what nobody asked for: it never changes an address.
func (c *Cache) claim(e *entry, mac header.MAC) {
	if e.mac == mac {
		return
	}
	c.stats.Contradicted++
	if e.state == reachable {
		e.state = stale
		c.timers.Disarm(&e.timer)
		c.gen++
	}
}

// open makes an entry, in the place of the least recently used if need be.
func (c *Cache) open(now timer.Instant, addr netip.Addr, s state) *entry {
	if c.dynamic == c.limits.Entries {
		c.evict()
	}
	e := &entry{addr: addr, state: s, used: now}
	e.timer.Expire = func(now timer.Instant) { c.expire(now, e) }
	c.entries[addr] = e
	c.dynamic++
	return e
}

func (c *Cache) evict() {
	var oldest *entry
	for _, e := range c.entries {
		if e.state != static && (oldest == nil || e.olderThan(oldest)) {
			oldest = e
		}
	}
	if oldest != nil {
		c.stats.Evicted++
		c.remove(oldest.addr)
	}
}

// olderThan orders by last use, and by address where that is the same, so that
// the outcome does not depend on the order of a map.
func (e *entry) olderThan(f *entry) bool {
	return e.used < f.used || e.used == f.used && e.addr.Less(f.addr)
}

func (c *Cache) remove(addr netip.Addr) {
	e := c.entries[addr]
	if e == nil {
		return
	}
	delete(c.entries, addr)
	c.timers.Disarm(&e.timer)
	if e.state != static {
		c.dynamic--
	}
	c.gen++
	for _, f := range e.held {
		f.left = true
		c.stats.HeldDropped++
	}
	e.held = nil
}

// solicit asks once and sets the clock for the next time.
func (c *Cache) solicit(now timer.Instant, e *entry) {
	e.solicits++
	c.timers.Arm(&e.timer, now.Add(RetransTime))
	if e.state == probe {
		c.link.Solicit(e.addr, e.mac)
	} else {
		c.link.Solicit(e.addr, header.Broadcast)
	}
}

func (c *Cache) expire(now timer.Instant, e *entry) {
	switch {
	case e.state == reachable:
		e.state = stale
		c.gen++
	case e.solicits < MaxSolicits:
		c.solicit(now, e)
	default:
		c.stats.Failed++
		held := e.held
		c.remove(e.addr)
		for _, f := range held { // last: who is told may use the cache
			c.link.Abandon(f)
		}
	}
}
