package reactor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/timer"
)

// alarm is a timerfd in the loop's epoll set, which ends a Wait at a deadline.
//
// A timeout of epoll_pwait2 would be set and taken back in every wait, and each
// time the kernel programs the clock's hardware anew: in a virtual machine two
// exits to the hypervisor, a good part of a round trip's time. Deadlines of a
// connection mostly move away: the alarm stays where it is until it has gone
// off, and is set again for what is due then. It is set anew at once only for a
// deadline that is earlier.
type alarm struct {
	fd  int
	set timer.Instant // when it goes off; Never, or in the past: it is not set
}

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return alarm{}, fmt.Errorf("create timer descriptor: %w", err)
	}
	return alarm{fd: fd, set: timer.Never}, nil
}

// setFor makes sure that the alarm goes off no later than left nanoseconds from
// now, which is at deadline. left is above 0.
func (a *alarm) setFor(deadline, now timer.Instant, left int64) unix.Errno {
	if now < a.set && a.set <= deadline {
		return 0
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(left)}
	_, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(a.fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno == 0 {
		a.set = deadline
	}
	return errno
}

// Ready implements Handler. There is nothing to read: the descriptor is
// registered edge-triggered, and setting it again clears it.
func (a *alarm) Ready(Events) { a.set = timer.Never }
