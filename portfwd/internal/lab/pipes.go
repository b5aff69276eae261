package lab

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is an ordinary pipe's, in bytes.
const pipeSize = 64 << 10

// NeedPipes waits until the user may have n ordinary pipes more: those of all his
// programs count (pipe-user-pages-soft, pipe(7)), other tests' too.
func NeedPipes(t testing.TB, n int) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		made, err := tryPipes(n)
		switch {
		case err != nil:
			t.Fatalf("%d pipes of %d: %v", made, n, err)
		case made == n:
			return
		case time.Since(start) > 30*time.Second:
			t.Fatalf("%d pipes of %d: the user's programs have used up fs.pipe-user-pages-soft", made, n)
		}
	}
}

// tryPipes makes up to n pipes, as long as they are ordinary ones, and closes them.
func tryPipes(n int) (made int, err error) {
	for ; made < n; made++ {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return made, err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
		if err != nil || size < pipeSize {
			return made, err
		}
	}
	return made, nil
}
