package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Root is the directory that the state directories of this user's sandboxes are
// in. It need not exist.
func Root() string {
	uid := os.Geteuid()
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)} {
		if filepath.IsAbs(dir) && usable(dir, uid) {
			return filepath.Join(dir, "sbxnet")
		}
	}
	return filepath.Join(os.TempDir(), "sbxnet-"+strconv.Itoa(uid))
}

// usable reports whether dir is the user's own, and nobody else's to write to.
// XDG_RUNTIME_DIR of another user is what su and sudo leave in the environment.
func usable(dir string, uid int) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	return int(st.Uid) == uid && st.Mode&0o022 == 0 && unix.Access(dir, unix.W_OK|unix.X_OK) == nil
}

// An UntrustedError is a directory that somebody else may have made or may
// change. Its text is one line that says what to do.
type UntrustedError struct {
	// Path of the directory, What is wrong with it, and how to Mend it.
	Path, What, Mend string
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("state directory %s: %s; %s", e.Path, e.What, e.Mend)
}

// lockWait bounds how long others may be busy with names: each is for less than
// a millisecond.
const lockWait = 5 * time.Second

// lockedRoot opens the outer directory, makes it first if make says so, and
// locks it. Close of the file unlocks it.
func lockedRoot(path string, make bool) (*os.File, error) {
	for deadline := time.Now().Add(lockWait); ; {
		if make {
			if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("make state directory: %w; set XDG_RUNTIME_DIR to a directory of yours that only you can write to", err)
			}
		}
		dir, err := openOwn(path)
		if err != nil {
			if make && errors.Is(err, fs.ErrNotExist) && time.Now().Before(deadline) {
				continue // gone with the last name, just now
			}
			return nil, err
		}
		held, err := lockNow(dir)
		if err == nil && held && same(dir, path) {
			return dir, nil
		}
		dir.Close()
		if err != nil {
			return nil, fmt.Errorf("lock state directory %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("lock state directory %s: another sbxnet has held it for %v; end that one", path, lockWait)
		}
		if !held {
			time.Sleep(time.Millisecond)
		}
	}
}

// lockNow takes the flock of an open file, if it is free.
func lockNow(f *os.File) (held bool, err error) {
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return true, nil
	case unix.EWOULDBLOCK, unix.EINTR:
		return false, nil
	default:
		return false, os.NewSyscallError("flock", err)
	}
}

// same reports whether path still leads to the open file.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// openOwn opens a directory that must be ours alone.
func openOwn(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
	case unix.ENOTDIR, unix.ELOOP:
		return nil, &UntrustedError{path, "is no directory", "remove it"}
	default:
		return nil, &fs.PathError{Op: "open state directory", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := checkOwn(fd, path); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

func checkOwn(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat state directory", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return &UntrustedError{path, fmt.Sprintf("belongs to user %d, not to you (%d)", st.Uid, os.Geteuid()),
			"set XDG_RUNTIME_DIR to a directory of yours, or have it removed"}
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 {
		return &UntrustedError{path, fmt.Sprintf("others may enter it (mode %#o)", mode), "chmod 700 it, or remove it"}
	}
	return nil
}
