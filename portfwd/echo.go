package portfwd

import (
	"log/slog"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"sbxnet/netstack"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
)

// echoKey names an echo flow: one ping in the sandbox.
type echoKey struct {
	src, dst netip.Addr
	id       uint16
}

// echoFlow carries echo requests out through a ping socket, and the answers
// back under the identifier that the sandbox chose.
type echoFlow struct {
	*shard
	echoKey
	idleEntry
	ping     *hostsock.Ping
	token    reactor.Token
	ttl      uint8
	readable bool
	queued   bool
}

// echoTable is the echo flows of a shard.
type echoTable struct {
	*shard
	flows map[echoKey]*echoFlow
	idle  idleList
	build []byte // for a request on its way out
}

func (t *echoTable) init(s *shard) {
	t.shard = s
	t.flows = make(map[echoKey]*echoFlow)
	t.idle.init(s.cfg.Timeouts.Echo, &s.timers)
}

// Echo implements netstack.Handler: the sandbox pings an address that is not
// the stack's own.
func (s *shard) Echo(e *netstack.Echo) {
	t := &s.echo
	f := t.flows[echoKey{e.Src, e.Dst, e.ID}]
	if f == nil {
		if f = t.open(e); f == nil {
			return
		}
	}
	if e.TTL != f.ttl {
		hostsock.SetTTL(f.ping.FD, e.Dst, hopsLeft(e.TTL))
		f.ttl = e.TTL
	}
	t.idle.touch(&f.idleEntry, s.loop.Now())
	if n := len(e.Payload) + 8; len(t.build) < n {
		t.build = make([]byte, n)
	}
	errno := f.ping.Send(t.build, e.Seq, e.Payload)
	if errno != 0 && errno != unix.EAGAIN { // an error that was pending, most likely
		f.reportErrors()
		errno = f.ping.Send(t.build, e.Seq, e.Payload)
	}
	if errno == 0 {
		s.counters.echoes++
	}
}

// open makes the flow of a first request, or returns nil.
func (t *echoTable) open(e *netstack.Echo) *echoFlow {
	to, v := t.policy.destination(netip.AddrPortFrom(e.Dst, 0))
	if v != allow {
		t.counters.echoDenied++
		t.deny(e, v)
		return nil
	}
	if len(t.flows) >= t.cfg.Limits.Echo {
		t.counters.echoEvicted++
		t.idle.oldest().end("evicted")
	}
	ping, errno := hostsock.OpenPing(to.Addr(), t.policy.from(e.Dst, to.Addr()))
	if errno != 0 {
		t.openFailed(e, errno)
		return nil
	}
	f := &echoFlow{shard: t.shard, echoKey: echoKey{e.Src, e.Dst, e.ID}, ping: ping, ttl: defaultTTL}
	f.flow = f
	var err error
	if f.token, err = t.loop.Add(ping.FD, reactor.Edge, f); err != nil {
		hostsock.Close(ping.FD)
		return nil
	}
	t.flows[f.echoKey] = f
	if t.debugs() {
		t.log.Debug("echo out", slog.String("sandbox", e.Src.String()), slog.String("peer", e.Dst.String()))
	}
	return f
}

// deny answers for hosts that are the policy's making, and tells of others that
// there are none.
func (t *echoTable) deny(e *netstack.Echo, v verdict) {
	switch v {
	case refuse:
		t.stack.SendEchoReply(e.Dst, e.Src, e.ID, e.Seq, e.Payload)
	case noHost, noNet:
		t.stack.SendEchoUnreachable(e.Src, e.Dst, e.ID, e.Seq, v.refusal(), netip.Addr{})
	}
}

func (t *echoTable) openFailed(e *netstack.Echo, errno unix.Errno) {
	switch errno {
	case unix.EACCES, unix.EPERM:
		t.counters.echoDenied++
		t.pingForbidden.Do(func() {
			t.warn("ping from the sandbox gets no answer: this host allows group %d no ping sockets; "+
				"to allow it: sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"", os.Getegid())
		})
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT:
		t.counters.echoFailed++
		t.stack.SendEchoUnreachable(e.Src, e.Dst, e.ID, e.Seq, connectRefusal(errno), netip.Addr{})
	default:
		t.counters.echoFailed++
	}
}

// Ready implements reactor.Handler.
func (f *echoFlow) Ready(e reactor.Events) {
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

// work implements worker: it reads answers.
func (f *echoFlow) work() (again bool) {
	f.queued = false
	for f.readable && f.ping != nil {
		if f.rx.Full() {
			f.queued = true
			return true
		}
		first, end, drained, errno := f.rx.Receive(f.ping.FD, datagramSlots)
		if errno == unix.ENOMEM || errno == unix.ENOBUFS {
			break // the kernel has lost it
		}
		if errno != 0 {
			f.reportErrors()
			continue
		}
		f.readable = !drained
		for i := first; i < end; i++ {
			if seq, payload, ok := f.ping.Reply(f.rx.Message(i).Payload); ok {
				f.stack.SendEchoReply(f.dst, f.src, f.id, seq, payload)
			}
		}
	}
	return false
}

// reportErrors tells the sandbox what the network said about its requests.
func (f *echoFlow) reportErrors() {
	for range reportsPerTurn {
		r, ok := f.errors.Next(f.ping.FD)
		if !ok {
			hostsock.PendingError(f.ping.FD)
			return
		}
		if seq, ok := f.ping.Quoted(r.Payload); ok {
			f.report(&r, seq)
		}
	}
}

func (f *echoFlow) report(r *hostsock.Report, seq uint16) {
	from := offender(r, f.dst)
	switch {
	case isTimeExceeded(r):
		f.stack.SendEchoTimeExceeded(f.src, f.dst, f.id, seq, from)
	case r.Errno == unix.EMSGSIZE: // a ping that does not fit is lost
	default:
		f.stack.SendEchoUnreachable(f.src, f.dst, f.id, seq, unreachableReason(r), from)
	}
}

// end implements idleFlow.
func (f *echoFlow) end(string) {
	f.idleEntry.remove()
	delete(f.echo.flows, f.echoKey)
	if f.ping != nil {
		f.loop.Forget(f.token)
		hostsock.Close(f.ping.FD)
		f.ping = nil
	}
}

func (t *echoTable) close() {
	for _, f := range t.flows {
		f.end("closing")
	}
}
