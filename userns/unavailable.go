package userns

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unavailable says that the machine does not allow something, why, and how to
// change that. Its text is one line.
type Unavailable struct {
	// Feature is what sbxnet wanted, such as "user namespaces".
	Feature string
	// Cause is why it cannot have it.
	Cause string
	// Fix is the command that mends it; empty where there is none.
	Fix string
	// Err is the kernel's or a helper's answer, or nil.
	Err error
}

func (e *Unavailable) Error() string {
	s := e.Feature + ": " + e.Cause
	if e.Fix != "" {
		s += "; to mend it: " + e.Fix
	}
	return s
}

// Unwrap returns the kernel's or a helper's answer.
func (e *Unavailable) Unwrap() error { return e.Err }

const (
	featureUserNS   = "user namespaces"
	featureAppArmor = "AppArmor"
	featureSubIDs   = "subordinate IDs"
)

const (
	fixAppArmor   = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	fixUserNS     = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
	fixMaxUserNS  = "sudo sysctl -w user.max_user_namespaces=15000"
	fixUIDMap     = "sudo apt install uidmap (on Fedora: sudo dnf install shadow-utils)"
	fixPingGroups = `sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"`
)

// explainClone turns the error of starting a process in new namespaces into
// its cause, by the settings of the machine below root.
func explainClone(root string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("start the sandbox's first process: %w", err)
	}
	refused := func(feature, cause, fix string) error {
		return &Unavailable{feature, cause, fix, errno}
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		if v, ok := readSysctl(root, sysctlUserNSClone); ok && v == "0" {
			return refused(featureUserNS, "switched off for ordinary users (kernel.unprivileged_userns_clone=0)", fixUserNS)
		}
		if v, ok := readSysctl(root, sysctlAppArmorUserNS); ok && v != "0" {
			return refused(featureAppArmor, "keeps ordinary users from making user namespaces", fixAppArmor)
		}
		return refused(featureUserNS, "refused ("+errno.Error()+"), as by the seccomp filter of a container, a security module, or in a chroot",
			"in a container: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined")
	case unix.ENOSPC, unix.EUSERS:
		for _, kind := range []string{"user", "net", "mnt", "pid", "uts"} {
			key := "user/max_" + kind + "_namespaces"
			if v, ok := readSysctl(root, key); ok && v == "0" {
				dotted := strings.ReplaceAll(key, "/", ".")
				return refused(featureUserNS, "none are allowed ("+dotted+"=0)", "sudo sysctl -w "+dotted+"=15000")
			}
		}
		return refused(featureUserNS, "the limit on their number or on their nesting (32) is reached", fixMaxUserNS)
	case unix.EINVAL, unix.ENOSYS:
		return refused(featureUserNS, "this kernel was built without user or network namespaces", "")
	case unix.EAGAIN:
		return refused("a process", "the limit on your processes is reached", "ulimit -u")
	}
	return fmt.Errorf("start the sandbox's first process: %w", err)
}

// deniedProfile is where Ubuntu's AppArmor puts a process that has made a user
// namespace without permission; it denies every capability there.
const deniedProfile = "unprivileged_userns"

// explainSetup turns init's report of a failure into an error.
func explainSetup(root string, m message) error {
	if m.truncated {
		return &setupError{"descriptors that came from the sandbox were lost: this process has too many files open, so raise its limit (ulimit -n)", unix.EMFILE}
	}
	if m.Op != opFailed {
		return fmt.Errorf("the sandbox's first process said %q out of turn", m.Op)
	}
	errno := syscall.Errno(m.Errno)
	if strings.HasPrefix(m.Label, deniedProfile) {
		return &Unavailable{featureAppArmor, "denies all capabilities in new user namespaces (" + m.Text + ")", fixAppArmor, errno}
	}
	if errno == 0 {
		return errors.New(m.Text)
	}
	return &setupError{m.Text, errno}
}

// setupError is a failure inside the sandbox.
type setupError struct {
	text  string
	errno syscall.Errno
}

func (e *setupError) Error() string { return e.text }
func (e *setupError) Unwrap() error { return e.errno }

// explainFullMap says why there is no map of more than one ID, by the settings
// of the machine below root where err, from the attempt, does not tell.
func explainFullMap(root string, err error) *Unavailable {
	m := thisMachine(root)
	for _, f := range []Finding{m.checkHelpers(), m.checkRanges()} {
		if f.Status != OK {
			return &Unavailable{featureSubIDs, f.Detail, f.Fix, err}
		}
	}
	if nnp, e := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); e == nil && nnp == 1 {
		return &Unavailable{featureSubIDs, "newuidmap has no effect here, because no_new_privs is set, as in a container with no-new-privileges", "", err}
	}
	return &Unavailable{featureSubIDs, err.Error(), "sbxnet doctor", err}
}

// explainFullMap is the same of a sandbox. Where subordinate IDs are the caller's
// to find, and have to be found, the error tells.
func (c *Config) explainFullMap(err error) error {
	if c.ownSubIDs && c.UserMap == MapFull {
		return err
	}
	return explainFullMap("/", err)
}
