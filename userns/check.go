package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Status is how well a machine does something.
type Status string

// The statuses of a Finding.
const (
	// OK: all there.
	OK Status = "ok"
	// Degraded: sandboxes work, with less in them.
	Degraded Status = "degraded"
	// Missing: no sandbox without it.
	Missing Status = "missing"
)

// Finding is one line of what a machine allows.
type Finding struct {
	// Name of what was looked at.
	Name   string
	Status Status
	// Detail says what is there, or what does not work without it.
	Detail string
	// Fix is the command that mends it; empty where OK, or where there is none.
	Fix string
}

// Check looks at everything on this machine that this package depends on, or
// that only the host's administrator can change for sandboxes.
func Check() []Finding { return thisMachine("/").check() }

// Settings below /proc/sys.
const (
	sysctlUserNSClone    = "kernel/unprivileged_userns_clone"
	sysctlAppArmorUserNS = "kernel/apparmor_restrict_unprivileged_userns"
	sysctlMaxUserNS      = "user/max_user_namespaces"
	sysctlPingGroups     = "net/ipv4/ping_group_range"
	sysctlPortStart      = "net/ipv4/ip_unprivileged_port_start"
)

// machine is what is checked, and who asks.
type machine struct {
	root   string // of its file system
	uid    int
	user   string
	groups []int
	path   string // $PATH
	// clone makes a process in new namespaces; with capable it also uses a
	// capability there.
	clone func(capable bool) error
}

func thisMachine(root string) *machine {
	groups, _ := os.Getgroups()
	return &machine{
		root: root, uid: os.Geteuid(), user: userName(), groups: append(groups, os.Getegid()),
		path: os.Getenv("PATH"), clone: tryClone,
	}
}

func (m *machine) check() []Finding {
	return []Finding{
		m.checkClone(), m.checkAppArmor(), m.checkMaxUserNS(), m.checkUserNSClone(),
		m.checkHelpers(), m.checkRanges(), m.checkPingGroups(), m.checkPortStart(),
	}
}

// tryClone starts a process in new namespaces that executes nothing: the path
// does not exist, so ENOENT is success.
func tryClone(capable bool) error {
	sys := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if capable {
		sys.Chroot = "/" // takes CAP_SYS_CHROOT
	}
	const nothing = "/proc/self/fd/none"
	_, err := syscall.ForkExec(nothing, []string{nothing}, &syscall.ProcAttr{Sys: sys})
	if err == unix.ENOENT {
		return nil
	}
	return err
}

func (m *machine) checkClone() Finding {
	f := Finding{Name: featureUserNS}
	if err := m.clone(false); err != nil {
		f.Status, f.Detail = Missing, err.Error()
		var u *Unavailable
		if errors.As(explainClone(m.root, err), &u) {
			f.Detail, f.Fix = u.Cause, u.Fix
		}
		return f
	}
	f.Status, f.Detail = OK, "user, network and mount namespaces can be made"
	return f
}

// checkAppArmor looks for both forms of Ubuntu's restriction: clone fails, or
// it succeeds and the process has no capability.
func (m *machine) checkAppArmor() Finding {
	f := Finding{Name: featureAppArmor}
	v, ok := readSysctl(m.root, sysctlAppArmorUserNS)
	if !ok || v == "0" {
		f.Status, f.Detail = OK, "does not restrict user namespaces"
		return f
	}
	if m.clone(false) != nil {
		f.Status, f.Detail, f.Fix = Missing, "keeps ordinary users from making user namespaces", fixAppArmor
		return f
	}
	if m.clone(true) != nil {
		f.Status, f.Detail, f.Fix = Missing, "denies all capabilities in new user namespaces (profile "+deniedProfile+")", fixAppArmor
		return f
	}
	f.Status, f.Detail = OK, "restricts user namespaces, but not those of sbxnet"
	return f
}

func (m *machine) checkMaxUserNS() Finding {
	f := Finding{Name: "max_user_namespaces", Status: OK}
	v, ok := readSysctl(m.root, sysctlMaxUserNS)
	switch {
	case !ok:
		f.Detail = "no limit is set"
	case v == "0":
		f.Status, f.Detail, f.Fix = Missing, "none are allowed", fixMaxUserNS
	default:
		f.Detail = v
	}
	return f
}

func (m *machine) checkUserNSClone() Finding {
	f := Finding{Name: "unprivileged_userns_clone", Status: OK}
	v, ok := readSysctl(m.root, sysctlUserNSClone)
	switch {
	case !ok:
		f.Detail = "not a setting of this kernel"
	case v == "0" && m.uid != 0:
		f.Status, f.Detail, f.Fix = Missing, "user namespaces are switched off for ordinary users", fixUserNS
	default:
		f.Detail = v
	}
	return f
}

func (m *machine) checkPingGroups() Finding {
	f := Finding{Name: "ping_group_range", Status: Degraded, Fix: fixPingGroups}
	v, _ := readSysctl(m.root, sysctlPingGroups)
	var low, high int
	if _, err := fmt.Sscan(v, &low, &high); err != nil {
		f.Detail = "unreadable: ping from a sandbox to the outside gets no answer"
		return f
	}
	for _, g := range m.groups {
		if low <= g && g <= high {
			return Finding{Name: f.Name, Status: OK, Detail: fmt.Sprintf("%d to %d", low, high)}
		}
	}
	f.Detail = fmt.Sprintf("%d to %d is none of your groups: ping from a sandbox to the outside gets no answer", low, high)
	return f
}

func (m *machine) checkPortStart() Finding {
	f := Finding{Name: "ip_unprivileged_port_start", Status: OK}
	v, _ := readSysctl(m.root, sysctlPortStart)
	start, err := strconv.Atoi(v)
	if err != nil {
		start = 1024 // what it was before it was a setting
	}
	switch {
	case m.uid == 0 || start <= 1:
		f.Detail = "every port can be published"
	case start <= 80:
		f.Detail = fmt.Sprintf("ports from %d on can be published", start)
	default:
		f.Status, f.Detail = Degraded, fmt.Sprintf("ports below %d cannot be published", start)
		f.Fix = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"
	}
	return f
}

// readSysctl reads a file below proc/sys of root; false if there is none.
func readSysctl(root, key string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(root, "proc/sys", key))
	return strings.TrimSpace(string(b)), err == nil
}
