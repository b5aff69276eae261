package slirp4netns

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
)

// # What is given up once all is up
//
// --enable-sandbox: the sight of all directories but those that names are resolved
// by (root.go), in a mount namespace of this process's own (move.go); writing to
// the file system, removing the API socket apart, by a filter on system calls; by
// a Landlock ruleset, once more, all files but those below /etc, /run and /proc,
// for reading, and the API socket, for its removal; and all capabilities but
// CAP_NET_BIND_SERVICE, for published ports below 1024.
//
// Landlock and capabilities go by thread. In a build with cgo the runtime does
// not know all of them, and they are left out: the capabilities that then stay are
// over the user namespace of this process alone, or root's.
//
// --enable-seccomp: the system calls of deniedCalls, among them those that
// start programs, look into other processes, enter namespaces or load code into
// the kernel. They fail with EPERM.
//
// Neither makes a start fail: what a kernel or a build does not have is left out,
// with a line in the log at debug level. Callers ask for both as a matter of
// course.

// confine applies what the options ask for; ownMounts says that the mount
// namespace is this process's own. From here on no thread of it gets more than
// it has.
func (o *options) confine(ownMounts bool, log *slog.Logger) {
	note := func(what string, err error) {
		if err != nil {
			log.Debug(what + err.Error())
		}
	}
	apiSocket := o.APISocket
	if apiSocket != "" { // the working directory does not stay
		if path, err := filepath.Abs(apiSocket); err == nil {
			apiSocket = path
		}
	}
	if o.Sandbox && ownMounts {
		v, err := o.view(apiSocket)
		if err == nil {
			err = v.becomeRoot()
		}
		note("--enable-sandbox leaves the root directory: ", err)
	}
	if o.Sandbox {
		note("--enable-sandbox without Landlock: ", restrictFiles(apiSocket))
		note("--enable-sandbox leaves capabilities: ", dropCapabilities())
	}
	if o.Sandbox || o.Seccomp {
		f := filter{Calls: o.Seccomp, Writes: o.Sandbox, Removals: o.Sandbox && o.APISocket == ""}
		note("no filter of system calls: ", f.apply())
	}
}

// onAllThreads makes a system call on every thread there is; later ones inherit
// its effect. With cgo the runtime does not know all threads and refuses.
func onAllThreads(call, a, b, c uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(call, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// noNewPrivileges lets a process without privilege restrict itself: execve gives
// nothing back.
func noNewPrivileges() error {
	return onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
}

// dropCapabilities keeps CAP_NET_BIND_SERVICE, and that only where we have it.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have, keep [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read our capabilities: %w", err)
	}
	keep[0].Effective = have[0].Effective & (1 << unix.CAP_NET_BIND_SERVICE)
	keep[0].Permitted = have[0].Permitted & (1 << unix.CAP_NET_BIND_SERVICE)
	if err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&keep[0])), 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// What Landlock handles is denied but where a rule says otherwise. These rights
// are those of its first version, Linux 5.13.
const (
	handledFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | readFiles |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
)

// readable are where the host's resolvers and hosts are found, and who has a
// port.
func readable() []string {
	dirs := []string{"/etc", "/run", "/proc"}
	if path, err := filepath.EvalSymlinks(network.ResolvConf); err == nil {
		dirs = append(dirs, filepath.Dir(path)) // mostly one of those
	}
	return dirs
}

func restrictFiles(apiSocket string) error {
	rules := map[string]uint64{}
	for _, dir := range readable() {
		rules[dir] = readFiles
	}
	if apiSocket != "" {
		rules[filepath.Dir(apiSocket)] |= unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	}
	// Of the ruleset's attributes the first is all that the first version knows.
	handled := uint64(handledFiles)
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled), 0)
	if errno != 0 {
		return fmt.Errorf("make a Landlock ruleset: %w", errno)
	}
	defer unix.Close(int(ruleset))
	for dir, rights := range rules {
		if err := allowBeneath(int(ruleset), dir, rights); err != nil {
			return err
		}
	}
	if err := noNewPrivileges(); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if err := onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); err != nil {
		return fmt.Errorf("restrict ourselves to a Landlock ruleset: %w", err)
	}
	return nil
}

func allowBeneath(ruleset int, dir string, rights uint64) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	// struct landlock_path_beneath_attr is packed: 12 bytes.
	var rule [12]byte
	*(*uint64)(unsafe.Pointer(&rule[0])) = rights
	*(*int32)(unsafe.Pointer(&rule[8])) = int32(fd)
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule[0])), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow %s in a Landlock ruleset: %w", dir, errno)
	}
	return nil
}
