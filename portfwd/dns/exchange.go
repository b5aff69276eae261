package dns

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Most time for one query, whatever resolv.conf says.
const maxExchange = 20 * time.Second

var errNoServer = errors.New("no resolver is configured")

// outcome is what came of asking one server.
type outcome struct {
	server netip.AddrPort
	answer message // nil if there is an error
	err    error
}

// exchange asks the host's resolvers one after the other, over "udp" or "tcp",
// and returns the first answer that settles the query, under the query's own
// ID. Failing that it returns the first answer that does not; failing that, an
// error. It waits for an earlier server while a later one is asked.
func (s *Server) exchange(ctx context.Context, network string, query message) (message, error) {
	p := s.resolvers.plan(time.Now())
	if len(p.servers) == 0 {
		return nil, errNoServer
	}
	ctx, cancel := context.WithTimeout(ctx, maxExchange)
	defer cancel() // ends what is still being asked
	x := exchange{server: s, ctx: ctx, network: network, query: query, plan: p, outcomes: make(chan outcome, len(p.servers))}
	answer, err := x.run()
	if err != nil {
		return nil, err
	}
	answer.setID(query.id())
	return answer, nil
}

type exchange struct {
	server   *Server
	ctx      context.Context
	network  string
	query    message
	plan     plan
	outcomes chan outcome

	pending  int
	fallback message // the first answer that did not settle it
	err      error   // the first error
}

func (x *exchange) run() (message, error) {
	last := len(x.plan.servers) - 1
	for i, to := range x.plan.servers {
		x.pending++
		go func() { x.outcomes <- x.server.ask(x.ctx, x.network, to, x.query) }()
		if answer := x.wait(to, i == last); answer != nil {
			return answer, nil
		}
		if x.ctx.Err() != nil {
			break
		}
	}
	switch {
	case x.fallback != nil:
		return x.fallback, nil
	case x.err != nil:
		return nil, x.err
	}
	return nil, context.DeadlineExceeded
}

// wait takes in outcomes until one settles the query, which it returns, or it
// is time to ask the server after to. After the last one that is when nothing
// more is to be expected.
func (x *exchange) wait(to netip.AddrPort, last bool) message {
	timer := time.NewTimer(x.plan.timeout)
	defer timer.Stop()
	for x.pending > 0 {
		select {
		case o := <-x.outcomes:
			x.pending--
			if x.take(o) {
				return o.answer
			}
			if o.server == to && !last {
				return nil
			}
		case <-timer.C:
			x.server.resolvers.silent(to, time.Now())
			return nil
		case <-x.ctx.Done():
			return nil
		}
	}
	return nil
}

// take notes an outcome and reports whether it settles the query.
func (x *exchange) take(o outcome) bool {
	if o.err != nil {
		if x.err == nil {
			x.err = o.err
		}
		x.server.resolvers.silent(o.server, time.Now())
		return false
	}
	x.server.resolvers.answered(o.server)
	if o.answer.settles() {
		return true
	}
	if x.fallback == nil {
		x.fallback = o.answer
	}
	return false
}
