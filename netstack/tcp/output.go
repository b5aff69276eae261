package tcp

import (
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

const ethernetLen = 14

// flush makes the handler calls that are due, then sends what is to be sent.
func (c *Conn) flush() {
	c.deliver()
	c.dirty = false
	switch c.state {
	case Closed, Held, TimeWait:
	case SynSent:
		c.sendSYN()
	case SynReceived:
		c.sendSYN()
		if c.ackNow {
			c.sendBare(c.sndNxt) // what is not acceptable is answered here too (RFC 9293 §3.10.7.4, first)
		}
	default:
		if c.in.fresh > 1 || c.dupOwed > 0 {
			c.reportRanges()
		}
		if c.lost > 0 {
			c.retransmitLost()
		}
		c.sendNew()
		c.sendACKIfDue()
	}
}

// sendSYN sends the SYN or SYN-ACK that is due. Its options come in the order
// mss, sackOK, timestamp, window scale; its window is not scaled (RFC 7323 §2.2).
func (c *Conn) sendSYN() {
	if !c.synDue {
		return
	}
	c.synDue = false
	o := header.TCPOptions{
		HasMSS: true, MSS: c.engine.advertisedMSS(c.route.Local.Addr()),
		SACKPermitted: c.sackOK, Timestamp: c.tsOK, HasWindowScale: c.scaleOK,
		WindowScale: c.rcvShift,
	}
	f := header.TCPFields{Seq: c.iss, Flags: header.SYN}
	if c.asksECN() {
		f.Flags |= header.ECE | header.CWR
	}
	if c.tsOK {
		o.TSVal = c.tsval()
	}
	if c.state == SynReceived {
		f.Ack, f.Flags = c.rcvNxt, header.SYN|header.ACK
		o.TSEcr = c.tsRecent
		if c.ecnOK {
			f.Flags |= header.ECE
		}
		c.lastAckSent, c.ackNow = c.rcvNxt, false
	}
	wnd := min(c.engine.cfg.ReceiveBuffer, 0xffff)
	f.Window = uint16(wnd)
	if c.state == SynReceived {
		c.rcvAdv = seq.Max(c.rcvAdv, c.rcvNxt.Add(uint32(wnd)))
	}
	f.OptionsLen = o.SYNLen()
	c.route.ECN = ecnNotCapable
	if fr, b := c.engine.put(&c.route, f, 0); fr != nil {
		header.PutTCPSYNOptions(b[header.TCPMinLen:], &o)
	}
	if c.retries == 0 {
		c.synSentAt = c.engine.now
	}
	c.arm(timerRetransmit, c.rtt.rto)
}

// put appends a frame for a segment, fills in its fixed header and leaves the
// checksum to the link. The caller writes the options and the payload.
func (e *Engine) put(r *Route, f header.TCPFields, payloadLen int) (*frame.Frame, []byte) {
	tcpLen := header.TCPMinLen + f.OptionsLen
	fr, b := e.out.AppendTCP(r, tcpLen, payloadLen)
	if fr == nil {
		e.stats.Drops.Unresolved++
		return nil, nil
	}
	f.SourcePort, f.DestinationPort = r.Local.Port(), r.Remote.Port()
	header.PutTCP(b, f)
	header.TCP(b[:tcpLen]).SetPartialChecksum(r.Local.Addr(), r.Remote.Addr(), payloadLen)
	fr.NeedsChecksum = true
	fr.ChecksumStart = uint16(len(fr.Header) - tcpLen)
	fr.ChecksumOffset = header.TCPChecksumOffset
	fr.HeaderLen = uint16(len(fr.Header))
	e.stats.SegmentsOut++
	return fr, b
}

// tsval is the clock of our timestamps (RFC 7323 §5.4).
func (c *Conn) tsval() uint32 { return c.tsvalAt(c.engine.now) }

// options returns what a segment without SYN carries now, and its length. SACK
// reports begin with the range numbered from, 0 being the newest.
func (c *Conn) options(from int) (o header.TCPOptions, n int) {
	limit := header.MaxSACKBlocks
	if c.tsOK {
		o.Timestamp, o.TSVal, o.TSEcr = true, c.tsval(), c.tsRecent
		limit--
	}
	if len(c.in.ranges) > 0 || c.dsack.len() > 0 {
		c.sackOptions(&o, limit, from)
	}
	return o, o.Len()
}

// transmit sends n bytes of the send buffer from start, n ≤ chunkSize, with an
// acknowledgement. Without a next hop it still counts as sent, and as lost.
func (c *Conn) transmit(start seq.Value, n int, flags header.TCPFlags, mss int, o *header.TCPOptions) {
	e := c.engine
	flags |= header.ACK
	if c.ecnEcho {
		flags |= header.ECE
	}
	f := header.TCPFields{
		Seq: start, Ack: c.rcvNxt, Flags: flags, Window: c.selectWindow(), OptionsLen: o.Len(),
	}
	fr, b := e.put(&c.route, f, n)
	c.noteAckSent()
	if fr == nil {
		return
	}
	if o.Timestamp {
		c.trip.sent(o.TSVal, e.now)
	}
	header.PutTCPOptions(b[header.TCPMinLen:], o)
	if n > 0 {
		fr.Payload = c.buf.at(int(c.bufStart().Size(start)), n)
		c.lastSend = e.now
	}
	if n > mss {
		fr.GSOType, fr.GSOSize = e.gsoType(c), uint16(mss)
		fr.ECN = flags.Has(header.CWR)
	}
}

func (e *Engine) gsoType(c *Conn) frame.GSOType {
	if c.route.Local.Addr().Is4() {
		return frame.GSOTCPv4
	}
	return frame.GSOTCPv6
}

// sendBare sends a segment without payload.
func (c *Conn) sendBare(at seq.Value) { c.sendBareFrom(at, 0) }

// sendBareFrom is sendBare with the SACK reports beginning elsewhere.
func (c *Conn) sendBareFrom(at seq.Value, from int) {
	o, _ := c.options(from)
	c.route.ECN = ecnNotCapable // RFC 3168 §6.1.4
	c.transmit(at, 0, 0, c.mss, &o)
}

// sendProbe asks the peer for an acknowledgement with a segment it cannot accept.
func (c *Conn) sendProbe() { c.sendBare(c.sndUna.Sub(1)) }

// sendNew sends queued data for the first time, and the FIN behind it, as far
// as both windows allow.
func (c *Conn) sendNew() {
	if c.unsent() == 0 && !c.finDue() {
		c.cwndLimited = false
		return
	}
	c.restartAfterIdle()
	c.agePath()
	o, optLen := c.options(0)
	mss := max(1, c.mss-(optLen-c.fixedOptions()))
	for c.sendOne(mss, &o) && !c.tlp.sendNew {
	}
}

// fixedOptions is the length of the options that c.mss already allows for.
func (c *Conn) fixedOptions() int {
	if c.tsOK {
		return 12
	}
	return 0
}

// finDue reports whether the FIN is queued and has not been sent.
func (c *Conn) finDue() bool { return c.writeClosed && !c.finSent && c.state.synchronized() }

// sendOne sends one super-segment, and reports whether another may follow.
func (c *Conn) sendOne(mss int, o *header.TCPOptions) bool {
	unsent := c.unsent()
	if unsent == 0 && !c.finDue() {
		c.cwndLimited = false
		return false
	}
	n, ok := c.allowance(unsent, mss)
	if !ok {
		return false
	}
	flags := header.TCPFlags(0)
	if n == unsent {
		if n > 0 {
			flags |= header.PSH
		}
		if c.finDue() && c.windowRoom() > n {
			flags |= header.FIN
		} else if n == 0 {
			c.startPersist()
			return false
		}
	}
	if c.ecnReduced && n > 0 {
		flags |= header.CWR
		c.ecnReduced = false
	}
	c.sendRecord(n, flags, mss, o)
	return true
}

// allowance is how many of unsent bytes may go out in one super-segment now.
func (c *Conn) allowance(unsent, mss int) (n int, ok bool) {
	wnd, cwnd := c.windowRoom(), c.cwnd-c.inFlight()
	if c.tlp.sendNew {
		cwnd = max(cwnd, mss)
		unsent = min(unsent, mss)
	}
	n = min(unsent, wnd, c.maxPayload(mss))
	if unsent > 0 && n <= 0 {
		c.startPersist()
		return 0, false
	}
	limited := n > cwnd
	n = min(n, cwnd)
	switch {
	case n >= unsent && n >= 0, n >= mss:
	case limited:
		c.cwndLimited = true
		return 0, false
	case n >= int(c.maxSndWnd/2), c.override:
		// The sender's silly window avoidance (RFC 9293 §3.8.6.2.1).
	default:
		c.startPersist()
		return 0, false
	}
	if n < unsent && n > mss {
		n -= n % mss
	}
	return n, true
}

// windowRoom is what the peer's window still takes; negative if the peer has
// shrunk it (RFC 9293 §3.8.6).
func (c *Conn) windowRoom() int {
	return int(c.sndUna.Add(c.sndWnd).Diff(c.sndNxt))
}

// maxPayload is the largest payload of one frame: a segment, or as much as the
// link segments for us. A small window is not spent in one frame, so that the
// peer's acknowledgements have something to pace.
func (c *Conn) maxPayload(mss int) int {
	limit := c.engine.maxSuper(c)
	if limit <= mss {
		return mss
	}
	if c.cwnd < 2*chunkSize {
		limit = min(limit, max(c.cwnd/2, 2*mss))
	}
	return limit - limit%mss
}

// sendRecord sends new sequence space and records it.
func (c *Conn) sendRecord(n int, flags header.TCPFlags, mss int, o *header.TCPOptions) {
	size := n
	if flags.Has(header.FIN) {
		size++
		c.fin()
	}
	start := c.sndNxt
	c.sndNxt = c.sndNxt.Add(uint32(size))
	if c.sent.add(sent{start: start, end: c.sndNxt, at: c.engine.now}, c.recordLimit()) {
		c.engine.stats.RecordsJoined++
	}
	c.route.ECN = ecnNotCapable
	if c.ecnOK && n > 0 {
		c.route.ECN = ecnECT0
	}
	c.noteDialogue(n)
	c.transmit(start, n, flags, mss, o)
	if c.recovery == stateRecovery {
		c.prrOut += size
	}
	if !c.armed(timerRetransmit) {
		c.arm(timerRetransmit, c.rtt.rto)
	}
	c.cancel(timerPersist)
	c.armProbe()
}

// fin is the state transition of sending FIN.
func (c *Conn) fin() {
	c.finSent = true
	switch c.state {
	case Established:
		c.state = FinWait1
	case CloseWait:
		c.state = LastAck
	}
}

// startPersist waits for a window that is closed, when nothing in flight would
// bring word of its opening.
func (c *Conn) startPersist() {
	c.cwndLimited = false
	if c.outstanding() == 0 && !c.armed(timerPersist) {
		c.armPersist()
	}
}

// retransmitLost sends lost records again, oldest first, as the window allows.
func (c *Conn) retransmitLost() {
	for i := 0; i < c.sent.count() && c.lost > 0; i++ {
		if !c.sent.all()[i].has(flagLost) {
			continue
		}
		room := c.cwnd - c.inFlight()
		if c.forceOne {
			room = max(room, c.mss)
		}
		if room < c.mss && room < c.sent.all()[i].len() {
			return
		}
		c.retransmit(i, room)
		c.forceOne = false
	}
}

// retransmit sends up to limit bytes of record i again, splitting it if need be.
func (c *Conn) retransmit(i, limit int) {
	o, optLen := c.options(0)
	mss := max(1, c.mss-(optLen-c.fixedOptions()))
	most := min(max(limit, mss), c.maxPayload(mss))
	r := &c.sent.all()[i]
	if r.len() > most {
		c.sent.cut(i, r.start.Add(uint32(most-most%mss)))
		r = &c.sent.all()[i]
	}
	n, flags := r.len(), header.TCPFlags(0)
	if c.finSent && r.end == c.sndNxt {
		n--
		flags |= header.FIN
	}
	if r.end == c.sndNxt && n > 0 {
		flags |= header.PSH
	}
	if r.has(flagLost) {
		c.lost -= r.len()
	}
	r.flags = r.flags&^flagLost | flagRetransmitted
	r.at = c.engine.now
	c.sent.noteResent(r)
	if c.recovery == stateRecovery {
		c.prrOut += r.len()
	}
	if c.undo.retransTS == 0 {
		c.undo.retransTS = c.tsval()
	}
	if c.undo.pending >= 0 {
		c.undo.pending += r.len()
	}
	c.route.ECN = ecnNotCapable // RFC 3168 §6.1.5
	c.engine.stats.Retransmits++
	c.transmit(r.start, n, flags, mss, &o)
	if !c.armed(timerRetransmit) {
		c.arm(timerRetransmit, c.rtt.rto)
	}
}
