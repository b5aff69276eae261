package dns

import (
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// How long a server that did not answer is asked last.
const deadFor = 15 * time.Second

// resolvers is whom to ask: a fixed list, or what a resolv.conf says now.
type resolvers struct {
	path string // "": conf is fixed
	log  *slog.Logger

	mu    sync.Mutex
	conf  Conf
	seen  fingerprint
	turn  int // for the option rotate
	until map[netip.AddrPort]time.Time
}

// fingerprint tells one state of a file from another without reading it.
type fingerprint struct {
	target   string // of the symbolic link, if it is one
	dev, ino uint64
	size     int64
	modified time.Time
	// settled: the file was old enough when it was read that a later change
	// must have another modification time.
	settled bool
}

// Clocks of file systems tick at least this often.
const fileClockTick = 50 * time.Millisecond

func fingerprintOf(path string, now time.Time) fingerprint {
	var f fingerprint
	f.target, _ = os.Readlink(path) // "" if it is no link
	info, err := os.Stat(path)
	if err != nil {
		return f
	}
	f.size, f.modified = info.Size(), info.ModTime()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.dev, f.ino = st.Dev, st.Ino
	}
	f.settled = now.Sub(f.modified) > fileClockTick
	return f
}

// plan is one query's way through the servers.
type plan struct {
	servers []netip.AddrPort // in the order to ask them, repeated for each attempt
	timeout time.Duration
}

// plan reads the configuration again if it has changed, and puts servers that
// lately did not answer last. When none did, one round has to do, so that a
// sandbox on a machine without network fails fast.
func (r *resolvers) plan(now time.Time) plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh(now)
	order := slices.Clone(r.conf.Nameservers)
	if r.conf.Rotate && len(order) > 1 {
		at := r.turn % len(order)
		order = append(order[at:], order[:at]...)
		r.turn++
	}
	alive := 0
	for _, s := range order {
		if !r.isDead(s, now) {
			alive++
		}
	}
	slices.SortStableFunc(order, func(a, b netip.AddrPort) int {
		return order01(r.isDead(a, now)) - order01(r.isDead(b, now))
	})
	p := plan{timeout: r.conf.Timeout}
	attempts := r.conf.Attempts
	if alive == 0 {
		attempts = 1
	}
	for range attempts {
		p.servers = append(p.servers, order...)
	}
	return p
}

func order01(last bool) int {
	if last {
		return 1
	}
	return 0
}

func (r *resolvers) refresh(now time.Time) {
	if r.path == "" {
		return
	}
	f := fingerprintOf(r.path, now)
	if f == r.seen && f.settled {
		return
	}
	conf, err := ReadConf(r.path)
	if err != nil {
		// Unreadable for the moment: the last servers are the best guess.
		r.log.Warn("dns: keeping the previous resolvers", "error", err)
		return
	}
	r.seen = f
	if !slices.Equal(conf.Nameservers, r.conf.Nameservers) {
		r.log.Debug("dns: resolvers", "file", r.path, "servers", conf.Nameservers)
		clear(r.until) // another network: what was dead there may live here
	}
	r.conf = conf
}

// servers is whom queries went to last.
func (r *resolvers) servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.conf.Nameservers)
}

func (r *resolvers) isDead(s netip.AddrPort, now time.Time) bool {
	until, ok := r.until[s]
	return ok && now.Before(until)
}

// silent notes that a server did not answer.
func (r *resolvers) silent(s netip.AddrPort, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.conf.Nameservers, s) { // else it is history, and the map stays small
		r.until[s] = now.Add(deadFor)
	}
}

// answered notes that a server is there.
func (r *resolvers) answered(s netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.until, s)
}
