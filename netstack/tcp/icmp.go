package tcp

import (
	"net/netip"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// Unreachable reports an ICMP error about a segment of ours from local to
// remote whose quoted sequence number is quoted. With mtu > 0 the error is
// "fragmentation needed" or "packet too big", mtu is what it says, and reason
// is not looked at. An error that quotes nothing outstanding is ignored (RFC
// 5927 §4).
func (e *Engine) Unreachable(local, remote netip.AddrPort, quoted seq.Value, reason Refusal, mtu int) {
	c := e.conns[flowKey{unmap(local), unmap(remote)}]
	if c == nil || c.state == Held || !seq.InRange(quoted, c.sndUna, c.sndNxt) {
		e.stats.Drops.Unreachable++
		return
	}
	if mtu > 0 {
		c.shrinkPath(mtu)
		return
	}
	switch {
	case c.state == SynSent && (reason == PortUnreachable || reason == Prohibited):
		c.close(ErrRefused) // RFC 5461 §4.1: nothing is lost by not insisting
	default:
		c.softError = true // RFC 5927 §5.2: says why, if a timeout ends it
	}
}

// shrinkPath takes a smaller path MTU (RFC 1191, RFC 8201): never below the
// floor, never larger than before. What was in flight is cut anew; that it was
// lost says nothing about congestion.
func (c *Conn) shrinkPath(mtu int) {
	if c.route.Local.Addr().Is4() {
		mtu = max(mtu, minPMTU4)
	} else if mtu < minPMTU6 {
		return
	}
	if mtu >= c.engine.cfg.MTU || c.pathMTU != 0 && mtu >= c.pathMTU {
		return
	}
	c.pathMTU, c.pathMTUAt = mtu, c.engine.now
	c.setMSS()
	if c.outstanding() == 0 || !c.state.synchronized() {
		return
	}
	c.markAllLost()
	c.recovery, c.recoverPoint = stateLoss, c.sndNxt
	c.undo.possible = false
	c.markDirty()
}

// pathMSS is the largest segment, options included, that the path to c's peer
// carries. A learned MTU is forgotten after a while (RFC 1191 §6.3).
func (e *Engine) pathMSS(c *Conn) int {
	mss := e.linkMSS(c.route.Local.Addr())
	if c.pathMTU != 0 {
		mss = min(mss, c.pathMTU-headerLen(c.route.Local.Addr()))
	}
	return mss
}

// agePath forgets a path MTU that was learned too long ago.
func (c *Conn) agePath() {
	if c.pathMTU != 0 && c.engine.now.Sub(c.pathMTUAt) > pmtuExpiry {
		c.pathMTU = 0
		c.setMSS()
	}
}

// headerLen is the length of IP and TCP headers without options.
func headerLen(a netip.Addr) int {
	if a.Is4() {
		return 20 + header.TCPMinLen
	}
	return 40 + header.TCPMinLen
}

// linkMSS is the largest segment, options included, that the link carries.
func (e *Engine) linkMSS(a netip.Addr) int { return e.cfg.MTU - headerLen(a) }

func (e *Engine) advertisedMSS(a netip.Addr) uint16 {
	return uint16(min(max(e.linkMSS(a), minMSS), 0xffff))
}

// defaultMSS is a peer's without the option (RFC 9293 §3.7.1).
func defaultMSS(a netip.Addr) int {
	if a.Is4() {
		return defaultMSS4
	}
	return defaultMSS6
}

// maxSuper is the largest payload that one frame may carry, 0 if the link does
// not segment for us: an IP packet of 65535 bytes, less the longest header.
func (e *Engine) maxSuper(c *Conn) int {
	a, caps := c.route.Local.Addr(), &e.cfg.Caps
	if a.Is4() && !caps.TSO4 || !a.Is4() && !caps.TSO6 {
		return 0
	}
	packet := 0xffff
	if caps.MaxFrame > 0 {
		packet = min(packet, caps.MaxFrame-ethernetLen)
	}
	return packet - headerLen(a) - header.TCPMaxOptionsLen
}
