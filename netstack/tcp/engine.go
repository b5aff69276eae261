package tcp

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// Packet is one TCP segment from the link, or a super-segment of up to 64 KiB
// that the link coalesced. Its checksum has been verified. TCP keeps no part of
// it after Input returns.
type Packet struct {
	Now         timer.Instant // when the frame was read
	Src, Dst    netip.Addr
	TCP         []byte // header and payload
	ECN         uint8  // the IP header's ECN codepoint
	SegmentSize int    // payload of each segment it was coalesced from; 0: it is one segment
}

// flowKey is a connection's pair of ends.
type flowKey struct{ local, remote netip.AddrPort }

// Engine is all TCP of one stack. It has one owner, who makes every call.
type Engine struct {
	cfg        Config
	out        Output
	timers     *timer.Queue
	now        timer.Instant
	conns      map[flowKey]*Conn
	released   map[flowKey]struct{} // by Release, until Forget
	last       *Conn                // the one the last segment was for
	timeWaits  timeWaits
	listeners  map[netip.AddrPort]*Listener
	onOpen     func(c *Conn)
	congestion congestion
	pool       pool
	stats      Stats
	trips      trips

	dirtyHead, dirtyTail *Conn

	reply      Route // of an answer that belongs to no connection
	nextPort   uint32
	isnFloor   seq.Value // the least ISN of what the current segment opens, if isnFloored
	isnFloored bool
}

// NewEngine returns an engine that sends through out and keeps its timers in
// timers, which the owner runs and may share. An unknown congestion control
// means CUBIC.
func NewEngine(cfg Config, out Output, timers *timer.Queue) *Engine {
	cfg.setDefaults()
	e := &Engine{
		cfg: cfg, out: out, timers: timers,
		conns:      map[flowKey]*Conn{},
		released:   map[flowKey]struct{}{},
		listeners:  map[netip.AddrPort]*Listener{},
		congestion: cubic{},
		pool:       newPool(cfg.Memory, cfg.Limits),
		nextPort:   cfg.Rand.Uint32(),
	}
	if cfg.Congestion == "newreno" {
		e.congestion = newReno{}
	}
	e.timeWaits.byKey = map[flowKey]*timeWait{}
	e.timeWaits.timer.Expire = e.expireTimeWaits
	return e
}

// SetNow sets the clock that all calls use until the next SetNow or Input.
func (e *Engine) SetNow(now timer.Instant) { e.now = now }

// Input processes one segment, and sets the clock to p.Now. Answers are appended
// to the batch by Flush, but for those that belong to no connection. p and its
// bytes are the caller's again when Input returns.
func (e *Engine) Input(p *Packet) {
	e.now = p.Now
	e.stats.SegmentsIn++
	h, payload, ok := header.ParseTCP(p.TCP)
	if !ok || impossible(h.Flags()) || h.SourcePort() == 0 || h.DestinationPort() == 0 {
		e.stats.Drops.Malformed++
		return
	}
	s := segment{
		seq: h.Seq(), ack: h.Ack(), flags: h.Flags(), wnd: h.Window(),
		ecn: p.ECN & 3, size: p.SegmentSize, payload: payload, opt: h.Options(),
	}
	k := flowKey{
		netip.AddrPortFrom(p.Dst, h.DestinationPort()),
		netip.AddrPortFrom(p.Src, h.SourcePort()),
	}
	if c := e.find(&k); c != nil {
		if !c.fastPath(&s) {
			c.input(&s)
		}
		return
	}
	if e.isReleased(k) {
		e.stats.Drops.Released++
		return
	}
	if w := e.timeWaits.find(k); w != nil && !e.inputTimeWait(w, &s) {
		return
	}
	e.inputUnclaimed(k, &s)
	e.isnFloored = false
}

// find looks a connection up. Segments come in runs, so the last one is tried
// first.
func (e *Engine) find(k *flowKey) *Conn {
	if c := e.last; c != nil && c.route.Remote == k.remote && c.route.Local == k.local {
		return c
	}
	c := e.conns[*k]
	if c != nil {
		e.last = c
	}
	return c
}

// full reports whether the connection limit is reached.
func (e *Engine) full() bool { return len(e.conns)+len(e.released) >= e.cfg.Limits.Connections }

// inputUnclaimed handles a segment of no known connection: RFC 9293 §3.10.7.1
// and §3.10.7.2.
func (e *Engine) inputUnclaimed(k flowKey, s *segment) {
	if s.flags.Has(header.RST) {
		e.stats.Drops.Stray++ // no RST answers an RST
		return
	}
	l := e.findListener(k.local)
	switch {
	case s.flags.Has(header.ACK):
		if l != nil && !s.flags.Has(header.SYN) && l.inputACK(k, s) {
			return
		}
	case s.flags.Has(header.SYN) && l != nil:
		l.inputSYN(k, s)
		return
	case s.flags.Has(header.SYN) && e.onOpen != nil:
		e.hold(k, s)
		return
	}
	e.stats.Drops.Stray++
	e.refuseStray(k, s)
}

