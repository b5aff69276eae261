package userns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const secureMount = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// setUpMounts makes the mounts of the sandbox. What the kernel refuses, as it
// does in many containers, is noted and left as it was.
func setUpMounts(s *setup, note func(string, ...any)) (*etcFiles, error) {
	// Slave, not private: nothing goes out either way, but a file system that
	// the host unmounts is not kept busy by us.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("keep mounts from spreading to the host: %w", err)
	}
	if !s.NetRaw {
		if err := ignoreFileCapabilities(); err != nil {
			note("a ping with a file capability cannot be executed without CAP_NET_RAW: %v", err)
		}
	}
	for _, dir := range s.CopyUp {
		if err := copyUp(dir); err != nil {
			return nil, err
		}
	}
	if s.PIDNamespace {
		if err := unix.Mount("proc", "/proc", "proc", secureMount, ""); err != nil {
			note("/proc shows the processes of the host: a fresh one cannot be mounted (%v), as in a container that masks parts of /proc", err)
		}
	}
	etc, err := coverSys(s, note)
	if err != nil {
		return nil, err
	}
	return etc, s.Propagation.set()
}

// ignoreFileCapabilities makes set-user-ID bits and file capabilities
// ineffective. The kernel refuses to execute a file with a capability that the
// process may not have (bprm_caps_from_vfs_caps, security/commoncap.c), and on
// many systems ping, which can do without, is one with CAP_NET_RAW.
func ignoreFileCapabilities() error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	return unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, attr)
}

// coverSys mounts a fresh sysfs, which shows the devices of the sandbox's
// network, and below it, out of sight, the files for /etc.
func coverSys(s *setup, note func(string, ...any)) (*etcFiles, error) {
	host, err := openPath("/sys", unix.O_DIRECTORY)
	if err != nil {
		note("the sandbox has no /sys and its own /etc/resolv.conf neither: %v", err)
		return nil, nil
	}
	defer unix.Close(host)
	etc, err := mountEtcFiles(s, note)
	if err != nil {
		return nil, err
	}
	if s.newNetwork() {
		if mountSysfs() == nil {
			if s.Cgroup2 {
				return etc, mountCgroup2()
			}
			// For programs that manage cgroups; the fresh sysfs has none.
			_ = unix.Mount(fdPath(host)+"/fs/cgroup", "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "")
			return etc, nil
		}
		note("/sys shows the network devices of the host: the kernel refuses a fresh one, as it does in a container where /sys is read-only")
	}
	if etc != nil {
		if err := uncoverSys(host); err != nil {
			return nil, err
		}
	}
	if s.Cgroup2 && s.DetachNetNS == "" {
		return etc, mountCgroup2()
	}
	return etc, nil
}

// mountCgroup2 covers /sys/fs/cgroup with the sandbox's own. The kernel refuses
// that over another cgroup2 of the same root (EBUSY), and takes it over a tmpfs.
func mountCgroup2() error {
	const dir = "/sys/fs/cgroup"
	err := unix.Mount("cgroup2", dir, "cgroup2", secureMount, "")
	if errors.Is(err, unix.EBUSY) {
		if err := unix.Mount("none", dir, "tmpfs", secureMount, ""); err != nil {
			return fmt.Errorf("failed to mount tmpfs on %s: %w", dir, err)
		}
		err = unix.Mount("cgroup2", dir, "cgroup2", secureMount, "")
	}
	if err != nil {
		return fmt.Errorf("failed to mount cgroup2 on %s: %w", dir, err)
	}
	return nil
}

// mountSysfs covers /sys. The kernel wants it to be as read-only as what it
// covers.
func mountSysfs() error {
	err := unix.Mount("sysfs", "/sys", "sysfs", secureMount, "")
	if errors.Is(err, unix.EPERM) {
		err = unix.Mount("sysfs", "/sys", "sysfs", secureMount|unix.MS_RDONLY, "")
	}
	return err
}

// uncoverSys shows the host's /sys again over the tmpfs of mountEtcFiles.
func uncoverSys(host int) error {
	if err := unix.Mount(fdPath(host), "/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show /sys again: %w", err)
	}
	// The recursive bind has brought a copy of the tmpfs on top.
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("show /sys again: %w", err)
	}
	return nil
}

