package tcp

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// timeWait is what is left of a connection in TIME-WAIT: enough to answer its
// peer's last FIN and to tell old segments from a new connection's.
type timeWait struct {
	key            flowKey
	older, newer   *timeWait
	expires        timer.Instant
	sndNxt, rcvNxt seq.Value
	wnd            uint16
	tsOK           bool
	tsOffset       uint32
	tsRecent       uint32
	challenge      ackLimiter
}

// timeWaits is all records, and their order of expiry: as every one lasts as
// long, the order of arrival.
type timeWaits struct {
	byKey          map[flowKey]*timeWait
	oldest, newest *timeWait
	timer          timer.Timer
}

func (t *timeWaits) find(k flowKey) *timeWait { return t.byKey[k] }

func (t *timeWaits) unlink(w *timeWait) {
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		t.oldest = w.newer
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		t.newest = w.older
	}
	w.older, w.newer = nil, nil
}

func (t *timeWaits) append(w *timeWait) {
	w.older = t.newest
	if w.older != nil {
		w.older.newer = w
	} else {
		t.oldest = w
	}
	t.newest = w
}

func (t *timeWaits) remove(w *timeWait) {
	t.unlink(w)
	delete(t.byKey, w.key)
}

// becomeTimeWait leaves a record in the connection's place. The Conn lives on
// for its handler only, until that has all the data.
func (c *Conn) becomeTimeWait() {
	e := c.engine
	w := &timeWait{
		key: c.key(), sndNxt: c.sndNxt, rcvNxt: c.rcvNxt, tsOK: c.tsOK,
		tsOffset: c.tsOffset, tsRecent: c.tsRecent, wnd: c.selectWindow(),
	}
	c.state = TimeWait
	if c.ackNow {
		c.sendBare(c.sndNxt) // the acknowledgement of the FIN; Flush no longer finds anything to say
	}
	c.detach()
	c.sent = sentQueue{}
	c.markDirty()
	for len(e.timeWaits.byKey) >= e.cfg.Limits.TimeWait {
		e.timeWaits.remove(e.timeWaits.oldest)
		e.stats.TimeWaitEvicted++
	}
	e.timeWaits.byKey[w.key] = w
	e.startTimeWait(w)
}

func (e *Engine) startTimeWait(w *timeWait) {
	w.expires = e.now.Add(timeWaitTimeout)
	e.timeWaits.append(w)
	e.timers.ArmEarlier(&e.timeWaits.timer, w.expires)
}

// expireTimeWaits drops the records whose time is over.
func (e *Engine) expireTimeWaits(now timer.Instant) {
	e.now = now
	t := &e.timeWaits
	for t.oldest != nil && t.oldest.expires <= now {
		t.remove(t.oldest)
	}
	if t.oldest != nil {
		e.timers.Arm(&t.timer, t.oldest.expires)
	}
}

// inputTimeWait handles a segment of a connection in TIME-WAIT. It reports true
// if the segment opens a new one, for which the record has made place.
func (e *Engine) inputTimeWait(w *timeWait, s *segment) (reopen bool) {
	if s.flags.Has(header.RST) {
		return false // RFC 1337: TIME-WAIT is not assassinated
	}
	if s.flags.Has(header.SYN) && !s.flags.Has(header.ACK) && w.admits(s) {
		// Past all that the old connection used, whatever the clock says.
		e.isnFloor, e.isnFloored = w.sndNxt.Add(1<<16+1), true
		e.timeWaits.remove(w)
		return true
	}
	if s.flags.Has(header.FIN) && s.end() == w.rcvNxt {
		// The peer has not had our last ACK: begin again (RFC 9293 §3.10.7.4).
		e.timeWaits.unlink(w)
		e.startTimeWait(w)
		e.ackTimeWait(w)
		return false
	}
	if s.end() != w.rcvNxt || s.length() > 0 {
		if w.challenge.allow(e.now) {
			e.ackTimeWait(w)
		} else {
			e.stats.ChallengesWithheld++
		}
	}
	return false
}

// admits reports whether a SYN cannot be an old one: a newer timestamp (RFC
// 6191 §2), or without those a newer sequence number (RFC 9293 §3.6.1).
func (w *timeWait) admits(s *segment) bool {
	if w.tsOK && s.opt.Timestamp && s.opt.TSVal != w.tsRecent {
		return int32(s.opt.TSVal-w.tsRecent) > 0
	}
	return w.rcvNxt.LessThan(s.seq)
}

func (e *Engine) ackTimeWait(w *timeWait) {
	o := header.TCPOptions{Timestamp: w.tsOK}
	if w.tsOK {
		o.TSVal, o.TSEcr = timestampClock(e.now)+w.tsOffset, w.tsRecent
	}
	e.reply = Route{Local: w.key.local, Remote: w.key.remote}
	f := header.TCPFields{
		Seq: w.sndNxt, Ack: w.rcvNxt, Flags: header.ACK, Window: w.wnd, OptionsLen: o.Len(),
	}
	if fr, b := e.put(&e.reply, f, 0); fr != nil {
		header.PutTCPOptions(b[header.TCPMinLen:], &o)
	}
}
