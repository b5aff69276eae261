package userns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// openDetachedNetwork makes a network namespace that the command is not in,
// names it by a mount on path, and returns the link in it. The mount keeps it
// alive and is in the sandbox's mount namespace: from outside it is
// /proc/PID/root and the path.
//
// The work is done on a thread of its own that stays there. It could not go back:
// to enter the host's network namespace takes a capability over that. Who looks
// from outside for what listens there finds it by this thread (proc_pid_net(5)).
func (p *initProcess) openDetachedNetwork(path string) (*tapdev.Info, []*os.File, error) {
	type opened struct {
		info  *tapdev.Info
		files []*os.File
		err   error
	}
	result := make(chan opened)
	go func() {
		runtime.LockOSThread() // and never unlocked
		var o opened
		if o.err = detachThread(path); o.err == nil {
			o.info, o.files, o.err = p.openNetwork()
		}
		result <- o
		if o.err == nil {
			select {}
		}
	}()
	o := <-result
	return o.info, o.files, o.err
}

// detachThread moves this thread into a new network namespace and mounts that
// on path.
func detachThread(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("detached network namespace: %w", err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("detached network namespace: %w", err)
	}
	defer unix.Close(ns)
	if err := unix.Mount(fdPath(ns), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the detached network namespace on %s: %w", path, err)
	}
	return nil
}

// checkDetached refuses a name that nothing can be mounted on.
func checkDetached(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("file for the detached network namespace: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("file for the detached network namespace: %s is not a regular file", path)
	}
	return nil
}
