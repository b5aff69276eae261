package reactor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Post has f called on the loop's goroutine, in the turn that follows, after
// the handlers before it. It may be called from any goroutine, the loop's own
// included, and reports whether the loop is still there to do it.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		l.wake()
	}
	return true
}

// Wake ends the current Wait, or the next one, at once. It may be called from
// any goroutine.
func (l *Loop) Wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.wake()
	}
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// wake is called with the lock held, so that the descriptor is still ours. It
// fails only when the counter is full, and then the loop is awake anyway.
func (l *Loop) wake() { unix.Write(l.wakefd, one) }

// wakeup is the eventfd's handler.
type wakeup struct{ loop *Loop }

func (w wakeup) Ready(Events) {
	unix.Read(w.loop.wakefd, w.loop.wakes[:])
	w.loop.runPosted()
}

// runPosted runs what was posted up to now; what those closures post runs in
// the next turn, so they cannot hold the loop.
func (l *Loop) runPosted() {
	l.mu.Lock()
	run := l.posted
	l.posted = l.spare[:0]
	l.spare = nil
	l.mu.Unlock()
	for i, f := range run {
		run[i] = nil
		f()
	}
	l.mu.Lock()
	l.spare = run[:0]
	l.mu.Unlock()
}
