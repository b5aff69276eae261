package portfwd

import (
	"fmt"
	"net"
	"net/netip"

	"sbxnet/netstack/socket"
	"sbxnet/tapdev/stackroom"
)

// Nameserver answers the queries that come to the DNS addresses; *dns.Server is
// one. Each call serves until what it was given is closed.
type Nameserver interface {
	ServePacket(net.PacketConn) error
	Serve(net.Listener) error
}

// serveNames has the name server listen in a shard's stack, over UDP and TCP
// as far as they are on.
func (f *Forwarder) serveNames(s *shard) error {
	if f.cfg.Nameserver == nil {
		return nil
	}
	n := socket.New(s.stack, s.loop, nil)
	f.nets = append(f.nets, n)
	f.running.Go(func() { <-s.ended; n.Close() }) // nobody is left to run what sockets post
	for _, a := range f.cfg.nameservers() {
		if err := f.serveNamesAt(n, netip.AddrPortFrom(a, 53).String()); err != nil {
			return fmt.Errorf("serve names: %w", err)
		}
	}
	return nil
}

func (f *Forwarder) serveNamesAt(n *socket.Net, address string) error {
	if !f.cfg.NoUDP {
		pc, err := n.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		f.running.Go(func() { stackroom.Take(); f.cfg.Nameserver.ServePacket(pc) })
	}
	if f.cfg.NoTCP {
		return nil
	}
	l, err := n.Listen("tcp", address)
	if err != nil {
		return err
	}
	f.running.Go(func() { stackroom.Take(); f.cfg.Nameserver.Serve(l) })
	return nil
}
