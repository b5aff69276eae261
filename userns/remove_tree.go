package userns

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the directories below one that is removed.
const maxDepth = 32

// emptyDirectory removes what is in a directory, directories as well, and
// mounts that we may take off, but not what is mounted.
func (l *removals) emptyDirectory(dir, depth int) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil || depth == 0 {
		return
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			l.removeEntry(fd, name, depth)
		}
		if len(names) == 0 || err != nil {
			return
		}
	}
}

func (l *removals) removeEntry(dir int, name string, depth int) {
	err := unix.Unlinkat(dir, name, 0)
	if err == unix.EBUSY { // a mount point
		l.uncover(dir, name)
		err = unix.Unlinkat(dir, name, 0)
	}
	if err != unix.EISDIR {
		return
	}
	sub, err := openEntry(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.EXDEV) {
		l.uncover(dir, name)
		sub, err = openEntry(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err == nil {
		l.emptyDirectory(sub, depth-1)
		unix.Close(sub)
	}
	_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// maxMounts bounds the mounts that are taken off one another.
const maxMounts = 64

// uncover takes off what is mounted on an entry of a directory, in a mount
// namespace that is ours to change.
func (l *removals) uncover(dir int, name string) {
	if !l.ownMounts {
		return
	}
	for range maxMounts {
		if unix.Unmount(fdPath(dir)+"/"+name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return
		}
	}
}
