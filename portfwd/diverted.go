package portfwd

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// divertedConn is what a splice that was a relay has of it.
type divertedConn struct {
	*shard
	splice   *splice
	from, to netip.AddrPort // the ends in the sandbox and elsewhere
	released tcp.Released   // what the socket inside went on from
	ruling   sync.Mutex     // held while the rule is changed
	ended    bool           // there is to be no rule any more
	fd       int            // inside, when the splice is done with it
	since    timer.Instant
	look     time.Duration
	timer    timer.Timer
}

const leavingLookMost = time.Second

// leave closes the socket inside once the kernel is done with the connection.
// Until then the rule is needed: what is still sent would meet nobody on the link.
func (d *divertedConn) leave(fd int) {
	hostsock.ShutdownWrite(fd)
	d.fd, d.since, d.look = fd, d.loop.Now(), time.Millisecond
	d.timer.Expire = func(timer.Instant) { d.lookOver() }
	d.leaving[d] = struct{}{}
	d.lookOver()
}

// lookOver looks whether it is. As for a relay, the time for the last acknowledgement
// does not run while there is payload, besides the end of the stream, that has none.
func (d *divertedConn) lookOver() {
	over := hostsock.Over(d.fd)
	if !over && hostsock.Unacked(d.fd) > 1 {
		d.since = d.loop.Now()
	}
	if !over && d.loop.Now().Sub(d.since) < d.cfg.Timeouts.TCPLastAck {
		d.timers.Arm(&d.timer, d.loop.Now().Add(d.look))
		d.look = min(2*d.look, leavingLookMost)
		return
	}
	d.gone()
	if !over {
		d.reset(d.fd)
		return
	}
	hostsock.CloseForeign(d.fd)
	d.left(d.forget)
}

// gone takes a connection that is leaving out of the shard's books.
func (d *divertedConn) gone() {
	d.timers.Disarm(&d.timer)
	delete(d.leaving, d)
}

// reset closes the socket inside, and sees to it that the sandbox hears of a reset.
func (d *divertedConn) reset(fd int) {
	end := d.forget
	if !hostsock.Over(fd) {
		acknowledged, received := hostsock.Moved(fd)
		una, next := d.released.SendNext+uint32(acknowledged), d.released.ReceiveNext+uint32(received)
		end = func() { d.stack.TCP().Abort(d.to, d.from, una, next) }
	}
	hostsock.Reset(fd)
	d.left(end)
}

func (d *divertedConn) forget() { d.stack.TCP().Forget(d.to, d.from) }

// left takes the rule back, and has the stack end its silence then.
func (d *divertedConn) left(end func()) {
	d.away--
	d.asking.Go(func() {
		d.ruling.Lock()
		d.ended = true
		err := d.cfg.Diverter.Undivert(d.from, d.to)
		d.ruling.Unlock()
		d.diverted.leave()
		if err != nil && d.debugs() {
			d.log.Debug("diverted connection", slog.String("sandbox", d.from.String()), slog.String("peer", d.to.String()), slog.Any("error", err))
		}
		d.loop.Post(func() {
			end()
			d.disclaim(tcpKey(d.to, d.from))
		})
	})
}

// mendAfter is how long frames of diverted connections may still come over the
// link before it is looked after them, and how often that is done at most.
const mendAfter = 300 * time.Millisecond

// watchAway looks whether diverted connections are back on the link, where they
// are ignored: the sandbox may change its own rules. The rules are seen to anew
// then; a connection whose rule cannot be had again is reset.
func (s *shard) watchAway() {
	now, strays := s.loop.Now(), s.stack.TCP().Stats().Drops.Released
	if strays == s.strays {
		return
	}
	s.strays = strays
	if now.Before(s.mend) {
		return
	}
	s.mend = now.Add(mendAfter)
	for c := range s.splices.all {
		if d := c.diverted; d != nil {
			s.asking.Go(d.mendRule)
		}
	}
	for d := range s.leaving {
		s.asking.Go(d.mendRule)
	}
}

// mendRule has the rule be there, unless the connection has ended meanwhile.
func (d *divertedConn) mendRule() {
	d.ruling.Lock()
	defer d.ruling.Unlock()
	if d.ended {
		return
	}
	if err := d.cfg.Diverter.Divert(d.from, d.to); err != nil {
		d.loop.Post(func() { d.lost(err) })
	}
}

// lost ends a connection whose rule cannot be had again.
func (d *divertedConn) lost(err error) {
	if d.splice.server.fd >= 0 {
		d.splice.failed(err)
		d.splice.reset()
		return
	}
	if _, leaves := d.leaving[d]; leaves {
		d.gone()
		d.reset(d.fd)
	}
}

// closeDiversions ends those that are under way. The rules end with the sandbox, or
// with who is attached to it.
func (s *shard) closeDiversions() {
	for r := range s.relays {
		if r.diversion != nil {
			r.diversion.drop()
		}
	}
	for d := range s.leaving {
		s.timers.Disarm(&d.timer)
		hostsock.CloseForeign(d.fd)
	}
	clear(s.leaving) // a question that is under way may end in failure yet
}
