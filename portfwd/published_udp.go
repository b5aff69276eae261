package portfwd

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
	"sbxnet/portfwd/spec"
)

// udpPort is a published UDP port: one socket for all its clients.
type udpPort struct {
	*shard
	bound    *spec.Bound
	token    reactor.Token
	readable bool
	queued   bool
	last     lastTargets
}

// visitorKey names the flow of one client of one port.
type visitorKey struct {
	port   *udpPort
	client netip.AddrPort
	scope  uint32 // of a link-local client
	local  netip.Addr
}

// visitor is what a published flow knows that an outbound one does not: the
// client's address on the host, and the places where its server may be.
type visitor struct {
	key     visitorKey
	port    *udpPort
	address hostsock.Address
	local   hostsock.Local // where the client sent to: answers come from there
	targets []netip.AddrPort
	memory  [3]netip.AddrPort
	last    *lastTarget
	first   int
	tried   int
	index   int
	// held is the last datagram, for the next target, until a server has
	// answered or there is no other target.
	held        []byte
	heldSegment int
}

// publishUDP starts to receive on a bound socket.
func (s *shard) publishUDP(b *spec.Bound) (*udpPort, error) {
	hostsock.JoinDatagrams(b.FD)
	p := &udpPort{shard: s, bound: b}
	var err error
	p.token, err = s.loop.Add(b.FD, reactor.Edge, p)
	return p, err
}

// unpublish implements portServer: it ends the flows of all clients.
func (p *udpPort) unpublish() {
	for k, f := range p.udp.visitors {
		if k.port == p {
			f.end("unpublished")
		}
	}
	p.readable = false
	p.loop.Remove(p.bound.FD, p.token)
}

// Ready implements reactor.Handler.
func (p *udpPort) Ready(e reactor.Events) {
	if e.Readable() {
		p.readable = true
		if !p.queued {
			p.queued = true
			p.schedule(p)
		}
	}
}

// work implements worker: it reads datagrams of any clients.
func (p *udpPort) work() (again bool) {
	p.queued = false
	for moved := 0; p.readable; {
		if moved >= bytesPerFlow || p.rx.Full() {
			p.queued = true
			return true
		}
		first, end, drained, errno := p.rx.Receive(p.bound.FD, datagramSlots)
		if errno == unix.ENOMEM || errno == unix.ENOBUFS {
			break // the kernel has lost it
		}
		if errno != 0 { // that of an earlier send; taken by being told
			hostsock.PendingError(p.bound.FD)
			continue
		}
		p.readable = !drained
		for i := first; i < end; i++ {
			m := p.rx.Message(i)
			moved += len(m.Payload)
			p.moved += len(m.Payload)
			p.fromHost(&m)
		}
	}
	return false
}

// fromHost carries one datagram of a client to the sandbox.
func (p *udpPort) fromHost(m *hostsock.Message) {
	client := m.From.AddrPort()
	if !client.IsValid() || client.Port() == 0 {
		return
	}
	f := p.udp.visitors[visitorKey{p, client, m.From.Scope(), m.Local.Addr}]
	if f == nil {
		if f = p.newVisitor(m, client); f == nil {
			p.counters.udpFailed++
			return
		}
	}
	p.counters.datagramsToGuest++
	p.stack.SendUDPNoCopy(f.peer, f.sandbox, m.Payload, m.SegmentSize)
	if !f.replied {
		f.visitor.hold(f, m.Payload, m.SegmentSize)
	}
	f.touch(false)
}

