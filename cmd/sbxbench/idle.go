package main

import (
	"fmt"
	"time"
)

const (
	residentIdle   = "resident memory, idle"
	residentLoaded = "resident memory, idle flows open"
	wakeUps        = "wake-ups, idle"
)

// wantedFlows is how many idle ones are weighed.
const wantedFlows = 10_000

// settle is how long start-up, or a burst of connections, is given to have no
// more after-effects.
const settle = 2 * time.Second

// runIdle looks at what each network costs when nothing happens, without and
// with many open flows. What has no MTU has no processes of its own to look at.
func (b *bench) runIdle() {
	b.progress.phase("idle")
	if b.flows < wantedFlows {
		b.problem("%d idle flows: %d at most, for the limit of open files (ulimit -Hn)", wantedFlows, b.flows)
	}
	sessions := map[string]*session{}
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	for _, n := range b.networks {
		if !n.hasMTU || n.variant {
			continue
		}
		b.progress.say("idle: start %s", n.name)
		if s, err := b.open(n, ordinaryMTU); err != nil {
			b.problem("%s, idle: %v", n.name, err)
		} else {
			sessions[n.name] = s
		}
	}
	time.Sleep(settle)
	b.countWakeUps(sessions)
	for _, n := range b.networks {
		if s := sessions[n.name]; s != nil {
			b.weigh(n.name, s)
			s.close() // what it held open is not to burden the next
			delete(sessions, n.name)
		}
	}
}

// countWakeUps watches all networks at once: an idle one disturbs nobody.
func (b *bench) countWakeUps(sessions map[string]*session) {
	r := b.row(row{Name: wakeUps, Unit: fmt.Sprintf("in %v", b.idle), Less: true, Compare: byValue, Slack: 5})
	before := map[string]int64{}
	for name, s := range sessions {
		before[name] = switches(s.carriers())
	}
	b.progress.say("idle: count wake-ups for %v", b.idle)
	time.Sleep(b.idle)
	for name, s := range sessions {
		r.add(name, float64(switches(s.carriers())-before[name]))
	}
}

// weigh takes the memory of a network without and with many idle flows.
func (b *bench) weigh(name string, s *session) {
	empty := b.row(row{Name: residentIdle, Unit: "MB", Less: true, Compare: byValue, Slack: 1})
	loaded := b.row(row{Name: residentLoaded, Unit: "MB", Less: true, Compare: byValue, Slack: 2})
	perFlow := b.row(row{Name: "memory per idle flow", Unit: "kB", Less: true, Compare: byValue, Slack: 0.2})
	without := resident(s.carriers())
	empty.add(name, float64(without)/1e6)
	b.progress.say("idle: open %d flows: %s", b.flows, name)
	r, err := s.do(order{Load: "hold", Addr: s.outside, Streams: b.flows, Duration: 30 * time.Second})
	if err != nil {
		b.problem("%s, %d idle flows: only %d: %v", name, b.flows, r.Count, err)
		return
	}
	time.Sleep(settle)
	with := resident(s.carriers())
	loaded.add(name, float64(with)/1e6)
	perFlow.add(name, float64(with-without)/1e3/float64(b.flows))
}
