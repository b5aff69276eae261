package slirp4netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"sbxnet/userns"
)

// # Into a mount namespace of its own
//
// With --enable-sandbox this program executes itself anew in a mount namespace of
// its own, and where it has not the capability for that, in a user namespace of
// its own around it. The original enters the sandbox's user namespace instead,
// whose root can then trace it, while it is in the host's network. Over one of our
// own only the host's users have a say.
//
// The way into the sandbox is made before, since from a user namespace of one's own
// there is none into another: an attachment goes along by its descriptors.

// movedEnv is where the program that is executed anew finds what the old one knew.
const movedEnv = "SBXNET_SLIRP4NETNS_MOVED"

// A move is what is handed on.
type move struct {
	// PID is this process's, so that no other takes the variable to be for it.
	PID int
	// Mounts is the mount namespace that is to be left.
	Mounts   string
	UID, GID int
	// Program is the descriptor that was executed.
	Program int
	// Attachment and Files are those of userns.HandOver; without one: a TAP of the
	// caller's.
	Attachment json.RawMessage
	Files      []int
}

// mountNamespace names the one that this process is in.
func mountNamespace() (string, error) { return os.Readlink("/proc/self/ns/mnt") }

// capable reports whether this process has a capability.
func capable(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	return unix.Capget(&header, &have[0]) == nil && have[c/32].Effective&(1<<(c%32)) != 0
}

// moveOut executes this program anew in a mount namespace of its own. It returns
// only if that fails, with what the attachment, if there is one, has become.
func (o *options) moveOut(a *userns.Attachment, log *slog.Logger) (*userns.Attachment, error) {
	u, err := mover()
	if err != nil {
		return a, err
	}
	m := move{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	if m.Mounts, err = mountNamespace(); err != nil {
		return a, err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return a, err
	}
	defer self.Close()
	var files []*os.File
	if a != nil {
		state, handed, err := a.HandOver()
		if err != nil {
			return a, err
		}
		m.Attachment, files = state, handed
	}
	var open []int
	for _, f := range files {
		m.Files = append(m.Files, rawFD(f))
	}
	for _, fd := range []int{o.ExitFD, o.ReadyFD, o.FD} {
		if fd != noFD {
			open = append(open, fd)
		}
	}
	m.Program = rawFD(self)
	u.thenExecute(m.Program)
	state, err := json.Marshal(m)
	if err == nil {
		open = append(open, m.Files...)
		setCloseOnExec(false, append(open, m.Program)...)
		err = u.execute(os.Args, append(os.Environ(), movedEnv+"="+string(state)))
		setCloseOnExec(true, append(open, m.Program)...)
	}
	if a == nil {
		return nil, err
	}
	again, errAgain := userns.TakeOver(m.Attachment, files, log)
	if errAgain != nil {
		a.Close()
		return nil, errors.Join(err, errAgain)
	}
	return again, err
}

// mover is the program that moves, but for its end.
func mover() (*unthreaded, error) {
	u := &unthreaded{}
	switch {
	case !canBeUnthreaded:
		return nil, errors.New("not on this architecture")
	case capable(unix.CAP_SYS_ADMIN):
		u.do(unix.SYS_UNSHARE, num(unix.CLONE_NEWNS))
		return u, nil
	case capable(unix.CAP_NET_BIND_SERVICE):
		// As of a file's: it would be lost, and with it ports below 1024.
		return nil, errors.New("it would cost CAP_NET_BIND_SERVICE")
	}
	u.do(unix.SYS_UNSHARE, num(unix.CLONE_NEWUSER|unix.CLONE_NEWNS))
	// Whose user ID is not 0 keeps the capabilities over a new user namespace
	// through execve only as ambient ones.
	var header, all []byte
	header = append(header, byte(unix.LINUX_CAPABILITY_VERSION_3&0xff), byte(unix.LINUX_CAPABILITY_VERSION_3>>8&0xff),
		byte(unix.LINUX_CAPABILITY_VERSION_3>>16&0xff), byte(unix.LINUX_CAPABILITY_VERSION_3>>24&0xff), 0, 0, 0, 0)
	for range 24 {
		all = append(all, 0xff)
	}
	u.do(unix.SYS_CAPSET, u.put(header...), u.put(all...))
	for _, c := range []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_BIND_SERVICE} {
		u.do(unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_RAISE), num(c), num(0), num(0))
	}
	return u, nil
}

// rawFD is the number of a file that stays as it is: Fd would make it blocking.
func rawFD(f *os.File) int {
	n := -1
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}

func setCloseOnExec(on bool, fds ...int) {
	flags := 0
	if on {
		flags = unix.FD_CLOEXEC
	}
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	}
}

// moved returns what this program was told before it was executed anew, nil if it
// was not. Nobody else gets to see it.
func moved() *move {
	value, ok := os.LookupEnv(movedEnv)
	if !ok {
		return nil
	}
	os.Unsetenv(movedEnv)
	m := &move{}
	if json.Unmarshal([]byte(value), m) != nil || m.PID != os.Getpid() {
		return nil
	}
	setCloseOnExec(true, m.Files...)
	unix.Close(m.Program)
	// What ps shows was the number of a descriptor.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	return m
}

// arrive settles in the namespaces and reports whether the mount namespace is
// this process's own.
func (m *move) arrive() error {
	now, err := mountNamespace()
	if err != nil {
		return err
	}
	if now == m.Mounts {
		return errors.New("no mount namespace could be made")
	}
	if os.Getuid() == m.UID {
		return nil // the user namespace is the same
	}
	for _, f := range [][2]string{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("%d %[1]d 1", m.UID)},
		{"gid_map", fmt.Sprintf("%d %[1]d 1", m.GID)},
	} {
		if err := os.WriteFile("/proc/self/"+f[0], []byte(f[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// attachment takes over what was handed on; nil where there was none.
func (m *move) attachment(log *slog.Logger) (*userns.Attachment, error) {
	if m.Attachment == nil {
		return nil, nil
	}
	var files []*os.File
	for _, fd := range m.Files {
		files = append(files, os.NewFile(uintptr(fd), "handed over "+strconv.Itoa(fd)))
	}
	return userns.TakeOver(m.Attachment, files, log)
}
