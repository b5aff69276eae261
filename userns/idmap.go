package userns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
	"golang.org/x/sys/unix"
)

// extent is one line of an ID map: size IDs from inside on, which are those
// from outside on in the parent namespace (user_namespaces(7)).
type extent struct {
	inside, outside, size uint32
}

// maxExtents is the kernel's limit since Linux 4.15 (UID_GID_MAP_MAX_EXTENTS).
const maxExtents = 340

// idMaps is what the sandbox's user namespace is to map.
type idMaps struct {
	uid, gid []extent
	// helpers: the map takes newuidmap and newgidmap.
	helpers bool
}

// singleMaps maps the caller to ID 0.
func singleMaps() idMaps {
	return idMaps{
		uid: []extent{{0, uint32(os.Geteuid()), 1}},
		gid: []extent{{0, uint32(os.Getegid()), 1}},
	}
}

// fullMaps maps the caller to ID 0, and what else it may use to the IDs after
// that: all IDs of its own namespace for root, else its subordinate ranges.
func fullMaps() (idMaps, error) { return fullMapsOf(staticIDs) }

// staticIDs are the caller's ranges of /etc/subuid and /etc/subgid.
func staticIDs() (uids, gids []idtools.SubIDRange, err error) {
	return idtools.GetSubIDRanges(os.Geteuid(), userName())
}

// fullMapsOf is fullMaps with another source of subordinate ranges.
func fullMapsOf(ranges func() (uids, gids []idtools.SubIDRange, err error)) (idMaps, error) {
	if os.Geteuid() == 0 {
		return identityMaps("/proc/self")
	}
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(helper); err != nil {
			return idMaps{}, fmt.Errorf("%s is not installed", helper)
		}
	}
	uids, gids, err := ranges()
	if err != nil {
		return idMaps{}, err
	}
	m := idMaps{helpers: true}
	if m.uid, err = appendRanges(singleMaps().uid, uids); err != nil {
		return idMaps{}, fmt.Errorf("subordinate user IDs: %w", err)
	}
	if m.gid, err = appendRanges(singleMaps().gid, gids); err != nil {
		return idMaps{}, fmt.Errorf("subordinate group IDs: %w", err)
	}
	return m, nil
}

// userName is the caller's name, or empty where it has none.
func userName() string {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return ""
	}
	return u.Username
}

// appendRanges maps ranges one after the other behind the IDs of m.
func appendRanges(m []extent, ranges []idtools.SubIDRange) ([]extent, error) {
	next := uint64(0)
	for _, e := range m {
		next = max(next, uint64(e.inside)+uint64(e.size))
	}
	for _, r := range ranges {
		if err := checkRange(r); err != nil {
			return nil, err
		}
		for _, e := range m {
			if uint64(r.Start) < uint64(e.outside)+uint64(e.size) && uint64(e.outside) < uint64(r.Start)+uint64(r.Length) {
				return nil, fmt.Errorf("range %d:%d overlaps ID %d, which is mapped already", r.Start, r.Length, e.outside)
			}
		}
		if next+uint64(r.Length) > maxID || len(m) == maxExtents {
			break // what is mapped so far is all that fits
		}
		m = append(m, extent{uint32(next), uint32(r.Start), uint32(r.Length)})
		next += uint64(r.Length)
	}
	return m, nil
}

// maxID bounds IDs from above: 2^32-1 stands for "no ID".
const maxID = 1<<32 - 1

func checkRange(r idtools.SubIDRange) error {
	if r.Start < 1 || r.Length < 1 || uint64(r.Start)+uint64(r.Length) > maxID {
		return fmt.Errorf("range %d:%d is not one of IDs from 1 to %d", r.Start, r.Length, uint32(maxID-1))
	}
	return nil
}

// identityMaps maps every ID of the namespace of proc, such as /proc/self, to
// itself.
func identityMaps(proc string) (idMaps, error) {
	var m idMaps
	var err error
	if m.uid, err = readMap(proc + "/uid_map"); err != nil {
		return idMaps{}, err
	}
	if m.gid, err = readMap(proc + "/gid_map"); err != nil {
		return idMaps{}, err
	}
	for _, list := range [][]extent{m.uid, m.gid} {
		for i := range list {
			list[i].outside = list[i].inside
		}
	}
	return m, nil
}

// readMap reads a uid_map or gid_map.
func readMap(path string) ([]extent, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var m []extent
	for line := range strings.Lines(string(b)) {
		var e extent
		if _, err := fmt.Sscan(line, &e.inside, &e.outside, &e.size); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, strings.TrimSpace(line), err)
		}
		m = append(m, e)
	}
	if len(m) == 0 {
		return nil, fmt.Errorf("%s: nothing is mapped", path)
	}
	return m, nil
}

// write installs m for the process pid, which waits for it.
func (m idMaps) write(pid int) error {
	if m.helpers {
		return m.writeByHelpers(pid)
	}
	proc := "/proc/" + strconv.Itoa(pid)
	if err := writeMap(proc+"/uid_map", m.uid); err != nil {
		return err
	}
	// Who has no CAP_SETGID in the parent namespace must give up setgroups(2)
	// first, lest a process drop a group that denies it something.
	err := os.ErrPermission
	if os.Geteuid() == 0 {
		err = writeMap(proc+"/gid_map", m.gid)
	}
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := os.WriteFile(proc+"/setgroups", []byte("deny"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return writeMap(proc+"/gid_map", m.gid)
}

// writeMap writes a map with the one write(2) that the kernel takes.
func writeMap(path string, m []extent) error {
	var b bytes.Buffer
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.inside, e.outside, e.size)
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, b.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeByHelpers runs newuidmap and newgidmap at the same time; each takes some
// milliseconds.
func (m idMaps) writeByHelpers(pid int) error {
	done := make(chan error, 1)
	go func() { done <- runHelper("newgidmap", pid, m.gid) }()
	err := runHelper("newuidmap", pid, m.uid)
	return errors.Join(err, <-done)
}

// helperError is a failed newuidmap or newgidmap.
type helperError struct {
	helper string
	said   string
	err    error
}

func (e *helperError) Error() string {
	if e.said != "" {
		return e.helper + ": " + e.said
	}
	return e.helper + ": " + e.err.Error()
}

func (e *helperError) Unwrap() error { return e.err }

func runHelper(name string, pid int, m []extent) error {
	args := []string{strconv.Itoa(pid)}
	for _, e := range m {
		for _, n := range []uint32{e.inside, e.outside, e.size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		said := strings.Join(strings.Fields(out.String()), " ")
		return &helperError{name, strings.TrimPrefix(said, name+": "), err}
	}
	return nil
}
