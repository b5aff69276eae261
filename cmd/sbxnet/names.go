package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"sbxnet/netstack"
	"sbxnet/netstack/socket"
	"sbxnet/portfwd/dns"
)

// A nameService is the sandbox's DNS: one server with a pair of sockets, UDP and
// TCP, for each address on each shard's stack.
type nameService struct {
	server *dns.Server
	plan   plan
	// opened gets what became of each shard's sockets.
	opened chan error
	shards int
}

// newNameService makes the service; none with --dns none.
func newNameService(s *settings, p plan, log *slog.Logger) *nameService {
	if s.DNS.None {
		return nil
	}
	cfg := dns.Config{ResolvConf: resolvConfPath, Gateway4: p.V4.Gateway, Gateway6: p.V6.Gateway, Log: log}
	if s.DNS.Upstream.IsValid() {
		cfg.Upstreams = []netip.AddrPort{s.DNS.Upstream}
	}
	return &nameService{server: dns.New(cfg), plan: p, opened: make(chan error, maxChannels)}
}

// serve adds the service to a shard's stack. It runs on the shard's goroutine,
// which must not wait for the sockets that only it can open: another does.
func (n *nameService) serve(stack *netstack.Stack, post func(func()) bool) (stop func(), err error) {
	var own []netip.Prefix
	for _, f := range n.plan.families() {
		own = append(own, netip.PrefixFrom(f.DNS, f.Prefix.Bits()))
	}
	sockets := socket.New(stack, runner(post), own)
	n.shards++
	go func() { n.opened <- n.open(sockets) }()
	return func() { sockets.Close() }, nil
}

// runner is a function as socket.New wants it.
type runner func(func()) bool

func (r runner) Post(f func()) bool { return r(f) }

func (n *nameService) open(sockets *socket.Net) error {
	for _, f := range n.plan.families() {
		at := netip.AddrPortFrom(f.DNS, 53).String()
		pc, err := sockets.ListenPacket("udp", at)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		l, err := sockets.Listen("tcp", at)
		if err != nil {
			pc.Close()
			return fmt.Errorf("name server: %w", err)
		}
		go n.server.ServePacket(pc)
		go n.server.Serve(l)
	}
	return nil
}

// wait returns when every shard's sockets are open, so that the command's first
// query finds them.
func (n *nameService) wait() error {
	var failed error
	for range n.shards {
		failed = errors.Join(failed, <-n.opened)
	}
	return failed
}

// Close ends the server. The shards must still run.
func (n *nameService) Close() error {
	err := n.server.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
