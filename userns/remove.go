package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// removal is something that the sandbox's first process removes when sbxnet
// has died without doing so.
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
}

// checkRemove refuses what could only be a mistake.
func checkRemove(paths []string) error {
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
			return fmt.Errorf("remove %q at the end: want an absolute path, and not /", p)
		}
	}
	return nil
}

// openRemovals opens what is to be removed; what cannot be opened, or is not
// ours, is left out.
func openRemovals(paths []string, note func(string, ...any)) []removal {
	var list []removal
	for _, p := range paths {
		r, err := openRemoval(filepath.Clean(p))
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
	r.isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	return r, nil
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

// removeAll removes what there is to remove.
func removeAll(list []removal) {
	for i := range list {
		if r := &list[i]; r.unused() {
			r.remove()
		}
	}
}

// unusedWait is how long the dying sbxnet may take to let go of its lock: its
// descriptors are closed one after the other, the control socket's maybe before.
const unusedWait = 2 * time.Second

// unused reports whether no living process holds the lock (flock(2)) on the file
// "lock" of the directory, if it has one: who does uses it anew, and will remove
// it. The lock is kept until we exit.
func (r *removal) unused() bool {
	if !r.isDir {
		return true
	}
	fd, err := openEntry(r.self, "lock", unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) {
		return true
	}
	for end := time.Now().Add(unusedWait); err == nil; time.Sleep(5 * time.Millisecond) {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		if time.Now().After(end) {
			break
		}
	}
	return false
}

// remove removes it, if it is still where it was.
func (r *removal) remove() {
	if r.isDir {
		emptyDirectory(r.self, maxDepth)
	}
	now, err := openEntry(r.parent, r.name, unix.O_PATH)
	if errors.Is(err, unix.EXDEV) {
		uncover(r.parent, r.name)
		now, err = openEntry(r.parent, r.name, unix.O_PATH)
	}
	if err != nil {
		return
	}
	id, err := namespaceOf(now)
	unix.Close(now)
	if err != nil || id != r.id {
		return
	}
	flags := 0
	if r.isDir {
		flags = unix.AT_REMOVEDIR // which spares one that is not empty
	}
	_ = unix.Unlinkat(r.parent, r.name, flags)
}

// maxDepth bounds the directories below one that is removed.
const maxDepth = 32

// emptyDirectory removes what is in a directory, directories as well, and
// mounts that we may take off, but not what is mounted.
func emptyDirectory(dir, depth int) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil || depth == 0 {
		return
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			removeEntry(fd, name, depth)
		}
		if len(names) == 0 || err != nil {
			return
		}
	}
}

func removeEntry(dir int, name string, depth int) {
	err := unix.Unlinkat(dir, name, 0)
	if err == unix.EBUSY { // a mount point
		uncover(dir, name)
		err = unix.Unlinkat(dir, name, 0)
	}
	if err != unix.EISDIR {
		return
	}
	sub, err := openEntry(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.EXDEV) {
		uncover(dir, name)
		sub, err = openEntry(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err == nil {
		emptyDirectory(sub, depth-1)
		unix.Close(sub)
	}
	_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// maxMounts bounds the mounts that are taken off one another.
const maxMounts = 64

// uncover takes off what is mounted on an entry of a directory, in the sandbox's
// mount namespace, which has no other use by now.
func uncover(dir int, name string) {
	for range maxMounts {
		if unix.Unmount(fdPath(dir)+"/"+name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return
		}
	}
}
