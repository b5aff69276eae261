package userns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Propagation says how mounts spread between the host and the sandbox
// (mount_namespaces(7)). None of them lets one of the sandbox's reach the host:
// a mount namespace that belongs to another user namespace is a slave at best.
type Propagation string

// The kinds of propagation. With the "r" they hold for everything mounted when
// the command starts, without it for the root mount only; whatever is not named
// stays a slave of the host's.
const (
	// PropagationSlave shows the sandbox what the host mounts and unmounts.
	PropagationSlave Propagation = "rslave"
	// PropagationPrivate keeps the sandbox's mounts as they were at its start.
	PropagationPrivate Propagation = "rprivate"
	// PropagationShared is PropagationSlave, and what the command mounts is seen
	// in mount namespaces that it makes.
	PropagationShared Propagation = "rshared"
)

var propagationFlags = map[Propagation]uintptr{
	PropagationSlave:   unix.MS_SLAVE | unix.MS_REC,
	PropagationPrivate: unix.MS_PRIVATE | unix.MS_REC,
	PropagationShared:  unix.MS_SHARED | unix.MS_REC,
	"slave":            unix.MS_SLAVE,
	"private":          unix.MS_PRIVATE,
	"shared":           unix.MS_SHARED,
}

// ParsePropagation reads the value of --propagation.
func ParsePropagation(s string) (Propagation, error) {
	if _, ok := propagationFlags[Propagation(s)]; !ok {
		return "", fmt.Errorf("unknown propagation %q: use rslave, rprivate or rshared, or one of them without the r", s)
	}
	return Propagation(s), nil
}

// set gives the mounts of this namespace their final propagation. While the
// sandbox's own are made everything is a slave, which is therefore never set
// again.
func (p Propagation) set() error {
	if p == "" || p == PropagationSlave || p == "slave" {
		return nil
	}
	if err := unix.Mount("", "/", "", propagationFlags[p], ""); err != nil {
		return fmt.Errorf("mount propagation %s: %w", p, err)
	}
	return nil
}