// hold keeps a SYN for the open handler to decide about.
func (e *Engine) hold(k flowKey, s *segment) {
	switch {
	case e.full():
		e.stats.Drops.TooMany++
		e.refuseStray(k, s)
		return
	case e.stats.Held >= e.cfg.Limits.Held:
		e.stats.Drops.HeldOverflow++ // the client's next SYN may find room
		return
	}
	o := openOf(s)
	c := e.newPassive(k, &o)
	c.state = Held
	c.attach()
	c.arm(timerLinger, holdTimeout)
	e.stats.Held++
	e.onOpen(c)
}

// refuseStray answers a segment that belongs to nothing with RST (RFC 9293
// §3.10.7.1).
func (e *Engine) refuseStray(k flowKey, s *segment) {
	e.reply = Route{Local: k.local, Remote: k.remote}
	if s.flags.Has(header.ACK) {
		e.sendReset(&e.reply, s.ack, 0, false)
		return
	}
	e.sendReset(&e.reply, 0, s.end(), true)
}

// sendReset sends an RST, with an acknowledgement if withAck.
func (e *Engine) sendReset(r *Route, at, ack seq.Value, withAck bool) {
	f := header.TCPFields{Seq: at, Flags: header.RST}
	if withAck {
		f.Ack, f.Flags = ack, header.RST|header.ACK
	}
	r.ECN = ecnNotCapable
	e.put(r, f, 0)
	e.stats.ResetsOut++
}

// markDirty has Flush look at the connection.
func (c *Conn) markDirty() {
	if c.dirty {
		return
	}
	e := c.engine
	c.dirty = true
	if e.dirtyTail == nil {
		e.dirtyHead = c
	} else {
		e.dirtyTail.nextDirty = c
	}
	e.dirtyTail = c
}

// Flush emits what connections have to say: acknowledgements, data, window
// updates; and makes the handler calls that wait for it.
func (e *Engine) Flush() {
	for c := e.dirtyHead; c != nil; c = e.dirtyHead {
		e.dirtyHead = c.nextDirty
		if e.dirtyHead == nil {
			e.dirtyTail = nil
		}
		c.nextDirty = nil
		c.flush()
	}
}

// Reclaim lets buffers be reused that frames pointed into. It is called after
// the batch is on the link.
func (e *Engine) Reclaim() { e.pool.reclaim() }

// IdleBytes is the memory of buffers that nothing is in, kept for reuse.
func (e *Engine) IdleBytes() int { return e.pool.idle() }

// Trim gives that memory back to [Memory].
func (e *Engine) Trim() { e.pool.trim() }

// SetOpenHandler has f called for a SYN to an address and port where nobody
// listens. The connection is then held: nothing is sent and further SYNs of the
// flow are absorbed until Accept or Refuse is called on it, in f or later. A
// handler set with SetHandler meanwhile learns in Closed that the peer has
// reset, or that the hold took longer than any client waits. Without f such a
// SYN is answered with RST.
func (e *Engine) SetOpenHandler(f func(c *Conn)) { e.onOpen = f }

// Dial opens a connection from local, any address and, unless 0, port, to
// remote. The SYN goes out with the next Flush; h hears of all that follows. It
// fails with ErrAddress, ErrTooMany, ErrNoPorts or ErrInUse.
func (e *Engine) Dial(local, remote netip.AddrPort, h Handler) (*Conn, error) {
	local, remote = unmap(local), unmap(remote)
	if !local.Addr().IsValid() || !remote.IsValid() || remote.Port() == 0 ||
		local.Addr().Is4() != remote.Addr().Is4() {
		return nil, ErrAddress
	}
	if e.full() {
		return nil, ErrTooMany
	}
	if local.Port() == 0 {
		port := e.pickPort(local.Addr(), remote)
		if port == 0 {
			return nil, ErrNoPorts
		}
		local = netip.AddrPortFrom(local.Addr(), port)
	}
	k := flowKey{local, remote}
	if e.conns[k] != nil || e.isReleased(k) {
		return nil, ErrInUse
	}
	e.reuseTimeWait(k)
	c := e.newConn(k)
	c.handler = h
	c.startSending(e.isn(&k))
	e.isnFloored = false
	c.tsOffset = e.timestampOffset(&k)
	c.sackOK, c.tsOK, c.scaleOK = true, true, true
	c.rcvShift = windowShift(e.cfg.ReceiveBufferMax)
	c.state = SynSent
	c.attach()
	c.synDue = true
	c.markDirty()
	e.stats.ActiveOpens++
	return c, nil
}

// reuseTimeWait makes place for a connection between ends whose last one is in
// TIME-WAIT: the caller has named both ports. The ISN lies beyond all the old
// one used (RFC 6191 §2).
func (e *Engine) reuseTimeWait(k flowKey) {
	if w := e.timeWaits.find(k); w != nil {
		e.isnFloor, e.isnFloored = w.sndNxt.Add(1<<16+1), true
		e.timeWaits.remove(w)
	}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
