package userns

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// forwarded are the signals that sbxnet passes on. Not among them: what the
// kernel raises for a fault, the stop signals, whose default action is wanted
// for sbxnet and the command alike, and SIGURG, which the Go runtime uses.
var forwarded = append([]os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
	syscall.SIGCONT, syscall.SIGIO, syscall.SIGPWR,
}, realTime()...)

// realTime lists the real-time signals that are not the C library's own.
func realTime() []os.Signal {
	var list []os.Signal
	for s := syscall.Signal(35); s <= 64; s++ {
		list = append(list, s)
	}
	return list
}

// catchForwarded starts delivery of the forwarded signals to c, but of those
// that this process was started to ignore, as by nohup: catching them here
// would make the command receive them.
func catchForwarded(c chan<- os.Signal) {
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

// ForwardSignals passes on to the command every signal that this process
// receives, until stop is called. With it in place this process survives
// Ctrl-C, and it is the command that decides what that means.
func (sb *Sandbox) ForwardSignals() (stop func()) {
	c := make(chan os.Signal, 16)
	quit := make(chan struct{})
	catchForwarded(c)
	go func() {
		for {
			select {
			case s := <-c:
				// It fails only when the sandbox has ended, which Wait tells.
				_ = sb.Signal(s)
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(quit)
	}
}

// catch starts delivery of signals to p.
func (p *initProcess) catch() {
	catchForwarded(p.signals)
	if !signal.Ignored(groupMarker) {
		signal.Notify(p.own, groupMarker)
	}
}

// groupMarker is a signal that init sends to itself when it is about to deliver a
// forwarded one. The kernel and the Go runtime hand over signals that wait in the
// order of their numbers, and this is the highest: once it has come, so has a copy
// of the forwarded one, however busy the machine is. (Of this signal alone
// the command may get two, if a group is sent it.)
const groupMarker = syscall.Signal(64)

// askForOwn sends the marker.
func askForOwn() (asked bool) {
	return !signal.Ignored(groupMarker) && syscall.Kill(os.Getpid(), groupMarker) == nil
}

const (
	// groupBefore is how old a signal that init received itself may be for a
	// forwarded one to count as a copy of it: sbxnet may be slow to forward, on a
	// busy machine. Long, since hardly anybody signals init alone.
	groupBefore = 2 * time.Second
	// groupAfter is how long a forwarded signal waits for init's own, which
	// was sent at the same moment, before the marker is sent after it.
	groupAfter = 25 * time.Millisecond
)

// groupFilter tells signals that were sent to the whole process group, which
// the command has received already, from those that were sent to sbxnet alone.
// Like the kernel it does not count signals of one kind that arrive together.
type groupFilter struct {
	own     map[syscall.Signal]time.Time // received by init itself
	pending map[syscall.Signal]time.Time // forwarded; to be delivered then
}

func newGroupFilter() *groupFilter {
	return &groupFilter{map[syscall.Signal]time.Time{}, map[syscall.Signal]time.Time{}}
}

// received notes that init itself got s.
func (f *groupFilter) received(s syscall.Signal, now time.Time) {
	if _, ok := f.pending[s]; ok {
		delete(f.pending, s)
		return
	}
	f.own[s] = now
}

// forward notes that sbxnet got s.
func (f *groupFilter) forward(s syscall.Signal, now time.Time) {
	at, ok := f.own[s]
	delete(f.own, s)
	if ok && now.Sub(at) <= groupBefore {
		return
	}
	if _, ok := f.pending[s]; !ok {
		f.pending[s] = now.Add(groupAfter)
	}
}

// next is when a signal falls due; false if none waits.
func (f *groupFilter) next() (time.Time, bool) {
	var first time.Time
	for _, t := range f.pending {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first, !first.IsZero()
}

// due takes out the signals that the command is to get now.
func (f *groupFilter) due(now time.Time) []syscall.Signal {
	var list []syscall.Signal
	for s, t := range f.pending {
		if !now.Before(t) {
			list = append(list, s)
			delete(f.pending, s)
		}
	}
	return list
}
