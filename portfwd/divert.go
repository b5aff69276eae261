package portfwd

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// # Bulk leaves the link
//
// A relay copies each byte twice. Once an outbound one has proved to carry bulk,
// its connection is taken off the link while it runs: a kernel socket inside the
// sandbox takes the stack's place in it (TCP_REPAIR), a routing rule inside brings
// the sandbox's segments of this one connection to that socket, over lo, and the
// two sockets are spliced. Neither end notices.
//
//	relayed ─▶ held: both ways run dry ─▶ suspended: socket and rule inside
//	─▶ spliced ─▶ leaving, until the kernel inside is done with it
//
// Held means: nothing more is read from the host, and the window towards the
// sandbox is not moved on, so that its sender stops at the edge, with everything
// acknowledged. Whatever fails until the rule is there, the relay goes on. What
// the sandbox's segments would meet on the link later on is a suspended
// connection, which ignores them.

// Diverter changes where the sandbox's own network leads one of its connections,
// as userns.Sandbox does. from is its end in the sandbox.
type Diverter interface {
	// Divert leads what is sent from one end to the other to a socket inside, or
	// says why that is not possible.
	Divert(from, to netip.AddrPort) error
	// Undivert takes that back.
	Undivert(from, to netip.AddrPort) error
}

// A relay carries bulk when it has moved bulkBytes, both ways together, within
// bulkTime: 0.7 Gbit/s.
const (
	bulkBytes = 8 << 20
	bulkTime  = 100 * time.Millisecond
)

const (
	// divertedMost bounds the connections that are diverted, or about to be, at a
	// time: each is a rule that the sandbox's every routing decision passes.
	divertedMost = 32
	// holdMost is how long a relay is held at most. An acknowledgement may be
	// delayed for 40 ms (TCP_DELACK_MIN). After holdTries times it is left alone.
	holdMost  = 60 * time.Millisecond
	holdTries = 8
	// holdQuiet is how long a sender that has not used its window up must have been
	// silent to count as stopped.
	holdQuiet = time.Millisecond
	holdLook  = time.Millisecond / 2
	// grantedWindow is what the sandbox may send when it is let go on, before the
	// kernel's own window counts: below a new socket's buffer (tcp_rmem).
	grantedWindow = 64 << 10
	// insideBuffer is the receive buffer of a socket inside, or what
	// net.core.rmem_max allows. Its sender is next door, and what the kernel would
	// let gather there, up to tcp_rmem, has left the cache when it is passed on: up
	// to a third slower.
	insideBuffer = 512 << 10
)

// divertTimes are bulkTime and holdMost, or longer ones of tests.
type divertTimes struct{ bulk, hold time.Duration }

// diversion is a relay on its way off the link: held, and then suspended. The
// shard's goroutine has it.
type diversion struct {
	*relay
	until timer.Instant // held until then at most
	timer timer.Timer

	suspended bool
	released  tcp.Released // the connection's state, when suspended
	inside    int          // the socket that takes the stack's place, or -1
}

// diverted counts connections over all shards.
type diverted struct{ now atomic.Int32 }

// enter counts one more, if there may be one.
func (d *diverted) enter() bool {
	if d.now.Add(1) > divertedMost {
		d.now.Add(-1)
		return false
	}
	return true
}

func (d *diverted) leave() { d.now.Add(-1) }

// passed is called when payload has moved.
func (r *relay) passed(n int) {
	r.touch()
	if r.bulk += n; r.bulk >= bulkBytes {
		r.sawBulk()
	}
}

// sawBulk is called after every bulkBytes. It may be within a call of the stack's.
func (r *relay) sawBulk() {
	now := r.loop.Now()
	quick := now.Sub(r.bulkSince) <= r.cfg.diverts.bulk
	r.bulk, r.bulkSince = 0, now
	if !quick || !r.mayDivert() || !r.diverted.enter() {
		return
	}
	d := &diversion{relay: r, until: now.Add(r.cfg.diverts.hold), inside: -1}
	d.timer.Expire = func(timer.Instant) { r.diverting = append(r.diverting, d) }
	r.diversion = d
	r.tries++
	r.conn.HoldWindow(true)
	r.diverting = append(r.diverting, d)
}

func (r *relay) mayDivert() bool {
	return r.cfg.Diverter != nil && r.ports.sockets != nil && !r.published && !r.stays && r.tries < holdTries && r.diversion == nil &&
		hostsock.RoutesAnew(r.conn.RemoteAddr().Addr().Is6())
}

// workDiversions looks at the relays that are held. It is called between the
// turn's output and the next input, when no call of the stack's is under way.
func (s *shard) workDiversions() {
	if s.away > 0 {
		s.watchAway()
	}
	if len(s.diverting) == 0 {
		return
	}
	list := s.diverting
	s.diverting = nil
	for _, d := range list {
		if d.current() && !d.suspended {
			d.look(s.loop.Now())
		}
	}
}

