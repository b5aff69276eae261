package portfwd

import (
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
)

// udpKey names a UDP flow by its ends on the link.
type udpKey struct {
	sandbox, peer netip.AddrPort
}

// udpFlow is a UDP flow, outbound or published. What the sandbox sends to peer
// goes out on the flow's host socket; what comes in there goes to the sandbox.
type udpFlow struct {
	*shard
	udpKey
	idleEntry
	replied bool // datagrams went both ways: an idle time of its own

	// An outbound flow has a connected socket.
	fd       int
	token    reactor.Token
	ttl      uint8 // of the socket; 0: the host's default, so far
	readable bool
	queued   bool

	visitor *visitor // of a published flow, else nil
}

// defaultTTL is Linux's, in the sandbox and most likely on the host.
const defaultTTL = 64

// udpTable is the UDP flows of a shard.
type udpTable struct {
	*shard
	flows     map[udpKey]*udpFlow
	visitors  map[visitorKey]*udpFlow
	unreplied idleList
	stream    idleList
	held      int // bytes of datagrams that visitors may have to send again

	// Datagrams from the sandbox of one flow, which are collected while they
	// come in a row.
	tx     hostsock.Sender
	txFlow *udpFlow
}

func (t *udpTable) init(s *shard) {
	t.shard = s
	t.flows = make(map[udpKey]*udpFlow)
	t.visitors = make(map[visitorKey]*udpFlow)
	t.unreplied.init(s.cfg.Timeouts.UDPUnreplied, &s.timers)
	t.stream.init(s.cfg.Timeouts.UDPStream, &s.timers)
}

// Datagram implements netstack.Handler: the sandbox sends one datagram or a
// train of them.
func (s *shard) Datagram(d *netstack.Datagram) {
	t := &s.udp
	f := t.txFlow
	if f == nil || f.sandbox != d.Src || f.peer != d.Dst {
		if f = t.find(d); f == nil {
			return
		}
	}
	f.fromGuest(d)
}

// find returns the flow of a datagram, a new one if need be, or nil if it is
// another shard's or there cannot be one; the sandbox has been told then.
func (t *udpTable) find(d *netstack.Datagram) *udpFlow {
	k := udpKey{d.Src, d.Dst}
	if f := t.flows[k]; f != nil {
		return f
	}
	if t.handOverDatagram(d) {
		return nil
	}
	to, v := t.policy.destination(d.Dst)
	if t.cfg.NoUDP {
		v = drop
	}
	if v != allow {
		t.counters.udpDenied++
		t.deny(d, v)
		return nil
	}
	t.makeRoom()
	from := t.policy.from(d.Dst.Addr(), to.Addr())
	fd, errno := hostsock.DialUDP(to, from)
	if errno == unix.EMFILE || errno == unix.ENFILE {
		if t.evict() {
			fd, errno = hostsock.DialUDP(to, from)
		}
	}
	if errno != 0 {
		t.counters.udpFailed++
		t.unreachable(k, len(d.Payload), connectRefusal(errno), netip.Addr{})
		return nil
	}
	if !t.claim(flowKey{header.ProtocolUDP, k}) { // just now
		hostsock.Close(fd)
		t.handOverDatagram(d)
		return nil
	}
	return t.open(k, fd)
}

// open makes an outbound flow of a connected socket.
func (t *udpTable) open(k udpKey, fd int) *udpFlow {
	f := &udpFlow{shard: t.shard, udpKey: k, fd: fd}
	f.flow = f
	var err error
	if f.token, err = t.loop.Add(fd, reactor.Edge, f); err != nil {
		hostsock.Close(fd)
		t.disclaim(flowKey{header.ProtocolUDP, k})
		t.counters.udpFailed++
		return nil
	}
	t.flows[k] = f
	t.unreplied.touch(&f.idleEntry, t.loop.Now())
	t.counters.udpOutbound++
	if t.debugs() {
		t.log.Debug("datagrams out", slog.String("sandbox", k.sandbox.String()), slog.String("peer", k.peer.String()))
	}
	return f
}

// deny tells the sandbox what the policy says.
func (t *udpTable) deny(d *netstack.Datagram, v verdict) {
	switch v {
	case refuse:
		t.unreachable(udpKey{d.Src, d.Dst}, len(d.Payload), tcp.PortUnreachable, netip.Addr{})
	case noHost, noNet:
		t.unreachable(udpKey{d.Src, d.Dst}, len(d.Payload), v.refusal(), netip.Addr{})
	}
}

// unreachable sends the sandbox an ICMP error about a datagram of flow k. Unless
// it is known who says so, a closed port is the peer's word and all else the
// gateway's.
func (t *udpTable) unreachable(k udpKey, length int, why tcp.Refusal, from netip.Addr) {
	switch why {
	case tcp.Silent:
		return
	case tcp.Reset:
		why = tcp.PortUnreachable
	}
	if why == tcp.PortUnreachable && !from.IsValid() {
		from = k.peer.Addr()
	}
	t.stack.SendUDPUnreachable(k.sandbox, k.peer, length, why, from)
}

// makeRoom ends the longest idle flow if there are as many as there may be.
func (t *udpTable) makeRoom() {
	if len(t.flows) >= t.cfg.Limits.UDP {
		t.evict()
	}
}

