package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capableOutside reports whether this process may work on the network of every
// namespace below its own without entering it.
func capableOutside() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&needed == needed
}

// errNotNamespace is a file that is no namespace's.
var errNotNamespace = errors.New("not a namespace file")

// openNamespace opens the file of a namespace of one kind, a CLONE_NEW
// constant. Nothing else is ever opened: a pipe would make us wait, and a device
// could do anything.
func openNamespace(path string, kind int) (*os.File, error) {
	ref, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ref)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(ref, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, &os.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w, but %s", errNotNamespace, fileKind(ref))}
	}
	fd, err := unix.Open(fdPath(ref), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	got, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err == nil && got != kind {
		err = fmt.Errorf("it is the file of a %s namespace, not of a %s namespace", namespaceName(got), namespaceName(kind))
	}
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// fileKind says what sort of file a descriptor refers to.
func fileKind(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "unknown"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a plain file: nothing is mounted on it"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a named pipe"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFLNK:
		return "a symbolic link"
	}
	return "a device"
}

func namespaceName(kind int) string {
	switch kind {
	case unix.CLONE_NEWUSER:
		return "user"
	case unix.CLONE_NEWNET:
		return "network"
	case unix.CLONE_NEWNS:
		return "mount"
	case unix.CLONE_NEWPID:
		return "PID"
	case unix.CLONE_NEWUTS:
		return "UTS"
	case unix.CLONE_NEWIPC:
		return "IPC"
	case unix.CLONE_NEWCGROUP:
		return "cgroup"
	case unix.CLONE_NEWTIME:
		return "time"
	}
	return fmt.Sprintf("%#x", kind)
}

// fileNamespace is namespaceOf for a file.
func fileNamespace(f *os.File) (namespaceID, error) { return namespaceOf(int(f.Fd())) }

// ownNamespace identifies a namespace of this process, by its name in
// /proc/self/ns.
func ownNamespace(name string) (namespaceID, error) {
	return pathNamespace("/proc/self/ns/" + name)
}

// pathNamespace identifies the namespace that a path leads to.
func pathNamespace(path string) (namespaceID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespaceID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespaceID{uint64(st.Dev), st.Ino}, nil
}

// groupsOf lists the supplementary groups of a process, as IDs of the reader's
// user namespace.
func groupsOf(pid int) ([]uint32, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, err
	}
	list := []uint32{}
	for line := range strings.Lines(string(b)) {
		ids, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		for _, s := range strings.Fields(ids) {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("groups of process %d: %w", pid, err)
			}
			list = append(list, uint32(n))
		}
	}
	return list, nil
}
