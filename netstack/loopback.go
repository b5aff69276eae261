package netstack

import "net/netip"

// A published server may be bound to 127.0.0.1 in the sandbox alone. Where the
// sandbox routes that (route_localnet), the stack sends to it there, and answers
// come from it: the one use of a loopback source on a link that is not a
// martian. So the stack remembers the flows that it opened to 127.0.0.0/8, and
// takes packets from there that belong to one.

// loopbackFlow is a flow that the stack opened to 127.0.0.0/8.
type loopbackFlow struct {
	local, remote netip.AddrPort
	protocol      uint8
}

// loopbackFlowsMax bounds each of the two halves of the memory for such flows.
const loopbackFlowsMax = 1 << 15

// loopbackFlows remembers flows in two halves: when the young one is full it
// becomes the old one, and what was old and not used since is forgotten. It
// costs no allocation in steady use. Time makes it forget nothing: a connection
// may be silent for days, and TCP and the Handler know what is over.
type loopbackFlows struct {
	young, old map[loopbackFlow]struct{}
	forgotten  uint64
}

// note remembers f.
func (l *loopbackFlows) note(f loopbackFlow) {
	if _, ok := l.young[f]; ok {
		return
	}
	delete(l.old, f)
	if l.young == nil || len(l.young) == loopbackFlowsMax {
		l.forgotten += uint64(len(l.old))
		l.old, l.young = l.young, make(map[loopbackFlow]struct{})
	}
	l.young[f] = struct{}{}
}

// has reports whether f is remembered, and keeps it in memory.
func (l *loopbackFlows) has(f loopbackFlow) bool {
	if _, ok := l.young[f]; ok {
		return true
	}
	if _, ok := l.old[f]; ok {
		l.note(f)
		return true
	}
	return false
}
