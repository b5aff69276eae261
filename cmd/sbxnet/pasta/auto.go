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
	return newFollower(o, &table{ports: p, wildcards: wildcards}, pid, log).start()
}

// start looks, and goes on looking until stop is called.
func (f *follower) start() (stop func()) {
	f.look(time.Now())
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { f.run(end); close(ended) }()
	return func() { close(end); <-ended }
}
