package portfwd

import (
	"time"

	"sbxnet/netstack/timer"
)

// idleFlow is what an idleList holds: a flow that ends by being idle.
type idleFlow interface{ end(why string) }

// idleEntry is embedded in a flow, and puts it on at most one list.
type idleEntry struct {
	prev, next *idleEntry
	list       *idleList
	last       timer.Instant
	flow       idleFlow
}

// idleList holds flows of one idle time, the longest idle first. All of it
// costs one armed timer, and a packet costs a move to the list's end.
type idleList struct {
	root   idleEntry // of the ring; next is the longest idle
	limit  time.Duration
	timers *timer.Queue
	timer  timer.Timer
}

func (l *idleList) init(limit time.Duration, timers *timer.Queue) {
	l.root.prev, l.root.next = &l.root, &l.root
	l.limit, l.timers = limit, timers
	l.timer.Expire = l.expire
}

// touch says that e's flow was used, and puts it on the list if it is not.
func (l *idleList) touch(e *idleEntry, now timer.Instant) {
	e.last = now
	if e.list == l && l.root.prev == e {
		return
	}
	e.remove()
	e.list = l
	e.prev, e.next = l.root.prev, &l.root
	e.prev.next, e.next.prev = e, e
	if _, armed := l.timer.Armed(); !armed {
		l.timers.Arm(&l.timer, now.Add(l.limit))
	}
}

// remove takes e off its list, if it is on one.
func (e *idleEntry) remove() {
	if e.list == nil {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next, e.list = nil, nil, nil
}

// oldest is the flow that has been idle longest, or nil.
func (l *idleList) oldest() idleFlow {
	if l.root.next == &l.root {
		return nil
	}
	return l.root.next.flow
}

// expire ends what has been idle for too long, and waits for the next.
func (l *idleList) expire(now timer.Instant) {
	for e := l.root.next; e != &l.root; e = l.root.next {
		if due := e.last.Add(l.limit); now.Before(due) {
			l.timers.Arm(&l.timer, due)
			return
		}
		e.flow.end("idle") // takes e off the list
		e.remove()         // in any case
	}
}
