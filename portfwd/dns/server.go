package dns

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a [Server] is made of.
type Config struct {
	// Upstreams are asked instead of the host's resolvers.
	Upstreams []netip.AddrPort
	// ResolvConf is the file that names the host's resolvers, usually
	// /etc/resolv.conf. With neither this nor Upstreams every query but those
	// for HostName is answered with SERVFAIL.
	ResolvConf string
	// Gateway4 and Gateway6 are the addresses of HostName. The zero Addr means
	// that it has none of that family.
	Gateway4, Gateway6 netip.Addr
	// Dial connects to a resolver; net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Limits bounds what clients can make the server hold.
	Limits Limits
	// Log gets a line when no resolver answers, at most one a minute, and when
	// the resolvers change; nothing if nil.
	Log *slog.Logger
}

// Limits bounds what clients can make a server hold. Zero means the default.
type Limits struct {
	// InFlight is the number of queries being answered; default 512.
	InFlight int
	// Connections is the number of TCP connections; default 128.
	Connections int
	// PerConnection is the number of queries being answered on one TCP
	// connection before it is not read any more; default 32.
	PerConnection int
	// Idle is how long a TCP connection may take for its next query to arrive
	// in full, or to take an answer; default 10 s (RFC 7766 §6.2.3).
	Idle time.Duration
}

func (l *Limits) setDefaults() {
	setDefault(&l.InFlight, 512)
	setDefault(&l.Connections, 128)
	setDefault(&l.PerConnection, 32)
	if l.Idle <= 0 {
		l.Idle = 10 * time.Second
	}
}

func setDefault(limit *int, value int) {
	if *limit <= 0 {
		*limit = value
	}
}

// Stats counts what happened to queries since the server was made.
type Stats struct {
	Queries   uint64 // that had a header
	Answered  uint64 // by a resolver
	Own       uint64 // for HostName, answered here
	Failed    uint64 // answered with SERVFAIL because no resolver did
	Malformed uint64 // dropped or answered with FORMERR
	Dropped   uint64 // over a limit: UDP queries and TCP connections
}

// Server answers queries from the sandbox. Its methods may be called from any
// goroutine.
type Server struct {
	resolvers          resolvers
	gateway4, gateway6 netip.Addr
	dial               func(ctx context.Context, network, address string) (net.Conn, error)
	limits             Limits
	log                *slog.Logger

	ctx         context.Context
	cancel      context.CancelFunc
	inFlight    chan struct{}
	connections chan struct{}

	mu      sync.Mutex
	closers map[io.Closer]struct{} // nil once closed
	running sync.WaitGroup

	complained time.Time // last; under mu

	queries, answered, own, failed, malformed, dropped atomic.Uint64
}

// New makes a server. It reads ResolvConf when the first query comes.
func New(cfg Config) *Server {
	cfg.Limits.setDefaults()
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		gateway4: cfg.Gateway4, gateway6: cfg.Gateway6, dial: cfg.Dial, limits: cfg.Limits, log: cfg.Log,
		inFlight:    make(chan struct{}, cfg.Limits.InFlight),
		connections: make(chan struct{}, cfg.Limits.Connections),
		closers:     make(map[io.Closer]struct{}),
	}
	s.resolvers = resolvers{log: cfg.Log, until: make(map[netip.AddrPort]time.Time)}
	if len(cfg.Upstreams) > 0 {
		s.resolvers.conf = Conf{Nameservers: cfg.Upstreams, Timeout: defaultTimeout, Attempts: defaultAttempts}
	} else {
		s.resolvers.path = cfg.ResolvConf
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{Queries: s.queries.Load(), Answered: s.answered.Load(), Own: s.own.Load(),
		Failed: s.failed.Load(), Malformed: s.malformed.Load(), Dropped: s.dropped.Load()}
}

// Close closes every listener and connection that the server was given, gives
// up the queries in flight and waits until nothing of it runs any more.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	for c := range closers {
		c.Close()
	}
	s.running.Wait()
	return nil
}

// adopt registers something for Close and keeps Close waiting until disown. It
// fails once the server is closed.
func (s *Server) adopt(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closers == nil {
		return false
	}
	s.closers[c] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Server) disown(c io.Closer) {
	c.Close()
	s.mu.Lock()
	delete(s.closers, c)
	s.mu.Unlock()
	s.running.Done()
}

// answer works out the answer to a query that came over "udp" or "tcp"; nil
// means that it deserves none.
func (s *Server) answer(network string, query message) message {
	s.queries.Add(1)
	if query.isResponse() {
		s.malformed.Add(1)
		return nil
	}
	q, ok := query.question()
	if !ok {
		s.malformed.Add(1)
		return query.refusal(rcodeFormErr)
	}
	if asksForHost(q) {
		s.own.Add(1)
		return s.answerHost(query)
	}
	answer, err := s.exchange(s.ctx, network, query)
	if err != nil {
		s.failed.Add(1)
		s.complain(err)
		return query.refusal(rcodeServFail)
	}
	s.answered.Add(1)
	return answer
}

const complainEvery = time.Minute

// complain logs that no resolver answers, unless it just did: a sandbox can make
// that happen as often as it likes.
func (s *Server) complain(err error) {
	s.mu.Lock()
	now := time.Now()
	due := s.ctx.Err() == nil && (s.complained.IsZero() || now.Sub(s.complained) > complainEvery)
	if due {
		s.complained = now
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("dns: no resolver of the host answers", "error", err, "servers", s.resolvers.servers())
	}
}
