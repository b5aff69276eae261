package tcp

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// A connection can be taken out of the stack while it runs, to be carried on by
// somebody else: a kernel's socket, made with TCP_REPAIR. The peer must notice
// nothing, so nothing may be under way in either direction when it changes hands:
//
//	HoldWindow(true)   the peer runs into the right edge, and stops
//	Still              all that either side sent has arrived and was taken
//	Release            the connection is gone from here, without a word
//	…                  the other one takes up its state
//	Grant              one last acknowledgement, which opens the window
//	Forget             the two ends may meet here again
//
// or, if nobody can take it up, TakeBack; and Abort in place of Forget if its peer
// is to be reset.
//
// Between Release and Forget the stack drops what comes between the two ends:
// stale segments on the link must not be answered by one who knows nothing of
// them.

// Released is the state of a connection between segments, in host byte order,
// for another to go on with. That is the one who sends what is to be sent from
// now on, an acknowledgement that is owed included. It need not use ECN.
type Released struct {
	Local, Remote netip.AddrPort // the stack's end, the sandbox's end

	SendNext    uint32 // SND.NXT, and SND.UNA too
	ReceiveNext uint32 // RCV.NXT

	SendWindow    uint32 // the peer's window, bytes
	MaxSendWindow uint32 // the widest it has ever been, bytes
	SendWindowSeq uint32 // SND.WL1: of the segment that the window is from
	ReceiveWindow uint32 // from ReceiveNext to the right edge the peer was told, bytes

	SendScale, ReceiveScale uint8 // of the peer's windows and of ours; 0 without the option
	WindowScaling           bool  // both SYNs had the option

	// MSS is the bytes of payload and options in a full segment of ours: the peer's
	// MSS option, or what the path carries if that is less.
	MSS           int
	SACKPermitted bool

	Timestamps      bool
	Timestamp       uint32 // TSval of a segment of ours now, in milliseconds (RFC 7323 §5.4)
	TimestampRecent uint32 // TS.Recent: the TSval to echo
}

// Still reports whether nothing is under way: the connection is established and
// accepted, neither side has closed, all that was queued is acknowledged, and all
// that has arrived is in order and taken. Within Handler.Data it is not.
func (c *Conn) Still() bool {
	open := c.state == Established && c.listener == nil && !c.writeClosed && !c.peerFINKnown
	taken := !c.offering && c.Buffered() == 0 && len(c.in.ranges) == 0
	return open && c.Unacked() == 0 && taken
}

// WindowUsedUp reports whether the window takes no full segment of the peer's any
// more. Senders do not cut one for what is left, or only after a while.
func (c *Conn) WindowUsedUp() bool { return int(c.rcvAdv.Diff(c.rcvNxt)) < c.rcvMSS }

// Release takes the connection out of the stack and returns its state. Nothing
// is sent, and no handler called any more; timers end and buffers are given back.
// Until Forget the connection counts towards Limits.Connections, and segments
// between its ends are dropped. If it is not Still, nothing changes and the error
// is ErrNotStill.
func (c *Conn) Release() (Released, error) {
	if !c.Still() {
		return Released{}, ErrNotStill
	}
	e, r := c.engine, c.released()
	c.closedTold = true
	c.close(nil)
	e.released[c.key()] = struct{}{}
	return r, nil
}

// released is the connection's state.
func (c *Conn) released() Released {
	return Released{
		Local: c.route.Local, Remote: c.route.Remote,
		SendNext: uint32(c.sndNxt), ReceiveNext: uint32(c.rcvNxt),
		SendWindow: c.sndWnd, MaxSendWindow: c.maxSndWnd, SendWindowSeq: uint32(c.sndWl1),
		ReceiveWindow: c.rcvNxt.Size(c.rcvAdv),
		SendScale:     c.sndShift, ReceiveScale: c.rcvShift, WindowScaling: c.scaleOK,
		MSS: min(c.peerMSS, c.engine.pathMSS(c)), SACKPermitted: c.sackOK,
		Timestamps: c.tsOK, Timestamp: c.tsval(), TimestampRecent: c.tsRecent,
	}
}

