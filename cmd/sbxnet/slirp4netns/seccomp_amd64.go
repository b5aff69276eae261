package slirp4netns

import "golang.org/x/sys/unix"

// opens are the calls that open files, with the place of their flags among the
// arguments.
var opens = map[uint32]uint32{unix.SYS_OPENAT: 2, unix.SYS_OPEN: 1}

// What the kernel has for old programs besides.
var (
	olderWriteCalls = []uint32{
		unix.SYS_CREAT, unix.SYS_MKDIR, unix.SYS_MKNOD, unix.SYS_LINK, unix.SYS_SYMLINK, unix.SYS_RENAME, unix.SYS_RENAMEAT,
		unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT,
	}
	olderRemoveCalls = []uint32{unix.SYS_UNLINK, unix.SYS_RMDIR}
)
