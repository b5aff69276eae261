package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A row is one line of the table.
type row struct {
	Name   string  `json:"name"`
	MTU    int     `json:"mtu,omitempty"`
	Unit   string  `json:"unit"`
	Less   bool    `json:"less_is_better,omitempty"`
	Values samples `json:"samples"`
}

// A bench is one run.
type bench struct {
	environment
	networks []network
	rounds   int
	duration time.Duration
	quick    bool
	flows    int
	idle     time.Duration
	progress io.Writer
	rows     []*row
	problems []string
	failed   map[string]bool // network and MTU that did not start
}

func (b *bench) problem(format string, args ...any) {
	b.problems = append(b.problems, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (b *bench) row(name string, mtu int, unit string, less bool) *row {
	for _, r := range b.rows {
		if r.Name == name && r.MTU == mtu {
			return r
		}
	}
	r := &row{Name: name, MTU: mtu, Unit: unit, Less: less, Values: samples{}}
	b.rows = append(b.rows, r)
	return r
}

func (b *bench) add(r *row, network string, v float64) {
	r.Values[network] = append(r.Values[network], v)
}

// run takes every measurement.
func (b *bench) run() {
	for _, mtu := range []int{ordinaryMTU, largeMTU} {
		b.runAt(mtu)
	}
	b.runStartToExit()
	if !b.quick {
		b.runIdle()
	}
}

// runAt keeps a session of every network open and takes turns.
func (b *bench) runAt(mtu int) {
	b.forward = true
	sessions := map[string]*session{}
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	for _, n := range b.networks {
		b.say("start %s, MTU %d", n.name, mtu)
		s, err := n.start(&b.environment, mtu)
		if err == nil && s.published != "" {
			if err = waitReachable(s.published); err != nil {
				s.close()
			}
		}
		if err != nil {
			b.problem("%s, MTU %d: %v", n.name, mtu, err)
			continue
		}
		sessions[n.name] = s
	}
	for round := range b.rounds {
		for _, m := range measurements() {
			if m.mtu != mtu || b.quick && !m.quick {
				continue
			}
			for _, n := range b.networks {
				if s := sessions[n.name]; s != nil {
					b.say("round %d/%d, MTU %d, %s: %s", round+1, b.rounds, mtu, m.name, n.name)
					b.measure(m, n.name, s)
				}
			}
		}
	}
}

func (b *bench) measure(m measurement, name string, s *session) {
	o := m.order
	o.Addr, o.Duration = s.outside, b.duration
	do := s.do
	if m.published {
		if s.published == "" {
			return
		}
		o.Addr = s.published
		do = func(o order) (outcome, error) {
			r, err := streamsOf(o)
			return r, err
		}
	}
	before := busy()
	r, err := do(o)
	spent := busy() - before
	if err != nil {
		b.problem("%s, MTU %d, %s: %v", name, m.mtu, m.name, err)
		return
	}
	b.add(b.row(m.name, m.mtu, m.unit, m.less), name, m.value(r))
	if (o.Load == "up" || o.Load == "down") && o.Streams == 1 && !m.published && r.Bytes > 0 {
		cpu := b.row("CPU per GB, "+o.Load, m.mtu, "s", true)
		b.add(cpu, name, spent.Seconds()/(float64(r.Bytes)/1e9))
	}
}

func streamsOf(o order) (outcome, error) {
	r := perform(o)
	if r.Error != "" {
		return r, fmt.Errorf("%s", r.Error)
	}
	return r, nil
}

func (b *bench) runStartToExit() {
	r := b.row("start to exit of true", 0, "ms", true)
	for range max(b.rounds*3, 5) {
		for _, n := range b.networks {
			if n.bare == nil || b.failed[n.name] {
				continue
			}
			b.say("start to exit: %s", n.name)
			took, err := startToExit(n.bare(&b.environment))
			if err != nil {
				b.problem("%s: %v", n.name, err)
				b.failed[n.name] = true
				continue
			}
			b.add(r, n.name, float64(took)/float64(time.Millisecond))
		}
	}
}

// runIdle looks at what each network costs when nothing happens, without and
// with many open flows.
func (b *bench) runIdle() {
	memory := b.row("resident memory, idle", 0, "MB", true)
	wakeups := b.row(fmt.Sprintf("wake-ups in %v, idle", b.idle), 0, "", true)
	loaded := b.row(fmt.Sprintf("resident memory, %d idle flows", b.flows), 0, "MB", true)
	perFlow := b.row("memory per idle flow", 0, "kB", true)
	for _, n := range b.networks {
		if !n.hasMTU {
			continue
		}
		b.say("idle: %s", n.name)
		s, err := n.start(&b.environment, ordinaryMTU)
		if err != nil {
			continue // reported with the first measurements
		}
		time.Sleep(2 * time.Second) // past what start-up leaves behind
		pids := s.carriers()
		woken := switches(pids)
		time.Sleep(b.idle)
		b.add(wakeups, n.name, float64(switches(pids)-woken))
		empty := float64(resident(pids)) / 1e6
		b.add(memory, n.name, empty)
		b.say("%d flows: %s", b.flows, n.name)
		r, err := s.do(order{Load: "hold", Addr: s.outside, Streams: b.flows, Duration: 30 * time.Second})
		if err != nil {
			b.problem("%s, %d flows: only %d: %v", n.name, b.flows, r.Count, err)
		} else {
			full := float64(resident(pids)) / 1e6
			b.add(loaded, n.name, full)
			b.add(perFlow, n.name, (full-empty)*1e3/float64(b.flows))
		}
		s.close()
	}
}

func (b *bench) say(format string, args ...any) {
	if b.progress != nil {
		fmt.Fprintf(b.progress, "\r\x1b[K"+format, args...)
	}
}
