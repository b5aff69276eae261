package portfwd

import (
	"time"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// A relay is idle when no payload has moved either way, and none is on its way
// to either end, where TCP keeps packets going, and gives up in its own time.
// Moving payload costs a store: the timer stays where it is, and looks when it
// expires.

// touch says that payload has moved.
func (r *relay) touch() { r.used = r.loop.Now() }

// watch has the relay end when it stays idle from now on for as long as its
// state allows. It is called when that has changed.
func (r *relay) watch() {
	r.touch()
	if r.idle.Expire == nil {
		r.idle.Expire = r.lookIdle
	}
	r.timers.Arm(&r.idle, r.used.Add(r.idleLimit()))
}

// forget takes the relay out of the shard's books.
func (r *relay) forget() {
	if r.conn != nil {
		r.disclaim(tcpKey(r.conn.LocalAddr(), r.conn.RemoteAddr()))
	}
	r.timers.Disarm(&r.idle)
	delete(r.relays, r)
}

// idleLimit is how long the relay may be idle in its state, in nf_conntrack's
// terms. A FIN that the host's peer has not acknowledged counts as payload.
func (r *relay) idleLimit() time.Duration {
	t := &r.cfg.Timeouts
	switch {
	case !r.open:
		return t.TCPConnect
	case r.hostEOF && r.guestEOF:
		return t.TCPLastAck
	case r.hostEOF && r.conn.State() == tcp.FinWait1:
		return t.TCPFinWait
	case r.hostEOF || r.guestEOF:
		return t.TCPCloseWait
	}
	return t.TCPEstablished
}

// lookIdle ends the relay if it is idle, and else looks again later.
func (r *relay) lookIdle(now timer.Instant) {
	if r.open && (r.suspended() || r.underWay()) {
		r.used = now
	}
	if due := r.used.Add(r.idleLimit()); now.Before(due) {
		r.timers.Arm(&r.idle, due)
		return
	}
	r.counters.tcpIdle++
	if r.connecting {
		r.closeHost(hostsock.Close)
		r.forget()
		r.refused(r.conn, tcp.Silent, "no answer")
		return
	}
	r.abort()
}

// underWay reports whether there is payload that has not arrived yet.
func (r *relay) underWay() bool {
	return r.conn.Unacked() > 0 || r.conn.Buffered() > 0 || r.fd >= 0 && hostsock.Unacked(r.fd) > 0
}
