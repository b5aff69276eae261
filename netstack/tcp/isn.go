package tcp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// What a hash of a flow is for, so that no use tells anything about another.
const (
	hashISN byte = iota
	hashTimestamp
	hashCookie
	hashPort
)

// flowHash is a keyed hash of a flow and one more word.
func (e *Engine) flowHash(use byte, k *flowKey, extra uint64) uint64 {
	var b [45]byte
	l, r := k.local.Addr().As16(), k.remote.Addr().As16()
	copy(b[0:], l[:])
	copy(b[16:], r[:])
	binary.LittleEndian.PutUint16(b[32:], k.local.Port())
	binary.LittleEndian.PutUint16(b[34:], k.remote.Port())
	binary.LittleEndian.PutUint64(b[36:], extra)
	b[44] = use
	return sipHash(&e.cfg.Secret, b[:])
}

// isn is the initial send sequence number of a flow: a 4 µs clock offset by a
// hash that an outsider cannot compute (RFC 6528 §3). A flow whose last
// connection is in TIME-WAIT begins beyond what that one used.
func (e *Engine) isn(k *flowKey) seq.Value {
	if e.isnFloored {
		return e.isnFloor
	}
	clock := uint32(int64(e.now) / int64(4*time.Microsecond))
	return seq.Value(uint32(e.flowHash(hashISN, k, 0)) + clock)
}

// timestampOffset hides how long the stack has been running (RFC 7323 §7.1).
func (e *Engine) timestampOffset(k *flowKey) uint32 {
	return uint32(e.flowHash(hashTimestamp, k, 0))
}

// timestampClock is the clock of TSval, in milliseconds, without offset.
func timestampClock(now timer.Instant) uint32 {
	return uint32(int64(now) / int64(time.Millisecond))
}

// Local ports of connections that name none (RFC 6335 §6).
const (
	firstPort = 49152
	lastPort  = 65535
)

// pickPort chooses a free local port by the simple hash-based algorithm of
// RFC 6056 §3.3.3, or returns 0.
func (e *Engine) pickPort(local netip.Addr, remote netip.AddrPort) uint16 {
	const n = lastPort - firstPort + 1
	k := flowKey{netip.AddrPortFrom(local, 0), remote}
	offset := uint32(e.flowHash(hashPort, &k, 0))
	for range n {
		port := uint16(firstPort + (offset+e.nextPort)%n)
		e.nextPort++
		k.local = netip.AddrPortFrom(local, port)
		if e.conns[k] == nil && !e.isReleased(k) && e.timeWaits.find(k) == nil && e.listeners[k.local] == nil {
			return port
		}
	}
	return 0
}