// current reports whether it was not ended.
func (d *diversion) current() bool { return d.relay.diversion == d }

// look goes on if both ways have run dry.
func (d *diversion) look(now timer.Instant) {
	switch {
	case d.conn.Still() && (d.conn.WindowUsedUp() || now.Sub(d.used) >= holdQuiet):
		d.suspend()
	case !now.Before(d.until):
		d.giveUp() // bulk will show again
	default:
		d.timers.Arm(&d.timer, now.Add(holdLook))
	}
}

// suspend puts a socket inside in the stack's place.
func (d *diversion) suspend() {
	fd, ok := d.ports.sockets.takeAny(d.conn.RemoteAddr().Addr().Is6())
	if !ok {
		d.giveUp() // there may be one when there is bulk again
		return
	}
	st, err := d.conn.Release()
	if err != nil {
		hostsock.Close(fd)
		d.fail("release", err)
		return
	}
	d.suspended, d.released, d.inside = true, st, fd
	hostsock.SetReceiveBuffer(fd, insideBuffer)
	if errno := hostsock.TakeUp(fd, d.established()); errno != 0 {
		d.fail("socket inside", errno)
		return
	}
	d.asking.Go(func() {
		err := d.cfg.Diverter.Divert(st.Remote, st.Local)
		d.loop.Post(func() {
			if d.current() {
				d.ruled(err)
			}
		})
	})
}

// established is the connection as a socket takes it up.
func (d *diversion) established() *hostsock.Established {
	st := &d.released
	return &hostsock.Established{
		Local: st.Local, Remote: st.Remote, SendNext: st.SendNext, ReceiveNext: st.ReceiveNext,
		SendWindow: st.SendWindow, MaxSendWindow: st.MaxSendWindow, SendWindowSeq: st.SendWindowSeq, ReceiveWindow: d.window(),
		MSS: st.MSS, WindowScaling: st.WindowScaling, SendScale: st.SendScale, ReceiveScale: st.ReceiveScale,
		SACKPermitted: st.SACKPermitted, Timestamps: st.Timestamps, Timestamp: st.Timestamp,
	}
}

// window is what the sandbox may send at first.
func (d *diversion) window() uint32 { return max(d.released.ReceiveWindow, grantedWindow) }

// ruled is called when the sandbox's segments lead to the socket inside.
func (d *diversion) ruled(err error) {
	if err != nil {
		d.fail("rule inside", err)
		return
	}
	hostsock.GoOn(d.inside)
	// The sandbox waits for a window, and would ask for one in some 200 ms.
	d.stack.TCP().Grant(d.released, d.window())
	d.spliced()
}

// spliced turns the relay into a splice.
func (d *diversion) spliced() {
	r := d.relay
	c := r.newSplice(r.fd)
	hostsock.TuneStream(d.inside)
	c.server.fd, c.server.readable, c.server.writable = d.inside, true, true
	c.client.hung = r.hung
	c.diverted = &divertedConn{shard: r.shard, splice: c, from: d.released.Remote, to: d.released.Local, released: d.released}
	r.loop.Remove(r.fd, r.token)
	r.fd, r.diversion = -1, nil
	r.timers.Disarm(&r.idle)
	delete(r.relays, r)
	r.counters.tcpDiverted++
	r.away++
	r.mend = r.loop.Now().Add(mendAfter)
	if r.debugs() {
		r.log.Debug("connection diverted", slog.Any("flow", r))
	}
	if c.client.register() != nil || c.server.register() != nil {
		c.reset()
		return
	}
	c.watch()
	c.wake()
}

// fail goes on over the link, for good.
func (d *diversion) fail(what string, err error) {
	if d.debugs() {
		d.log.Debug("connection stays on the link", slog.Any("flow", d.relay), slog.String("at", what), slog.Any("error", err))
	}
	d.stays = true
	d.giveUp()
}

// giveUp has the relay go on as before.
func (d *diversion) giveUp() {
	d.drop()
	d.noRoom = false // Release forgets who waits for room
	d.conn.HoldWindow(false)
	d.relay.wake()
}

// drop ends the diversion, with the connection back in the stack.
func (d *diversion) drop() {
	r := d.relay
	r.diversion = nil
	r.timers.Disarm(&d.timer)
	r.diverted.leave()
	if d.inside >= 0 {
		hostsock.Vanish(d.inside)
	}
	if d.suspended {
		r.stack.TCP().TakeBack(r.conn)
	}
}

// held reports whether the relay reads nothing from the host for now, suspended
// whether it does nothing at all.
func (r *relay) held() bool      { return r.diversion != nil }
func (r *relay) suspended() bool { return r.diversion != nil && r.diversion.suspended }