// etcFiles are the files that cover some in /etc.
type etcFiles struct {
	dir     string         // /etc
	sources map[string]int // by name: O_PATH descriptors of what covers it
	device  string         // major:minor of their file system
}

// mountEtcFiles writes the files to a tmpfs on /sys and mounts them over those
// in /etc. It returns nil if there are none.
func mountEtcFiles(s *setup, note func(string, ...any)) (*etcFiles, error) {
	files := s.etcFiles()
	if len(files) == 0 {
		return nil, nil
	}
	if copiedUp(s.CopyUp, s.Etc) {
		return nil, writeEtcFiles(files, s.Etc)
	}
	size := 0
	for _, content := range files {
		size += len(content)
	}
	// Room for the command to edit them, and not for much else.
	options := fmt.Sprintf("mode=0755,size=%d,nr_inodes=16", 4*size+1<<20)
	if err := unix.Mount("sbxnet", "/sys", "tmpfs", secureMount, options); err != nil {
		return nil, fmt.Errorf("mount a tmpfs for %s/resolv.conf: %w", s.Etc, err)
	}
	e := &etcFiles{dir: s.Etc, sources: map[string]int{}}
	for name, content := range files {
		if err := e.add(name, content); err != nil {
			return nil, err
		}
		if err := e.cover(name); err != nil {
			note("%s is the host's in the sandbox: %v", filepath.Join(e.dir, name), err)
		}
	}
	return e, nil
}

// add writes a file to the tmpfs.
func (e *etcFiles) add(name string, content []byte) error {
	path := filepath.Join("/sys", name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	// The umask is the caller's; everybody inside must be able to read it.
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	fd, err := openPath(path, 0)
	if err != nil {
		return err
	}
	e.sources[name] = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	e.device = fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return nil
}

// cover mounts the file of that name over the one in /etc; over the symbolic
// link, where it is one.
func (e *etcFiles) cover(name string) error {
	target, err := openPath(filepath.Join(e.dir, name), unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w; to have something to mount over: sudo touch %s", err, filepath.Join(e.dir, name))
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.Mount(fdPath(e.sources[name]), fdPath(target), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount our own over it: %w", err)
	}
	return nil
}

// keep mounts a file again whenever the host, by renaming another over the one
// that it covers, has made its mount disappear. It returns only when the mounts
// cannot be watched.
func (e *etcFiles) keep(note func(string, ...any)) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	for {
		timeout := -1
		if !e.coverAll(note) {
			timeout = 100 // the host is in the middle of it
		}
		if _, err := unix.Poll(poll, timeout); err != nil && err != unix.EINTR {
			return
		}
	}
}

// coverAll covers what is not covered, and reports whether all is now.
func (e *etcFiles) coverAll(note func(string, ...any)) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true // nothing to go by
	}
	all := true
	for name := range e.sources {
		if e.covered(mounts, name) {
			continue
		}
		switch err := e.cover(name); {
		case errors.Is(err, unix.ENOENT):
			all = false
		case err != nil:
			note("%s is the host's in the sandbox since it was replaced: %v", filepath.Join(e.dir, name), err)
		}
	}
	return all
}

// covered reports whether our file of that name is mounted, be it below
// something that the command has mounted.
func (e *etcFiles) covered(mountinfo []byte, name string) bool {
	for line := range bytes.Lines(mountinfo) {
		// ID, parent, major:minor, root, mount point … (proc_pid_mountinfo(5))
		f := bytes.Fields(line)
		if len(f) > 4 && string(f[2]) == e.device && string(f[3]) == "/"+name {
			return true
		}
	}
	return false
}

// openPath opens path to refer to it only.
func openPath(path string, flags int) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// fdPath names the very object that fd refers to, even if it is a symbolic link
// or lies below a mount.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
