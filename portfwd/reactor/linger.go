package reactor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Where both ends of a flow answer at once, whoever waits is woken every few
// microseconds, and each time the waker pays for the wake-up: tens of
// microseconds in a virtual machine, where it takes an exit to the hypervisor to
// interrupt another core, and as much again until the sleeper runs. A loop whose
// last waits were short therefore looks a little longer before it sleeps. It
// yields the core after each look, so that it is never in the way of those it
// waits for, and stops looking as soon as waits grow longer: a loop with a
// moment's rest between events costs what it did.
const (
	// lingerTime is how long a loop looks before it sleeps, and which waits are
	// short.
	lingerTime = 100 * time.Microsecond
	// shortWaits in a row make a loop linger; one long wait takes back
	// longWait of them.
	shortWaits, mostShortWaits, longWait = 4, 16, 4
)

// lingerer decides whether to look on.
type lingerer struct {
	alone bool // on a machine with one core somebody else must run
	short int  // short waits, less the long ones
	turns uint64
}

func newLingerer() lingerer { return lingerer{alone: runtime.NumCPU() == 1} }

// worthwhile reports whether the next wait is likely to be short.
func (g *lingerer) worthwhile() bool { return g.short >= shortWaits && !g.alone }

// waited takes note of how long a wait was.
func (g *lingerer) waited(d time.Duration) {
	if d < lingerTime {
		g.short = min(g.short+1, mostShortWaits)
	} else {
		g.short = max(g.short-longWait, 0)
	}
}

// await returns when something is ready, having lingered if that is worthwhile.
func (l *Loop) await() (int, unix.Errno) {
	from := l.Clock()
	if l.linger.worthwhile() {
		l.linger.turns++
		for l.Clock().Sub(from) < lingerTime {
			if n, errno := l.poll(); n > 0 || errno != 0 {
				return n, errno
			}
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
	n, errno := l.block()
	l.linger.waited(l.Clock().Sub(from))
	return n, errno
}
