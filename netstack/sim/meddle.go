package sim

import (
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/tcp"
)

// meddle injects something into one of the connections that must not harm it:
// a forged segment, or an ICMP error, forged or true.
func (w *world) meddle() {
	if w.s.Meddle == 0 {
		return
	}
	w.after(1+within(w.rand, 2*w.s.Meddle), w.meddle)
	c := w.conns[w.rand.IntN(len(w.conns))]
	victim := w.rand.IntN(2)
	a := c.apps[victim]
	h := &c.flow.half[victim]
	if a.conn == nil || a.closed || a.conn.State() != tcp.Established || !h.acked || len(h.last) == 0 {
		return
	}
	var b []byte
	if w.rand.IntN(2) == 0 {
		b = w.forgedSegment(c, victim)
	} else {
		b = w.icmpError(c, victim)
	}
	if b != nil {
		// At once: if the connection came to its end in between, a forged SYN would
		// rightly open another.
		w.carryOut(&event{at: w.now, to: w.ends[victim], frame: wireFrame{data: b}})
	}
}

// forgedSegment is a segment that claims to be from the victim's peer, who does
// not know all the numbers.
func (w *world) forgedSegment(c *connection, victim int) []byte {
	h, peer := &c.flow.half[victim], &c.flow.half[1-victim]
	f := header.TCPFields{Seq: h.gotEnd, Ack: h.gotAck, Flags: header.ACK, Window: uint16(w.rand.Uint32())}
	ts := header.TCPOptions{Timestamp: h.hasTS && peer.hasTS, TSVal: h.gotTS, TSEcr: h.tsVal}
	var payload []byte
	switch w.rand.IntN(5) {
	case 0: // RST: in the window but for the one number, or anywhere outside
		f.Flags = header.RST
		f.Seq = h.gotEnd.Add(1 + w.rand.Uint32N(1<<30))
	case 1: // SYN
		f.Flags, f.Seq = header.SYN, seq.Value(w.rand.Uint32())
		ts.TSVal += 1 << 20
	case 2: // data with an acknowledgement of what was never sent
		f.Ack = h.maxEnd.Add(1 + w.rand.Uint32N(1<<30))
		payload = []byte("forged payload")
		ts.TSVal += 1 << 20 // must not get into TS.Recent (RFC 5961 §5 comes first)
	case 3: // a stale acknowledgement with a window of its own
		f.Ack = h.gotAck.Sub(1)
	case 4: // old data, far behind, with a window of its own
		f.Seq = h.ack.Sub(1<<20 + w.rand.Uint32N(1<<20))
		payload = []byte("forged payload")
	}
	b := make([]byte, header.TCPMaxLen)
	f.OptionsLen = header.PutTCPOptions(b[header.TCPMinLen:], &ts)
	f.SourcePort, f.DestinationPort = c.flow.key[1-victim].Port(), c.flow.key[victim].Port()
	b = b[:header.PutTCP(b, f)+f.OptionsLen]
	src, dst := c.flow.key[1-victim].Addr(), c.flow.key[victim].Addr()
	header.TCP(b).SetChecksum(src, dst, payload)
	return frameOf(macs[victim], src, dst, header.ProtocolTCP, append(b, payload...))
}

// icmpError is an error about the last segment of the victim, or about one that
// it never sent.
func (w *world) icmpError(c *connection, victim int) []byte {
	h := &c.flow.half[victim]
	quote := append([]byte(nil), h.last[header.EthernetLen:]...)
	dst := c.flow.key[victim].Addr()
	ip := header.IPv6Len
	if dst.Is4() {
		ip = header.IPv4MinLen
	}
	forged := w.rand.IntN(2) == 0
	if forged {
		header.TCP(quote[ip:]).SetSeq(h.maxEnd.Add(w.rand.Uint32N(1 << 30)))
	}
	kinds := [][2]uint8{{1, 0}, {1, 1}, {1, 3}, {1, 4}, {3, 0}, {4, 1}, {137, 0}, {2, 0}}
	if dst.Is4() {
		kinds = [][2]uint8{{3, 0}, {3, 1}, {3, 2}, {3, 3}, {3, 13}, {4, 0}, {5, 1}, {11, 0}, {12, 0}, {3, 4}}
	}
	k := kinds[w.rand.IntN(len(kinds))]
	mtu := uint32(0)
	if k == [2]uint8{3, 4} || k == [2]uint8{2, 0} {
		mtu = w.rand.Uint32N(2000) // down to the floor, if the quotation is right
	}
	return icmpFrame(macs[victim], dst, k[0], k[1], mtu, quote)
}
