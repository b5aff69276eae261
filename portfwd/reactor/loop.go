package reactor

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/timer"
)

// Events says what the kernel reported about a descriptor, as EPOLL* bits.
type Events uint32

// Edge is what host sockets are registered for: all there is to know, each
// change reported once.
const Edge Events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// Level is what link queues and listening sockets are registered for: readable,
// reported for as long as it is true.
const Level Events = unix.EPOLLIN

// Readable reports whether reading will return something: data, the end of the
// stream, or an error.
func (e Events) Readable() bool {
	return e&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// Writable reports whether writing will return something: room or an error.
func (e Events) Writable() bool {
	return e&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// ShortReads reports whether a read of a TCP socket that brings less than it might
// need not have emptied it, so that no other event will tell of the rest: there is an
// end of stream or an error behind the data, or an urgent byte among it, where a read
// ends (tcp_recvmsg_locked, net/ipv4/tcp.c).
func (e Events) ShortReads() bool {
	return e&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0
}

// Failed reports whether the socket has an error pending, or a message in its
// error queue.
func (e Events) Failed() bool { return e&unix.EPOLLERR != 0 }

// HungUp reports whether both directions of the socket are shut down, as after
// a reset.
func (e Events) HungUp() bool { return e&unix.EPOLLHUP != 0 }

// Handler is told about one descriptor, on the loop's goroutine.
type Handler interface {
	Ready(Events)
}

// eventsPerWait bounds what one turn takes from the kernel. With more ready
// than that, the kernel serves the rest first next time.
const eventsPerWait = 256

// Loop is one epoll set and its handlers. See the package comment for who may
// call what.
type Loop struct {
	epfd   int
	wakefd int
	epoch  time.Time
	now    timer.Instant
	table  table
	events [eventsPerWait]unix.EpollEvent
	ready  int
	alarm  alarm
	linger lingerer
	wakes  [8]byte // what wakefd's counter is read into; the race detector has a local one allocated

	mu     sync.Mutex
	posted []func()
	closed bool
	spare  []func() // the other half of a double buffer, so that Post seldom allocates
}

// New makes a loop whose clock starts at epoch. Loops that hand packets to each
// other are given the same epoch.
func New(epoch time.Time) (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	alarm, err := newAlarm()
	if err != nil {
		unix.Close(epfd)
		unix.Close(wakefd)
		return nil, err
	}
	l := &Loop{epfd: epfd, wakefd: wakefd, epoch: epoch, alarm: alarm, linger: newLingerer()}
	_, err = l.Add(wakefd, Level, wakeup{l})
	if err == nil {
		_, err = l.Add(alarm.fd, Level|unix.EPOLLET, &l.alarm)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Add registers fd and returns the token that takes it out again.
func (l *Loop) Add(fd int, e Events, h Handler) (Token, error) {
	t := l.table.add(h)
	ev := unix.EpollEvent{Events: uint32(e), Fd: int32(t.index), Pad: int32(t.generation)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		l.table.remove(t)
		return Token{}, fmt.Errorf("add descriptor %d to epoll set: %w", fd, err)
	}
	return t, nil
}

// Modify changes what fd, registered as t, is waited on for.
func (l *Loop) Modify(fd int, t Token, e Events) error {
	ev := unix.EpollEvent{Events: uint32(e), Fd: int32(t.index), Pad: int32(t.generation)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("modify descriptor %d in epoll set: %w", fd, err)
	}
	return nil
}

// Forget lets go of a handler whose descriptor is about to be closed; closing
// takes it out of the epoll set. Events on their way to it are dropped. A token
// already forgotten, or the zero token, does nothing.
func (l *Loop) Forget(t Token) { l.table.remove(t) }

// Remove is Forget for a descriptor that stays open.
func (l *Loop) Remove(fd int, t Token) {
	if l.table.remove(t) {
		unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// Now is the clock as read at the end of the last Wait.
func (l *Loop) Now() timer.Instant { return l.now }

// Clock reads the clock anew.
func (l *Loop) Clock() timer.Instant { return timer.Instant(time.Since(l.epoch)) }

// Wait sleeps until something is ready or the deadline has passed, reads the
// clock and returns it. It may return before either: an alarm that was set for
// an earlier deadline, since moved away, goes off once. A deadline in the past,
// such as 0, only looks.
func (l *Loop) Wait(deadline timer.Instant) (timer.Instant, error) {
	n, errno := l.wait(deadline)
	l.now = l.Clock()
	l.ready = n
	if errno != 0 && errno != unix.EINTR {
		return l.now, fmt.Errorf("wait for events: %w", errno)
	}
	return l.now, nil
}

// Dispatch calls the handlers of what the last Wait found, then the closures
// that were posted.
func (l *Loop) Dispatch() {
	for i := range l.events[:l.ready] {
		ev := &l.events[i]
		if h := l.table.get(uint32(ev.Fd), uint32(ev.Pad)); h != nil {
			h.Ready(Events(ev.Events))
		}
	}
	l.ready = 0
}

func (l *Loop) wait(deadline timer.Instant) (int, unix.Errno) {
	if deadline == timer.Never {
		return l.await()
	}
	if deadline <= l.now { // no need to look at the clock to know
		return l.poll()
	}
	now := l.Clock()
	if deadline <= now {
		return l.poll()
	}
	if errno := l.alarm.setFor(deadline, now, int64(deadline-now)); errno != 0 {
		return 0, errno
	}
	return l.await()
}

// poll looks without waiting, and without a word to the Go scheduler.
func (l *Loop) poll() (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		eventsPerWait, 0, 0, 0)
	return count(n, errno), errno
}

// block waits until something is ready.
func (l *Loop) block() (int, unix.Errno) {
	const forever = ^uintptr(0)
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		eventsPerWait, forever, 0, 0)
	return count(n, errno), errno
}

func count(n uintptr, errno unix.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n)
}

// Close releases the epoll set. Posted closures that have not run never will;
// Post says so from then on. The loop's own goroutine calls it, last.
func (l *Loop) Close() {
	l.mu.Lock()
	l.closed = true
	l.posted = nil
	l.mu.Unlock()
	unix.Close(l.alarm.fd)
	unix.Close(l.wakefd)
	unix.Close(l.epfd)
}
