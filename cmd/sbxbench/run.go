package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A row is one line of the table.
type row struct {
	Name    string     `json:"name"`
	MTU     int        `json:"mtu,omitempty"`
	Unit    string     `json:"unit"`
	Less    bool       `json:"less_is_better,omitempty"`
	Compare comparison `json:"compare,omitempty"`
	// Slack is the smallest difference that says anything, in Unit, where
	// values are compared.
	Slack  float64 `json:"slack,omitempty"`
	Values samples `json:"samples"`
}

// A bench is one run.
type bench struct {
	environment
	networks []network
	rounds   int
	duration time.Duration // of each load
	quick    bool
	// limit is what the whole run may take, zero for any time. Rounds that do
	// not fit in are left out, and the report says so.
	limit    time.Duration
	began    time.Time
	flows    int           // how many idle ones to weigh
	idle     time.Duration // how long to count wake-ups for
	progress progress
	failed   map[string]bool // measurements not to be tried again
	rows     []*row
	problems []string
}

func (b *bench) problem(format string, args ...any) {
	b.problems = append(b.problems, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// row finds the one of that name and MTU, or adds like.
func (b *bench) row(like row) *row {
	for _, r := range b.rows {
		if r.Name == like.Name && r.MTU == like.MTU {
			return r
		}
	}
	like.Values = samples{}
	b.rows = append(b.rows, &like)
	return &like
}

func (r *row) add(network string, v float64) {
	r.Values[network] = append(r.Values[network], v)
}

// run takes every measurement. The shares of the time are about what each
// part needs.
func (b *bench) run() {
	b.began = time.Now()
	b.runAt(ordinaryMTU, 0.60)
	b.runAt(largeMTU, 0.80)
	b.runStartToExit()
	if !b.quick {
		b.runIdle()
	}
}

// another says whether one more round fits in: there has been none yet, or
// there is no limit, or the share of the time is not over before its end.
func (b *bench) another(now time.Time, share float64, longest time.Duration) bool {
	return longest == 0 || b.limit == 0 ||
		now.Add(longest).Sub(b.began) <= time.Duration(float64(b.limit)*share)
}

// runAt keeps a session of every network open and takes turns, for as long as
// the run is within its share of the time.
func (b *bench) runAt(mtu int, share float64) {
	sessions := map[string]*session{}
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	for _, n := range b.networks {
		if n.variant && mtu != ordinaryMTU {
			continue
		}
		b.progress.say("MTU %d: start %s", mtu, n.name)
		if s, err := b.open(n, mtu); err != nil {
			b.problem("%s, MTU %d: %v", n.name, mtu, err)
		} else {
			sessions[n.name] = s
		}
	}
	var longest time.Duration
	for round := range b.rounds {
		began := time.Now()
		if !b.another(began, share, longest) {
			b.problem("MTU %d: rounds %d to %d of %d: the time was up", mtu, round+1, b.rounds, b.rounds)
			return
		}
		b.progress.phase("MTU %d: round %d of %d", mtu, round+1, b.rounds)
		b.round(mtu, round, sessions)
		longest = max(longest, time.Since(began))
	}
}

// open starts a session that can be measured.
func (b *bench) open(n network, mtu int) (*session, error) {
	s, err := n.start(&b.environment, mtu)
	if err != nil {
		return nil, err
	}
	if s.published != "" {
		if err := waitReachable(s.published); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// round takes each measurement once from each network. Another one begins each
// round, so that none always follows the same.
func (b *bench) round(mtu, round int, sessions map[string]*session) {
	for _, m := range measurements() {
		if m.mtu != mtu || b.quick && !m.quick {
			continue
		}
		for i := range b.networks {
			n := b.networks[(i+round)%len(b.networks)]
			s, attempt := sessions[n.name], fmt.Sprintf("%s, MTU %d, %s", n.name, mtu, m)
			if s == nil || b.failed[attempt] || !n.takes(m) {
				continue
			}
			b.progress.say("round %d of %d: %s", round+1, b.rounds, attempt)
			if err := b.measure(m, n.name, s); err != nil {
				b.problem("%s: %v", attempt, err)
				b.failed[attempt] = true
				if errors.Is(err, errNoAnswer) {
					s.close()
					delete(sessions, n.name)
				}
			}
		}
	}
}

func (b *bench) measure(m measurement, network string, s *session) error {
	o := m.order
	o.Addr, o.Duration = s.outside, b.duration
	do := s.do
	if m.published {
		if s.published == "" {
			return nil
		}
		o.Addr, do = s.published, performHere
	}
	rows := make([]*row, len(m.figures))
	for i, f := range m.figures {
		rows[i] = b.row(row{Name: f.name, MTU: m.mtu, Unit: f.unit, Less: f.less, Compare: f.compare})
	}
	before := busy()
	r, err := do(o)
	spent := busy() - before
	if err != nil {
		return err
	}
	for i, f := range m.figures {
		rows[i].add(network, f.value(r))
	}
	if (o.Load == "up" || o.Load == "down") && o.Streams == 1 && !m.published && r.Bytes > 0 {
		// The kernel counts in ticks of 10 ms: too coarse to compare.
		b.row(row{Name: "CPU per GB, " + o.Load, MTU: m.mtu, Unit: "s", Less: true, Compare: never}).
			add(network, spent.Seconds()/(float64(r.Bytes)/1e9))
	}
	return nil
}

func performHere(o order) (outcome, error) {
	r := perform(o)
	if r.Error != "" {
		return r, fmt.Errorf("%s", r.Error)
	}
	return r, nil
}

const startToExitOfTrue = "start to exit of true"

func (b *bench) runStartToExit() {
	b.progress.phase("start to exit of true")
	r := b.row(row{Name: startToExitOfTrue, Unit: "ms", Less: true, Compare: byValue, Slack: 3})
	failed := map[string]bool{}
	for range max(b.rounds*3, 5) {
		for _, n := range b.networks {
			if n.bare == nil || n.variant || failed[n.name] {
				continue
			}
			b.progress.say("start to exit of true: %s", n.name)
			took, err := startToExit(n.bare(&b.environment))
			if err != nil {
				b.problem("%s: %v", n.name, err)
				failed[n.name] = true
				continue
			}
			r.add(n.name, float64(took)/float64(time.Millisecond))
		}
	}
}

// progress is where a person sees how far the run is: on a terminal one line
// that changes, elsewhere a line for each phase.
type progress struct {
	w        io.Writer // nil: nobody looks
	terminal bool
}

// say is too little for a line of its own.
func (p progress) say(format string, args ...any) {
	if p.w != nil && p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

func (p progress) phase(format string, args ...any) {
	if p.w != nil && !p.terminal {
		fmt.Fprintf(p.w, "sbxbench: "+format+"\n", args...)
	}
}

// done leaves the terminal's line as it was.
func (p progress) done() { p.say("") }
