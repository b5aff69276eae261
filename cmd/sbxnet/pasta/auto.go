package pasta

import (
	"log/slog"
	"net/netip"
	"time"

	"sbxnet/cmd/sbxnet/network"
)

// Follow publishes on p what listens in the network of the process that pid
// tells, TCP and UDP, as auto does for -t and -u, and goes on until stop is
// called. What listens already is published when it returns. Ports are opened on
// IPv6 addresses of the host too if ipv6 is set and the host has some.
func Follow(p *network.Ports, pid func() int, ipv6 bool, log *slog.Logger) (stop func()) {
	wildcards := []netip.Addr{everyIPv4}
	if ipv6 && hasIPv6() {
		wildcards = append(wildcards, everyIPv6)
	}
	o := &options{TCP: ports{Auto: true}, UDP: ports{Auto: true}}
	f := newFollower(o, &table{ports: p, wildcards: wildcards}, pid, log)
	return lookOften(f.look)
}

// followEvery is how often listeners are looked for.
const followEvery = time.Second

// lookOften calls all looks, in turn, at once and from then on until stop is
// called. stop does not wait for long: a look may have asked a process that is
// stopped.
func lookOften(looks ...func(now time.Time)) (stop func()) {
	all := func(now time.Time) {
		for _, look := range looks {
			look(now)
		}
	}
	all(time.Now())
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case now := <-tick.C:
				all(now)
			}
		}
	}()
	return func() {
		close(end)
		select {
		case <-ended:
		case <-time.After(followEvery):
		}
	}
}