// newVisitor makes the flow of a client that has none. The next datagrams find
// it by its key.
func (p *udpPort) newVisitor(m *hostsock.Message, client netip.AddrPort) *udpFlow {
	t := &p.udp
	t.makeRoom()
	v := &visitor{
		key:  visitorKey{p, client, m.From.Scope(), m.Local.Addr},
		port: p, address: *m.From, local: m.Local, last: p.last.of(client.Addr()),
	}
	v.first = v.last.first(p.loop.Now())
	v.targets = p.policy.targets(v.memory[:0], p.bound.Child, client.Addr(), p.bound.Port)
	f := &udpFlow{shard: p.shard, fd: -1, visitor: v}
	f.flow = f
	if !v.next(f) {
		return nil
	}
	t.visitors[v.key] = f
	t.unreplied.touch(&f.idleEntry, p.loop.Now())
	p.counters.udpPublished++
	if p.debugs() {
		p.log.Debug("datagrams in", slog.String("client", client.String()), slog.String("sandbox", f.sandbox.String()))
	}
	return f
}

// next turns the flow to the next target and reports whether there was one.
func (v *visitor) next(f *udpFlow) bool {
	for v.tried < len(v.targets) {
		v.index = targetOrder(v.first, v.tried)
		v.tried++
		target := v.targets[v.index]
		source := netip.AddrPortFrom(f.policy.source(v.key.client.Addr(), target.Addr()), v.key.client.Port())
		if k, ok := f.udp.freeKey(udpKey{target, source}); ok {
			f.rename(k)
			return true
		}
	}
	return false
}

// freeKey is k, or where another client's flow has that, k with another source
// port. An outbound flow gives way: its host socket is not where this client
// is answered from.
func (t *udpTable) freeKey(k udpKey) (udpKey, bool) {
	for range 16 {
		other := t.flows[k]
		if other != nil && other.visitor == nil {
			other.end("published")
			other = nil
		}
		if other == nil && t.claim(flowKey{header.ProtocolUDP, k}) {
			return k, true
		}
		k.peer = netip.AddrPortFrom(k.peer.Addr(), uint16(49152+rand.IntN(16384)))
	}
	return k, false
}

// rename gives the flow another pair of ends on the link.
func (f *udpFlow) rename(k udpKey) {
	t := &f.udp
	if t.txFlow == f {
		t.flush()
	}
	if t.flows[f.udpKey] == f {
		delete(t.flows, f.udpKey)
		f.disclaim(flowKey{header.ProtocolUDP, f.udpKey})
	}
	f.udpKey = k
	t.flows[k] = f
}

// hold keeps a copy of a datagram that may have to be sent to another target.
func (v *visitor) hold(f *udpFlow, p []byte, segment int) {
	t := &f.udp
	if v.tried >= len(v.targets) {
		v.release(t)
		return
	}
	if t.held-len(v.held)+len(p) > t.cfg.Limits.HeldBytes {
		t.counters.udpNotHeld++
		v.release(t)
		return
	}
	t.held += len(p) - len(v.held)
	v.held, v.heldSegment = append(v.held[:0], p...), segment
}

func (v *visitor) release(t *udpTable) {
	t.held -= len(v.held)
	v.held = nil
}

// answered is called when the server has.
func (v *visitor) answered(f *udpFlow) {
	if f.replied {
		return
	}
	v.last.found(v.index, v.first, f.loop.Now())
	v.release(&f.udp)
}

// Unreachable implements netstack.Handler: the sandbox says that nobody takes
// datagrams of a flow.
func (s *shard) Unreachable(u *netstack.Unreachable) {
	f := s.udp.flows[udpKey{u.Dst, u.Src}]
	if f == nil || u.MTU != 0 {
		return
	}
	if f.visitor != nil && !f.replied && f.visitor.next(f) {
		if v := f.visitor; v.held != nil {
			s.stack.SendUDP(f.peer, f.sandbox, v.held, v.heldSegment)
			v.hold(f, v.held, v.heldSegment)
		}
		return
	}
	// Nobody is left. An outbound flow's socket closes, so that the host tells
	// whoever still sends to it.
	f.end("refused")
}

func (t *udpTable) forgetVisitor(f *udpFlow) {
	f.visitor.release(t)
	if t.visitors[f.visitor.key] == f {
		delete(t.visitors, f.visitor.key)
	}
}