// Grant appends one acknowledgement to the batch in the name of a connection that
// was released and not forgotten, with a window of so many bytes: rounded down to
// the window's scale, but never less than the peer has been told.
//
// Its TSval is that of the release. The clock of the one who goes on begins there,
// later than that: with a newer one its first segments would be old to the peer
// (RFC 7323 §5.3).
func (e *Engine) Grant(r Released, window uint32) {
	k := flowKey{unmap(r.Local), unmap(r.Remote)}
	if !e.isReleased(k) {
		return
	}
	o := header.TCPOptions{Timestamp: r.Timestamps}
	if r.Timestamps {
		o.TSVal, o.TSEcr = r.Timestamp, r.TimestampRecent
	}
	e.reply = Route{Local: k.local, Remote: k.remote}
	f := header.TCPFields{
		Seq: seq.Value(r.SendNext), Ack: seq.Value(r.ReceiveNext), Flags: header.ACK,
		Window: r.windowField(window), OptionsLen: o.Len(),
	}
	if fr, b := e.put(&e.reply, f, 0); fr != nil {
		header.PutTCPOptions(b[header.TCPMinLen:], &o)
	}
}

// windowField says a window of so many bytes, as far as the field can.
func (r *Released) windowField(window uint32) uint16 {
	unit := uint64(1) << r.ReceiveScale
	told := (uint64(r.ReceiveWindow) + unit - 1) / unit
	return uint16(min(max(uint64(window)/unit, told), 0xffff))
}

// TakeBack undoes Release, for a connection that was not forgotten: it goes on as
// before. What the peer has sent meanwhile is lost, and will come again; a last
// acknowledgement tells it where.
func (e *Engine) TakeBack(c *Conn) {
	if c.engine != e || c.attached || !e.isReleased(c.key()) {
		return
	}
	delete(e.released, c.key())
	c.state, c.err, c.closedTold = Established, nil, false
	c.attach()
	c.armKeepAlive()
	c.ackNow = true
	c.markDirty()
}

// Forget ends the silence about a connection that was released: its ends may
// meet again, and a segment that is late by now gets a reset.
func (e *Engine) Forget(local, remote netip.AddrPort) {
	delete(e.released, flowKey{unmap(local), unmap(remote)})
}

// garbage is an octet of a stream that its receiver has had long ago.
var garbage = []byte{0}

// Abort is Forget for a connection that is to end with a reset, whatever its peer has
// heard of that. Who went on with it may have sent an RST, but a peer that has lost
// what came before takes none beyond that (RFC 5961 §3): it asks, and that may have
// come here while the stack was silent.
//
// So the peer, if it still has the connection, is made to say where it is, by an octet
// from before una, the first that it has not acknowledged for all that is known; next is
// what comes next of its own stream, likewise. What it says meets nobody, and is
// answered with an RST that it takes. An octet, as Linux answers segments without
// payload at most twice a second (tcp_oow_rate_limited, net/ipv4/tcp_input.c).
func (e *Engine) Abort(local, remote netip.AddrPort, una, next uint32) {
	k := flowKey{unmap(local), unmap(remote)}
	if !e.isReleased(k) {
		return
	}
	delete(e.released, k)
	e.reply = Route{Local: k.local, Remote: k.remote}
	f := header.TCPFields{Seq: seq.Value(una).Sub(2), Ack: seq.Value(next), Flags: header.ACK}
	if fr, _ := e.put(&e.reply, f, len(garbage)); fr != nil {
		fr.Payload[0] = garbage
	}
}

// isReleased reports whether a connection between these ends was released and
// not forgotten.
func (e *Engine) isReleased(k flowKey) bool {
	_, ok := e.released[k]
	return ok
}
