package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// target is the network namespace to attach to.
type target struct {
	// name for messages: "process 42" or "network namespace /run/netns/web".
	name string
	// path leads to it for as long as it is to have a network.
	path string
	pid  int // 0 where it was named by its path
	// pidfd of pid; nil before Linux 5.3 and without a PID.
	pidfd *os.File
	net   *os.File
	// user is the user namespace to enter first; nil if none need be.
	user *os.File
	// netOnly: none may be.
	netOnly bool
}

// openTarget finds what cfg names. It refuses the host's own network.
func openTarget(cfg *AttachConfig) (*target, error) {
	t := &target{pid: cfg.PID, netOnly: cfg.NetNSOnly}
	var err error
	switch {
	case cfg.PID < 0 || cfg.PID == 0 && cfg.NetNS == "":
		return nil, errors.New("attach: name a process by its ID, from 1 on, or a network namespace by its path")
	case cfg.PID > 0 && cfg.NetNS != "":
		return nil, fmt.Errorf("attach: both process %d and the path %s: name one of them", cfg.PID, cfg.NetNS)
	case cfg.NetNSOnly && cfg.UserNS != "":
		return nil, fmt.Errorf("attach: the user namespace %s, and none is to be entered: name one of them", cfg.UserNS)
	case cfg.PID > 0:
		t.name = "process " + strconv.Itoa(cfg.PID)
		t.path = "/proc/" + strconv.Itoa(cfg.PID) + "/ns/net"
		err = t.openProcess()
	default:
		t.name = "network namespace " + cfg.NetNS
		if t.path, err = filepath.Abs(cfg.NetNS); err == nil {
			t.net, err = openNamespace(t.path, unix.CLONE_NEWNET)
		}
	}
	if err == nil {
		err = t.refuseOwn()
	}
	if err == nil && !t.netOnly {
		err = t.chooseUser(cfg.UserNS)
	}
	if err != nil {
		t.close()
		return nil, t.explain(err)
	}
	return t, nil
}

// openProcess opens the namespace of t.pid. The pidfd comes first: if the
// process lives when its namespace is open, no other has taken its ID.
func (t *target) openProcess() error {
	fd, err := unix.PidfdOpen(t.pid, 0)
	switch err {
	case nil:
		t.pidfd = os.NewFile(uintptr(fd), t.name)
	case unix.ENOSYS, unix.EPERM: // an old kernel, or a container's seccomp filter
	default:
		return err
	}
	if t.net, err = openNamespace(t.path, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if t.ended() {
		return unix.ESRCH
	}
	return nil
}

// ended reports whether the process that the target was named by is gone.
func (t *target) ended() bool {
	if t.pid == 0 {
		return false
	}
	if t.pidfd == nil {
		_, err := os.Stat(t.path)
		return err != nil
	}
	fds := []unix.PollFd{{Fd: int32(t.pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// errOwnNetwork is a target that must stay as it is.
var errOwnNetwork = errors.New("the host's own network namespace")

// refuseOwn refuses the namespace that this process is in, and the one of the
// first process, so far as it can be seen and belongs to our user namespace.
func (t *target) refuseOwn() error {
	id, err := fileNamespace(t.net)
	if err != nil {
		return err
	}
	if own, err := ownNamespace("net"); err != nil || own == id {
		return errors.Join(err, errOwnNetwork)
	}
	first, err := pathNamespace("/proc/1/ns/net")
	if err != nil || first != id {
		return nil // an ordinary user may not look, and may do no harm there
	}
	firstUser, err := pathNamespace("/proc/1/ns/user")
	own, errOwn := ownNamespace("user")
	if err == nil && errOwn == nil && firstUser == own {
		return errOwnNetwork
	}
	return nil
}

// chooseUser finds the user namespace to enter: the one given, or the one that
// owns the network namespace.
//
// Who has the capabilities outside enters none. For root that is more than a
// saving: a process of its user ID inside the user namespace of somebody
// else, who has every capability there, could be traced and taken over.
func (t *target) chooseUser(given string) (err error) {
	if given != "" {
		t.user, err = openNamespace(given, unix.CLONE_NEWUSER)
	} else {
		t.user, err = ownerOf(t.net)
	}
	if err != nil {
		return err
	}
	id, err := fileNamespace(t.user)
	if err != nil {
		return err
	}
	own, err := ownNamespace("user")
	if err != nil {
		return err
	}
	if id == own || capableOutside() {
		t.user.Close()
		t.user = nil
	}
	return nil
}

// ownerOf opens the user namespace that a namespace belongs to.
func ownerOf(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, fmt.Errorf("find the user namespace that owns it: %w", err)
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// namespaces to enter, in order.
func (t *target) namespaces() []*os.File {
	if t.user == nil {
		return []*os.File{t.net}
	}
	return []*os.File{t.user, t.net}
}

func (t *target) close() {
	for _, f := range []*os.File{t.pidfd, t.net, t.user} {
		if f != nil {
			f.Close()
		}
	}
}

// explain makes one line of what went wrong: on what, why, what to do.
func (t *target) explain(err error) error {
	what := "attach to " + t.name + ": "
	switch {
	case t.ended() && t.net != nil:
		return fmt.Errorf(what+"it ended before it had its network: %w", unix.ESRCH)
	case errors.Is(err, errOwnNetwork):
		return fmt.Errorf(what+"that is %w: give it one of its own, as with unshare --net", errOwnNetwork)
	case errors.Is(err, errNotNamespace):
		return fmt.Errorf(what+"%w: want one such as /proc/PID/ns/net or /run/netns/NAME", err)
	case errors.Is(err, unix.ESRCH), t.pid != 0 && errors.Is(err, unix.ENOENT):
		return fmt.Errorf(what+"%w: see ps", unix.ESRCH)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf(what+"%w: %s", err, t.whoMay())
	}
	return fmt.Errorf(what+"%w", err)
}

// whoMay says who may attach to t.
func (t *target) whoMay() string {
	if t.netOnly && !capableOutside() {
		return "it takes to enter the user namespace that owns it, too"
	}
	ns := t.user
	if ns == nil && t.net != nil {
		if f, err := ownerOf(t.net); err == nil {
			defer f.Close()
			ns = f
		}
	}
	if ns != nil {
		if uid, err := unix.IoctlGetUint32(int(ns.Fd()), unix.NS_GET_OWNER_UID); err == nil {
			return fmt.Sprintf("only user ID %d, who made it, and root may", uid)
		}
	}
	return "only who made it, and root, may"
}