// evict ends the flow that has been idle longest: rather one that has never
// been answered.
func (t *udpTable) evict() bool {
	for _, l := range []*idleList{&t.unreplied, &t.stream} {
		if f := l.oldest(); f != nil {
			t.counters.udpEvicted++
			f.end("evicted")
			return true
		}
	}
	return false
}

// fromGuest collects a datagram of the sandbox to be sent on the host.
func (f *udpFlow) fromGuest(d *netstack.Datagram) {
	t := &f.udp
	if t.txFlow != f {
		t.flush()
		t.txFlow = f
		if f.visitor != nil {
			t.tx.To(&f.visitor.address, f.visitor.local)
		} else {
			t.tx.To(nil, hostsock.Local{})
		}
	}
	if d.TTL != f.ttl && f.visitor == nil {
		f.setTTL(d.TTL)
	}
	if f.visitor != nil {
		f.visitor.answered(f)
	}
	f.touch(f.visitor != nil)
	t.collect(d)
}

// setTTL makes the socket send with the sandbox's TTL, less one, so that
// traceroute works. The usual TTL becomes the host's usual one.
func (f *udpFlow) setTTL(ttl uint8) {
	if f.ttl == 0 && ttl == defaultTTL {
		f.ttl = ttl
		return
	}
	f.udp.flush()
	f.udp.txFlow = f
	hostsock.SetTTL(f.fd, f.peer.Addr(), hopsLeft(ttl))
	f.ttl = ttl
}

// collect puts a datagram, or a train, with those that wait to be sent.
func (t *udpTable) collect(d *netstack.Datagram) {
	if d.SegmentSize <= 0 {
		if !t.tx.Add(d.Payload) {
			t.send()
			t.tx.Add(d.Payload)
		}
		return
	}
	for rest := t.tx.AddSegments(d.Payload, d.SegmentSize); len(rest) > 0; {
		t.send()
		rest = t.tx.AddSegments(rest, d.SegmentSize)
	}
}

// flush sends what is collected and lets go of its flow: the memory that the
// datagrams lie in is about to be reused.
func (t *udpTable) flush() {
	if t.txFlow != nil {
		t.send()
		t.txFlow = nil
	}
}

// send sends what is collected. A pending error takes the place of one send,
// which is then made again.
func (t *udpTable) send() {
	f := t.txFlow
	fd := f.fd
	if f.visitor != nil {
		fd = f.visitor.port.bound.FD
	}
	tried := false
	for t.tx.Len() > 0 {
		sent, errno := t.tx.Send(fd)
		t.counters.datagramsToHost += uint64(sent)
		switch errno {
		case 0:
			t.tx.Drop()
			return
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			// The host's buffer is full: datagrams are lost, as on any network.
			t.counters.datagramsLost += uint64(t.tx.Len() - sent)
			t.tx.Drop()
			return
		}
		if f.visitor == nil {
			f.reportErrors()
		}
		if sent == 0 && tried { // it was not a pending error but this datagram's
			sent = 1
			t.counters.datagramsLost++
		}
		tried = sent == 0
		t.tx.Retry(sent)
	}
}

// touch says that the flow is in use. both: it has carried datagrams each way.
func (f *udpFlow) touch(both bool) {
	f.replied = f.replied || both
	l := &f.udp.unreplied
	if f.replied {
		l = &f.udp.stream
	}
	l.touch(&f.idleEntry, f.loop.Now())
}

// Ready implements reactor.Handler.
func (f *udpFlow) Ready(e reactor.Events) {
	if e.Failed() {
		f.reportErrors()
	}
	if e.Readable() {
		f.readable = true
		if !f.queued {
			f.queued = true
			f.schedule(f)
		}
	}
}

// work implements worker: it reads datagrams from the host.
func (f *udpFlow) work() (again bool) {
	f.queued = false
	for moved := 0; f.readable && f.fd >= 0; {
		if moved >= bytesPerFlow || f.rx.Full() {
			f.queued = true
			return true
		}
		first, end, drained, errno := f.rx.Receive(f.fd, datagramSlots)
		if errno == unix.ENOMEM || errno == unix.ENOBUFS {
			break // the kernel has lost it
		}
		if errno != 0 {
			f.reportErrors() // which clears it
			continue
		}
		f.readable = !drained
		for i := first; i < end; i++ {
			m := f.rx.Message(i)
			f.counters.datagramsToGuest++
			f.stack.SendUDPNoCopy(f.peer, f.sandbox, m.Payload, m.SegmentSize)
			moved += len(m.Payload)
			f.moved += len(m.Payload)
		}
		if end > first {
			f.touch(true)
		}
	}
	return false
}

// end implements idleFlow.
func (f *udpFlow) end(why string) {
	t := &f.udp
	if t.txFlow == f {
		t.flush()
	}
	f.idleEntry.remove()
	if t.flows[f.udpKey] == f {
		delete(t.flows, f.udpKey)
		f.disclaim(flowKey{header.ProtocolUDP, f.udpKey})
	}
	if f.visitor != nil {
		t.forgetVisitor(f)
	}
	if f.fd >= 0 {
		f.loop.Forget(f.token)
		hostsock.Close(f.fd)
		f.fd = -1
	}
	if f.debugs() {
		f.log.Debug("datagram flow ended", slog.String("sandbox", f.sandbox.String()),
			slog.String("peer", f.peer.String()), slog.String("reason", why))
	}
}

func (t *udpTable) close() {
	for _, f := range t.flows {
		f.end("closing")
	}
}
