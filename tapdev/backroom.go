package tapdev

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// backroom is a network namespace for our end of a veth pair, where neither the
// sandbox's programs nor its IP stack see it. It has no name and no process:
// the sockets opened in it keep it alive, and with the last of them it goes, and
// the pair with it.
//
// Between open and close the calling goroutine is locked to its thread, which
// changes namespaces. The nil backroom is the sandbox itself.
type backroom struct{ sandbox, behind int }

// netnsPath is the calling thread's network namespace.
const netnsPath = "/proc/thread-self/ns/net"

// openBackroom makes a backroom; the thread stays in the sandbox. It needs
// CAP_SYS_ADMIN in the namespace's user namespace.
func openBackroom() (*backroom, error) {
	runtime.LockOSThread()
	b := &backroom{sandbox: -1, behind: -1}
	var err error
	if b.sandbox, err = unix.Open(netnsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		b.close()
		return nil, fmt.Errorf("open %s: %w", netnsPath, err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.close()
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	b.behind, err = unix.Open(netnsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if back := unix.Setns(b.sandbox, unix.CLONE_NEWNET); back != nil {
		// The thread is in the wrong namespace and must not be used again: it
		// stays locked and ends with its goroutine.
		b.closeFiles()
		return nil, fmt.Errorf("return to the sandbox's network namespace: %w", back)
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("open %s: %w", netnsPath, err)
	}
	return b, nil
}

// inside runs do in the backroom and returns to the sandbox.
func (b *backroom) inside(do func() error) error {
	if b == nil {
		return do()
	}
	if err := unix.Setns(b.behind, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err := do()
	if back := unix.Setns(b.sandbox, unix.CLONE_NEWNET); back != nil {
		runtime.LockOSThread() // one more than close undoes; see openBackroom
		return fmt.Errorf("return to the sandbox's network namespace: %w", back)
	}
	return err
}

// close forgets the backroom; sockets that were opened in it keep it.
func (b *backroom) close() {
	if b == nil {
		return
	}
	b.closeFiles()
	runtime.UnlockOSThread()
}

func (b *backroom) closeFiles() {
	for _, fd := range []int{b.sandbox, b.behind} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
