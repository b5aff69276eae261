package portfwd

import "time"

// lingering are ports of clients to which a server may answer to the wrong place.
//
// What a server has closed first stays in its kernel for a while (TIME-WAIT), with
// the mark that its spliced connection had. A SYN over the link from the same port
// may be answered by that, and the answer would come back to no socket, nor to the
// link: the kernel resets nobody in another's name. So it comes from another port.
type lingering struct {
	recent, before *[1 << 16 / 64]uint64 // bits, of the current period and the one before
	since          time.Time             // of the current one
	kept           [2]int                // connections that clients closed first, likewise
}

// timeWait is Linux's (TCP_TIMEWAIT_LEN, include/net/tcp.h).
const timeWait = 60 * time.Second

func (l *lingering) turn(now time.Time) {
	if l.recent == nil {
		l.recent, l.before, l.since = new([1 << 16 / 64]uint64), new([1 << 16 / 64]uint64), now
	}
	age := now.Sub(l.since)
	if age < timeWait {
		return
	}
	l.recent, l.before = l.before, l.recent
	clear(l.recent[:])
	l.kept = [2]int{0, l.kept[0]}
	if age >= 2*timeWait {
		clear(l.before[:])
		l.kept[1] = 0
	}
	l.since = now
}

// add takes note of a port.
func (l *lingering) add(port uint16, now time.Time) {
	l.turn(now)
	l.recent[port/64] |= 1 << (port % 64)
}

// has reports whether a port was added in the last minute, or two.
func (l *lingering) has(port uint16, now time.Time) bool {
	if l.recent == nil {
		return false
	}
	l.turn(now)
	return (l.recent[port/64]|l.before[port/64])&(1<<(port%64)) != 0
}

// portsMost bounds the ports that spliced connections have inside at a time. A socket
// there has the port that its client has, in TIME-WAIT also, where the client has
// closed first; and the kernel gives no such port to who connects from inside to
// wherever it is (__inet_hash_connect, net/ipv4/inet_hashtables.c), of 28232 that
// there are (ip_local_port_range).
const portsMost = 8192

// crowded reports whether there are so many that clients go over the link.
func (p *insideSockets) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lingering.recent != nil {
		p.lingering.turn(time.Now())
	}
	return len(p.live)+p.lingering.kept[0]+p.lingering.kept[1] >= portsMost
}

// keep says that a client has closed a connection first.
func (p *insideSockets) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lingering.turn(time.Now())
	p.lingering.kept[0]++
}

// leave says that a server has closed a connection from port first.
func (p *insideSockets) leave(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lingering.add(port, time.Now())
}

// enter says that a client has a spliced connection from port, until exit.
func (p *insideSockets) enter(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		p.live = make(map[uint16]int)
	}
	p.live[port]++
}

func (p *insideSockets) exit(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live[port]--; p.live[port] == 0 {
		delete(p.live, port)
	}
}

// met reports whether a SYN over the link from port may meet a spliced connection,
// or what a server has closed lately: neither answers to the link.
func (p *insideSockets) met(port uint16) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live[port] > 0 || p.lingering.has(port, time.Now())
}
