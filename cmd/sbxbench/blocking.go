package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Round trips are as much about where the scheduler puts the two ends as about
// the network: on one core a native one takes 8 µs, on two 60. So the client has
// the last core and the server the first, as if they were two machines, and both
// block in system calls: no runtime decides when they are woken.

// onCore runs f on a thread of its own that stays on the first or the last core
// that this process may use.
func onCore(last bool, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := pin(last)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func pin(last bool) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("ask for this thread's cores: %w", err)
	}
	core := -1
	for i := 0; i < len(may)*64 && (core < 0 || last); i++ {
		if may.IsSet(i) {
			core = i
		}
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on core %d: %w", core, err)
	}
	return nil
}

// A blockingConn reads and writes by plain system calls.
type blockingConn int

// block takes c's socket into blocking mode for as long as f runs; c is good
// for nothing but Close then. A read that waits longer than patience fails.
func block(c *net.TCPConn, f func(blockingConn) error) error {
	file, err := c.File()
	if err != nil {
		return err
	}
	defer file.Close()
	fd := int(file.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	return f(blockingConn(fd))
}

var errNothingCame = errors.New("nothing came")

func (c blockingConn) Read(b []byte) (int, error) {
	for {
		switch n, err := unix.Read(int(c), b); {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, fmt.Errorf("%w within %v", errNothingCame, patience)
		case err == nil && n == 0:
			return 0, net.ErrClosed
		default:
			return n, err
		}
	}
}

func (c blockingConn) Write(b []byte) (int, error) { return unix.Write(int(c), b) }

func (c blockingConn) SetDeadline(time.Time) error { return nil } // SO_RCVTIMEO has it
