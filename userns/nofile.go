package userns

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// startedWithFiles is the limit of open files that this process was started
// with; false if it cannot be found out.
//
// Package syscall raises the soft limit when it is initialised, and sets it
// back in processes that it starts, but does not tell what it was. Programs
// that use select(2), or close all descriptors one by one, suffer from a high
// one. So we have it start one, which PTRACE_TRACEME stops at exec, before its
// first instruction, and look at that.
func startedWithFiles() (unix.Rlimit, bool) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"sbxnet"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return unix.Rlimit{}, false
	}
	var ws unix.WaitStatus
	_, err = unix.Wait4(pid, &ws, unix.WALL, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(pid, &ws, unix.WALL, nil)
	}
	if err != nil || !ws.Stopped() {
		return unix.Rlimit{}, false
	}
	var limit unix.Rlimit
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit)
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if got, errWait := unix.Wait4(pid, &ws, unix.WALL, nil); got == pid && !ws.Stopped() || errWait != nil && errWait != unix.EINTR {
			break
		}
	}
	return limit, err == nil
}
