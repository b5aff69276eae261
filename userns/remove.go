package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// removals are what a process inside removes when sbxnet has died without doing
// so (Config.Remove and RemoveIfEmpty).
type removals struct {
	whole, ifEmpty []removal
	// ownMounts: the mount namespace is the sandbox's, which has no other use by
	// then, so what is mounted in the way is taken off.
	ownMounts bool
}

// removal is one of them.
//
// It is opened before the command runs, and from then on known by its inode and
// by its directory's descriptor: whatever the command mounts on the way there,
// or somebody puts in its place, is not ours to remove.
type removal struct {
	path   string
	name   string // in parent
	parent int
	self   int // an O_PATH descriptor
	id     namespaceID
	isDir  bool
	// written is when a regular file was; zero for others. Who writes a file
	// anew, such as one with a process ID, keeps its inode.
	written unix.Timespec
}

// checkRemove refuses what could only be a mistake.
func checkRemove(lists ...[]string) error {
	for _, paths := range lists {
		for _, p := range paths {
			if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
				return fmt.Errorf("remove %q at the end: want an absolute path, and not /", p)
			}
		}
	}
	return nil
}

// open opens what is to be removed; what cannot be opened, or is not ours, is
// left out.
func (l *removals) open(whole, ifEmpty []string, note func(string, ...any)) {
	l.whole = append(l.whole, openRemovals(whole, note)...)
	l.ifEmpty = append(l.ifEmpty, openRemovals(ifEmpty, note)...)
}

func openRemovals(paths []string, note func(string, ...any)) []removal {
	var list []removal
	for _, p := range paths {
		r, err := openRemoval(filepath.Clean(p))
		if errors.Is(err, os.ErrNotExist) {
			continue // sbxnet was faster, and has removed it
		}
		if err != nil {
			note("%s will be left if sbxnet is killed: %v", p, err)
			continue
		}
		list = append(list, r)
	}
	return list
}

func openRemoval(path string) (removal, error) {
	r := removal{path: path, name: filepath.Base(path), parent: -1}
	var err error
	if r.parent, err = openPath(filepath.Dir(path), unix.O_DIRECTORY); err != nil {
		return r, err
	}
	var st unix.Stat_t
	if r.self, err = openEntry(r.parent, r.name, unix.O_PATH); err == nil {
		if err = unix.Fstat(r.self, &st); err == nil && int(st.Uid) != os.Geteuid() {
			err = errors.New("it is not ours")
		}
		if err != nil {
			unix.Close(r.self)
		}
	}
	if err != nil {
		unix.Close(r.parent)
		return r, err
	}
	r.id = namespaceID{uint64(st.Dev), st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		r.isDir = true
	case unix.S_IFREG:
		r.written = st.Mtim
	}
	return r, nil
}

// isStill reports whether what is open is what there was.
func (r *removal) isStill(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || (namespaceID{uint64(st.Dev), st.Ino}) != r.id {
		return false
	}
	return st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mtim == r.written
}

// openEntry opens what is of that name in a directory, itself: neither what a
// symbolic link points to nor what is mounted on it.
func openEntry(dir int, name string, flags uint64) (int, error) {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// remove removes what there is to remove. Its locks are kept until we exit.
//
// The directories that go if they are empty are locked first: who makes
// something in one, or looks for what is left, sees all of this or nothing.
// Before that comes what may take time.
func (l *removals) remove() {
	var unused []*removal
	for i := range l.whole {
		if r := &l.whole[i]; r.unused() {
			unused = append(unused, r)
		}
	}
	var locked []*removal
	for i := range l.ifEmpty {
		if r := &l.ifEmpty[i]; r.lock() {
			locked = append(locked, r)
		}
	}
	for _, r := range unused {
		if r.isDir {
			l.emptyDirectory(r.self, maxDepth)
		}
		l.unlink(r)
	}
	for _, r := range locked {
		l.unlink(r)
	}
}

// lockWait is how long others may keep a lock: the dying sbxnet, whose
// descriptors are closed one after the other, the control socket's maybe before;
// and those of its kind that die or start at the same time.
const lockWait = 2 * time.Second

// unused reports whether no living process holds the lock on the file "lock" of
// the directory, if it has one: who does uses it anew, and will remove it.
func (r *removal) unused() bool {
	if !r.isDir {
		return true
	}
	fd, err := openEntry(r.self, "lock", unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) {
		return true
	}
	return err == nil && waitLock(fd)
}

// lock locks the directory itself.
func (r *removal) lock() bool {
	if !r.isDir {
		return false
	}
	fd, err := unix.Openat(r.self, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err == nil && waitLock(fd)
}

// waitLock takes a lock (flock(2)) when it is free; false if that takes too long.
func waitLock(fd int) bool {
	for end := time.Now().Add(lockWait); unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// unlink removes it, if it is still there as it was and, as a directory, empty.
func (l *removals) unlink(r *removal) {
	now, err := openEntry(r.parent, r.name, unix.O_PATH)
	if errors.Is(err, unix.EXDEV) {
		l.uncover(r.parent, r.name)
		now, err = openEntry(r.parent, r.name, unix.O_PATH)
	}
	if err != nil {
		return
	}
	still := r.isStill(now)
	unix.Close(now)
	if !still {
		return
	}
	flags := 0
	if r.isDir {
		flags = unix.AT_REMOVEDIR // which spares one that is not empty
	}
	_ = unix.Unlinkat(r.parent, r.name, flags)
}
