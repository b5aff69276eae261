package tcp

import (
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// A SYN cookie (RFC 4987 §3.6) is an initial sequence number from which the
// SYN can be told when it comes back in the handshake's ACK:
//
//	| 29 bits of SipHash over flow, peer's ISN, minute and index | 3 bits: MSS index |
//
// What else the SYN had travels in the low six bits of our timestamp, which the
// peer echoes:
//
//	| ECN | SACK | 4 bits: window scale, 15 for none |
//
// A peer without timestamps gets neither scale nor SACK.

// cookieMSS is what the index stands for: the peer's MSS, rounded down.
var cookieMSS = [8]int{64, 536, 1220, 1360, 1440, 1460, 8940, 65460}

const (
	cookieSlot     = time.Minute // valid in this one and the next
	cookieLifetime = 2 * time.Minute
	cookieNoScale  = 15
	cookieSACK     = 1 << 4
	cookieECN      = 1 << 5
	cookieBits     = 1<<6 - 1
)

// cookie is the ISN for a flow, made in the given slot.
func (e *Engine) cookie(k *flowKey, irs seq.Value, slot uint32, index int) seq.Value {
	h := e.flowHash(hashCookie, k, uint64(irs)<<32|uint64(slot<<3|uint32(index)))
	return seq.Value(uint32(h)<<3 | uint32(index))
}

func (e *Engine) cookieSlot() uint32 { return uint32(int64(e.now) / int64(cookieSlot)) }

// sendCookie answers a SYN without keeping any state.
func (l *Listener) sendCookie(k flowKey, s *segment) {
	e := l.engine
	l.lastCookie, l.cookies = e.now, true
	o := openOf(s)
	mss := o.mss
	if mss == 0 {
		mss = defaultMSS(k.local.Addr())
	}
	index := 0
	for i, m := range cookieMSS {
		if m <= mss {
			index = i
		}
	}
	opt := header.TCPOptions{HasMSS: true, MSS: e.advertisedMSS(k.local.Addr())}
	f := header.TCPFields{
		Seq: e.cookie(&k, s.seq, e.cookieSlot(), index), Ack: s.seq.Add(1),
		Flags: header.SYN | header.ACK, Window: uint16(min(e.cfg.ReceiveBuffer, 0xffff)),
	}
	if o.timestamp {
		opt.Timestamp, opt.TSEcr = true, o.tsVal
		opt.TSVal = e.cookieTimestamp(&k, &o)
		opt.SACKPermitted = o.sack
		opt.HasWindowScale, opt.WindowScale = o.hasScale, windowShift(e.cfg.ReceiveBufferMax)
		if o.ecn {
			f.Flags |= header.ECE
		}
	}
	f.OptionsLen = opt.SYNLen()
	e.reply = Route{Local: k.local, Remote: k.remote}
	if fr, b := e.put(&e.reply, f, 0); fr != nil {
		header.PutTCPSYNOptions(b[header.TCPMinLen:], &opt)
	}
	e.stats.Cookies++
}

// cookieTimestamp is our clock, set back to the last time its low bits were
// those that say what the SYN had.
func (e *Engine) cookieTimestamp(k *flowKey, o *open) uint32 {
	bits := uint32(cookieNoScale)
	if o.hasScale {
		bits = uint32(o.scale)
	}
	if o.sack {
		bits |= cookieSACK
	}
	if o.ecn {
		bits |= cookieECN
	}
	now := timestampClock(e.now) + e.timestampOffset(k)
	ts := now&^cookieBits | bits
	if int32(ts-now) > 0 {
		ts -= cookieBits + 1
	}
	return ts
}

// checkCookie tells from the handshake's ACK what the SYN was. Cookies count
// for two minutes after one was last given out: at other times an ACK that
// nobody expects is not worth a hash.
func (l *Listener) checkCookie(k flowKey, s *segment) (o open, ok bool) {
	e := l.engine
	if !l.cookies || e.now.Sub(l.lastCookie) > cookieLifetime {
		return o, false
	}
	iss, irs := s.ack.Sub(1), s.seq.Sub(1)
	index, slot := int(iss&7), e.cookieSlot()
	if iss != e.cookie(&k, irs, slot, index) && iss != e.cookie(&k, irs, slot-1, index) {
		return o, false
	}
	o = open{irs: irs, wnd: s.wnd, mss: cookieMSS[index]}
	if s.opt.Timestamp {
		bits := s.opt.TSEcr
		o.timestamp, o.tsVal = true, s.opt.TSVal
		if scale := uint8(bits & 15); scale != cookieNoScale {
			o.hasScale, o.scale = true, min(scale, header.MaxWindowScale)
		}
		o.sack, o.ecn = bits&cookieSACK != 0, bits&cookieECN != 0
	}
	return o, true
}
