package userns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// UserMap says which user and group IDs exist in the sandbox.
type UserMap string

// The ID maps. In each of them ID 0 is the caller.
const (
	// MapAuto is MapFull where the machine allows it, else MapSingle.
	MapAuto UserMap = "auto"
	// MapFull adds the caller's ranges of /etc/subuid and /etc/subgid; for root
	// it is every ID that root itself has.
	MapFull UserMap = "full"
	// MapSingle is ID 0 only.
	MapSingle UserMap = "single"
)

// ParseUserMap reads the value of --user-map.
func ParseUserMap(s string) (UserMap, error) {
	switch m := UserMap(s); m {
	case MapAuto, MapFull, MapSingle:
		return m, nil
	}
	return "", fmt.Errorf("unknown user map %q: use auto, full or single", s)
}

// Mode says what network the sandbox has.
type Mode string

// The modes of --network.
const (
	// NetworkSandbox is a network namespace with a link to our stack.
	NetworkSandbox Mode = "sandbox"
	// NetworkNone is a network namespace with only loopback, which is up.
	NetworkNone Mode = "none"
	// NetworkHost is the caller's own network.
	NetworkHost Mode = "host"
)

// ParseMode reads the value of --network.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case NetworkSandbox, NetworkNone, NetworkHost:
		return m, nil
	}
	return "", fmt.Errorf("unknown network mode %q: use sandbox, none or host", s)
}

// Config describes a sandbox. The zero value of a field is its default.
type Config struct {
	// Command and its arguments; empty means $SHELL of Env, else /bin/sh.
	Command []string
	// Env is the command's environment; nil means the caller's.
	Env []string
	// Dir is the command's working directory; empty means the caller's.
	Dir string
	// UserMap; empty means MapAuto.
	UserMap UserMap
	// SubIDs are the caller's subordinate IDs; nil means the ranges of /etc/subuid
	// and /etc/subgid. Root's are not asked for. With MapFull, its error is Start's.
	SubIDs func() (uids, gids []idtools.SubIDRange, err error) `json:"-"`
	// Network; empty means NetworkSandbox.
	Network Mode
	// Hostname inside; empty leaves the host's. At most 64 bytes.
	Hostname string
	// PIDNamespace gives the sandbox process IDs and a /proc of its own.
	PIDNamespace bool
	// CgroupNamespace, UTSNamespace and IPCNamespace give it those namespaces;
	// a Hostname implies the second.
	CgroupNamespace, UTSNamespace, IPCNamespace bool
	// Cgroup2 mounts a cgroup2 of the sandbox's cgroup namespace on
	// /sys/fs/cgroup, in place of the caller's, unless the network is detached.
	Cgroup2 bool
	// Propagation of mounts; empty means PropagationSlave.
	Propagation Propagation
	// CopyUp are directories that become writable: a tmpfs with links to what
	// is in them. With /etc among them, ResolvConf and Hosts are files in it.
	CopyUp []string
	// DetachNetNS, if not empty, leaves the command in the caller's network. The
	// one described here is mounted on this file, inside the sandbox only, for
	// those who enter it; ResolvConf and Hosts have no effect.
	DetachNetNS string
	// Listeners become the command's descriptors from 3 on, for which LISTEN_PID
	// in its environment is set; the rest of that is in Env (sd_listen_fds(3)).
	// They stay the caller's.
	Listeners []*os.File
	// NetRaw leaves CAP_NET_RAW to the command. Without it set-user-ID
	// bits and file capabilities have no effect inside either.
	NetRaw bool
	// Link is opened inside, in NetworkSandbox mode.
	Link tapdev.Options
	// Addresses of the link's interface, each with the length of its subnet.
	Addresses []netip.Prefix
	// Gateways are next hops of default routes, at most one of each family.
	Gateways []netip.Addr
	// ResolvConf and Hosts are the contents of /etc/resolv.conf and /etc/hosts
	// inside; empty leaves the host's in place.
	ResolvConf, Hosts string
	// Remove lists absolute paths, such as a state directory, that the
	// sandbox's first process removes when this process has died without
	// closing the sandbox: directories with all that is in them, never what a
	// symbolic link leads to or what is mounted there, and only what is there at
	// Start, is the caller's, and has not been replaced since or, if it is a file,
	// written to. A directory whose file "lock" somebody holds by then, by
	// flock(2), is in use anew and stays.
	Remove []string
	// RemoveIfEmpty lists directories that go after these, if nothing is in them
	// then. They are locked by flock(2) from before the first removal on, each of
	// them itself, as those do who make or sweep something there; one whose lock is
	// not to be had within two seconds stays.
	RemoveIfEmpty []string
	// Log receives what went less well than asked; nil discards it.
	Log *slog.Logger

	// ownSubIDs: SubIDs are not the machine's usual ones.
	ownSubIDs bool
	// etc is where resolv.conf and hosts are; tests move it.
	etc string
}

// withDefaults fills in what was left empty and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Env == nil {
		c.Env = os.Environ()
	}
	if len(c.Command) == 0 {
		c.Command = []string{defaultShell(c.Env)}
	}
	if c.UserMap == "" {
		c.UserMap = MapAuto
	}
	if c.SubIDs == nil {
		c.SubIDs = staticIDs
	} else {
		c.ownSubIDs = true
	}
	if c.Network == "" {
		c.Network = NetworkSandbox
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.etc == "" {
		c.etc = "/etc"
	}
	return c, c.check()
}

func (c *Config) check() error {
	if _, err := ParseUserMap(string(c.UserMap)); err != nil {
		return err
	}
	if _, err := ParseMode(string(c.Network)); err != nil {
		return err
	}
	if len(c.Hostname) > 64 || strings.ContainsAny(c.Hostname, "\x00/\n") {
		return fmt.Errorf("hostname %q: at most 64 bytes, without slash, newline or NUL", c.Hostname)
	}
	if c.Network == NetworkSandbox && c.Link.Name == "" {
		return fmt.Errorf("the link has no name")
	}
	if err := c.checkMounts(); err != nil {
		return err
	}
	if err := checkRemove(c.Remove, c.RemoveIfEmpty); err != nil {
		return err
	}
	if c.Dir != "" {
		st, err := os.Stat(c.Dir)
		if err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
		if !st.IsDir() {
			return fmt.Errorf("working directory %s: not a directory", c.Dir)
		}
		if err := unix.Access(c.Dir, unix.X_OK); err != nil {
			return fmt.Errorf("working directory %s: %w", c.Dir, err)
		}
	}
	return nil
}

// checkMounts checks what is mounted or mounted on.
func (c *Config) checkMounts() error {
	if c.Propagation != "" {
		if _, err := ParsePropagation(string(c.Propagation)); err != nil {
			return err
		}
	}
	if c.DetachNetNS != "" {
		if c.Network == NetworkHost {
			return fmt.Errorf("no network namespace to detach with --network host")
		}
		if err := checkDetached(c.DetachNetNS); err != nil {
			return err
		}
	}
	return checkCopyUp(c.CopyUp)
}

// defaultShell is $SHELL of env, else /bin/sh.
func defaultShell(env []string) string {
	if shell := variable(env, "SHELL"); shell != "" {
		return shell
	}
	return "/bin/sh"
}

// variable is the value of an environment variable, empty without one. exec lets
// the last of equals win.
func variable(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
