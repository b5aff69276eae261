package outlet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// maxDatagram is the longest payload of a UDP datagram over IPv4 and IPv6.
const maxDatagram = 65535 - 8

// receive reads what clients send until the socket is closed. The flows end
// with it: they answer through it.
func (o *Outlets) receive(inside *net.UDPConn, to netip.AddrPort) {
	p := packets{Outlets: o, inside: inside, to: to, flows: make(map[netip.AddrPort]*net.UDPConn)}
	defer p.close()
	buf := make([]byte, maxDatagram)
	for {
		n, client, err := inside.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // what an answer met
			o.rest()
			continue
		}
		if c := p.flow(client); c != nil {
			c.SetReadDeadline(time.Now().Add(o.cfg.Limits.IdleFlow))
			c.Write(buf[:n])
		}
	}
}

// packets are one UDP port and its flows, each a socket on the host.
type packets struct {
	*Outlets
	inside *net.UDPConn
	to     netip.AddrPort
	mu     sync.Mutex
	flows  map[netip.AddrPort]*net.UDPConn
}

// flow is the socket of a client, new if need be, or nil if there can't be one.
func (p *packets) flow(client netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.flows[client]; c != nil {
		return c
	}
	if !enter(p.Outlets.flows) {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.to))
	if err != nil {
		<-p.Outlets.flows
		return nil
	}
	p.flows[client] = c
	p.running.Go(func() {
		p.answer(c, client)
		p.mu.Lock()
		delete(p.flows, client)
		p.mu.Unlock()
		c.Close()
		<-p.Outlets.flows
	})
	return c
}

// answer carries the server's datagrams to the client, until there are none for
// so long that the flow is idle.
func (p *packets) answer(c *net.UDPConn, client netip.AddrPort) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := c.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as connection refused: the server may come
			p.rest()
			continue
		}
		c.SetReadDeadline(time.Now().Add(p.cfg.Limits.IdleFlow))
		p.inside.WriteToUDPAddrPort(buf[:n], client)
	}
}

func (p *packets) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.flows {
		c.Close()
	}
}
