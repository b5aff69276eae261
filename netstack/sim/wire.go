package sim

import (
	"fmt"
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// flow is one connection as an observer on the wire knows it.
type flow struct {
	key  [2]netip.AddrPort // by stack
	half [2]half
	conn *connection
	// reused says that an old SYN has opened the flow again after its end: there
	// is nothing more to learn from it.
	reused bool
}

// lost notes that the path has taken a frame: either side may have to wait for it.
func (f *flow) lost() {
	for i := range f.half {
		f.half[i].drops++
		f.half[i].missed++
		if h := &f.half[i]; h.started && !h.answered {
			h.ignored++
		}
	}
}

// drops is how many frames the path has taken since both sides last heard of
// progress: as many timeouts may have backed off.
func (f *flow) drops() int { return max(f.half[0].drops, f.half[1].drops) }

// half is what one stack has sent in a flow, and what has been delivered to it.
type half struct {
	started bool
	iss     seq.Value
	maxEnd  seq.Value // the end of all that was sent, FIN included
	fin     bool      // a FIN was sent; it is the last number before maxEnd

	hasScale, hasMSS, hasTS bool
	scale                   uint8
	mss                     int
	tsVal                   uint32

	acked bool
	ack   seq.Value // the last acknowledgement sent
	edge  seq.Value // the right edge it told

	heard    bool          // anything has been delivered to it
	gotEnd   seq.Value     // the end of all delivered to it
	answered bool          // an acknowledgement has been delivered to it
	gotAck   seq.Value     // the latest acknowledgement delivered to it
	gotEdge  seq.Value     // the farthest right edge delivered to it
	edgeAt   timer.Instant // when that moved last, less the clock's jumps
	gotTS    uint32        // the timestamp delivered to it last

	asked   int    // how often it has sent its SYN
	ignored int    // frames the path has taken since its SYN and before any answer to that
	settled bool   // nothing that it sent waits for an acknowledgement
	missed  int    // frames the path has taken since anything was delivered to it
	drops   int    // frames the path has taken since it last heard an acknowledgement of something new
	last    []byte // the last frame it sent, for ICMP errors to quote
}

// emitted checks a segment that a stack puts on the wire. size is the payload of
// each segment that it will be cut into.
func (f *flow) emitted(i int, p *tcpPacket, size, mtu int) error {
	h, peer := &f.half[i], &f.half[1-i]
	flags := p.tcp.Flags()
	if over := p.ipLen - len(p.payload) + size; over > mtu {
		return fmt.Errorf("IP packet of %d bytes over MTU %d", over, mtu)
	}
	if f.conn != nil && (f.conn.broken() || f.conn.apps[i].closed) && flags.Has(header.SYN) && p.tcp.Seq() != h.iss {
		f.reused = true
	}
	if f.reused || flags.Has(header.RST) {
		return nil // may answer a stray, with any numbers
	}
	if flags.Has(header.SYN) {
		return h.sentSYN(p)
	}
	if !h.started {
		return fmt.Errorf("%v before any SYN", flags)
	}
	if most := peer.mostMSS(p.src.Addr()); size+len(p.tcp.OptionBytes()) > most {
		return fmt.Errorf("segment of %d bytes and %d of options over the peer's MSS %d", size, len(p.tcp.OptionBytes()), most)
	}
	if err := h.sentTimestamp(p); err != nil {
		return err
	}
	if err := h.sentText(p, f.conn, i); err != nil {
		return err
	}
	return h.sentAck(p, peer)
}

// sentSYN begins the half, or checks that a SYN repeats the first one.
func (h *half) sentSYN(p *tcpPacket) error {
	if h.started && p.tcp.Seq() != h.iss && h.maxEnd == h.iss.Add(1) && !h.acked {
		*h = half{heard: h.heard, gotEnd: h.gotEnd} // it has given up before, and the peer asks again
	}
	if h.started && p.tcp.Seq() != h.iss {
		return fmt.Errorf("SYN at %d after one at %d", p.tcp.Seq(), h.iss)
	}
	if len(p.payload) > 0 {
		return fmt.Errorf("SYN with %d bytes of payload", len(p.payload))
	}
	if !h.started {
		h.started, h.iss, h.maxEnd = true, p.tcp.Seq(), p.tcp.Seq().Add(1)
	}
	h.asked++
	h.hasScale, h.scale = p.opt.HasWindowScale, p.opt.WindowScale
	h.hasMSS, h.mss = p.opt.HasMSS, int(p.opt.MSS)
	h.hasTS, h.tsVal = p.opt.Timestamp, p.opt.TSVal
	return nil
}

// mostMSS is what the other side may send to this half.
func (h *half) mostMSS(a netip.Addr) int {
	switch {
	case h.hasMSS:
		return h.mss
	case a.Is4():
		return 536
	}
	return 1220
}

// sentTimestamp: the clock never goes back, and is there once it was agreed on.
func (h *half) sentTimestamp(p *tcpPacket) error {
	if !p.opt.Timestamp {
		return nil
	}
	if int32(p.opt.TSVal-h.tsVal) < 0 {
		return fmt.Errorf("timestamp %d after %d", p.opt.TSVal, h.tsVal)
	}
	h.tsVal = p.opt.TSVal
	return nil
}

// sentText checks payload, FIN and their place.
func (h *half) sentText(p *tcpPacket, c *connection, i int) error {
	at, n := p.tcp.Seq(), p.length()
	if n == 0 {
		return nil
	}
	if h.maxEnd.LessThan(at) {
		return fmt.Errorf("segment at %d leaves a hole behind %d", at-h.iss, h.maxEnd-h.iss)
	}
	if !h.answered || h.gotEdge.LessThan(p.end()) && h.maxEnd.LessThan(p.end()) {
		return fmt.Errorf("segment ends at %d, the peer's window at %d", p.end()-h.iss, h.gotEdge-h.iss)
	}
	if h.fin && h.maxEnd.LessThan(p.end()) {
		return fmt.Errorf("segment ends at %d, beyond the FIN", p.end()-h.iss)
	}
	if c != nil {
		if err := c.apps[i].isAt(int(at-h.iss)-1, p.payload); err != nil {
			return fmt.Errorf("payload at %d: %w", at-h.iss, err)
		}
	}
	h.maxEnd, h.settled = seq.Max(h.maxEnd, p.end()), false
	if p.tcp.Flags().Has(header.FIN) {
		if p.end() != h.maxEnd {
			return fmt.Errorf("FIN at %d, short of %d", p.end()-h.iss, h.maxEnd-h.iss)
		}
		h.fin = true
	}
	return nil
}

// sentAck checks the acknowledgement, SACK blocks and window.
func (h *half) sentAck(p *tcpPacket, peer *half) error {
	if !p.tcp.Flags().Has(header.ACK) {
		return fmt.Errorf("%v without ACK", p.tcp.Flags())
	}
	ack := p.tcp.Ack()
	if !h.heard || h.gotEnd.LessThan(ack) {
		return fmt.Errorf("acknowledges %d, but only %d arrived", ack-peer.iss, h.gotEnd-peer.iss)
	}
	for i, b := range p.opt.SACK[:p.opt.NumSACK] {
		if i == 0 && b.Left.LessThan(b.Right) && b.Right.LessThanEq(ack) {
			continue // DSACK repeats whatever old numbers came, forged ones too (RFC 2883)
		}
		if !b.Left.LessThan(b.Right) || h.gotEnd.LessThan(b.Right) || b.Left.LessThan(peer.iss) {
			return fmt.Errorf("SACK of [%d,%d), but only %d arrived", b.Left-peer.iss, b.Right-peer.iss, h.gotEnd-peer.iss)
		}
	}
	edge := ack.Add(h.window(p, peer))
	if h.acked && ack.LessThan(h.ack) {
		return fmt.Errorf("acknowledges %d after %d", ack-peer.iss, h.ack-peer.iss)
	}
	if h.acked && edge.LessThan(h.edge) {
		return fmt.Errorf("right edge %d after %d", edge-peer.iss, h.edge-peer.iss)
	}
	h.acked, h.ack, h.edge = true, ack, edge
	return nil
}

// window is the window that a segment of h tells, in bytes.
func (h *half) window(p *tcpPacket, peer *half) uint32 {
	w := uint32(p.tcp.Window())
	if !p.tcp.Flags().Has(header.SYN) && h.hasScale && peer.hasScale {
		w <<= h.scale
	}
	return w
}

// delivered notes a genuine segment that has reached stack i undamaged, and
// reports whether it acknowledges something new. now is less the clock's jumps.
func (f *flow) delivered(i int, p *tcpPacket, now timer.Instant) (progress bool) {
	h, peer := &f.half[i], &f.half[1-i]
	h.missed = 0
	if p.tcp.Flags().Has(header.RST) {
		return false
	}
	if !h.heard {
		h.heard, h.gotEnd = true, p.end()
	}
	h.gotEnd = seq.Max(h.gotEnd, p.end())
	if p.opt.Timestamp {
		h.gotTS = p.opt.TSVal
	}
	if !p.tcp.Flags().Has(header.ACK) || !h.started || h.acked && p.end().LessThan(h.ack) {
		return false // not acceptable: a probe, say
	}
	ack := p.tcp.Ack()
	if !h.answered {
		h.answered, h.gotAck, h.gotEdge, progress = true, ack, ack, true
	}
	progress = progress || h.gotAck.LessThan(ack)
	h.gotAck = seq.Max(h.gotAck, ack)
	if edge := ack.Add(peer.window(p, h)); progress || h.gotEdge.LessThan(edge) {
		h.gotEdge, h.edgeAt = seq.Max(h.gotEdge, edge), now
	}
	if progress {
		h.drops = 0 // its timers begin anew
	}
	h.settled = ack == h.maxEnd
	return progress
}
