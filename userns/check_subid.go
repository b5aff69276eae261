package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
	"golang.org/x/sys/unix"
)

// checkHelpers looks for newuidmap and newgidmap, and for what lets them write
// a map: the set-user-ID bit, or a file capability.
func (m *machine) checkHelpers() Finding {
	f := Finding{Name: "newuidmap and newgidmap", Status: OK}
	if m.uid == 0 {
		f.Detail = "not needed by root"
		return f
	}
	var found []string
	for _, name := range []string{"newuidmap", "newgidmap"} {
		path := m.lookPath(name)
		if path == "" {
			f.Status, f.Detail, f.Fix = Degraded, name+" is not installed", fixUIDMap
			return f
		}
		shown := "/" + strings.TrimPrefix(strings.TrimPrefix(path, m.root), "/")
		if !isPrivileged(path) {
			f.Status, f.Detail, f.Fix = Degraded, shown+" is neither set-user-ID nor has it a file capability", "sudo chmod u+s "+shown
			return f
		}
		if onNoSUID(path) {
			f.Status, f.Detail = Degraded, shown+" is on a file system mounted nosuid"
			f.Fix = "sudo mount -o remount,suid $(stat -c %m " + shown + ")"
			return f
		}
		found = append(found, shown)
	}
	f.Detail = strings.Join(found, ", ")
	return f
}

func (m *machine) lookPath(name string) string {
	for _, dir := range filepath.SplitList(m.path) {
		path := filepath.Join(m.root, dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

func isPrivileged(path string) bool {
	st, err := os.Stat(path)
	if err == nil && st.Mode()&os.ModeSetuid != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

func onNoSUID(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOSUID != 0
}

// checkRanges looks for the caller's subordinate IDs, and for lines that spoil
// the files for everybody.
func (m *machine) checkRanges() Finding {
	f := Finding{Name: featureSubIDs, Status: OK}
	if m.uid == 0 {
		f.Detail = "not needed by root"
		return f
	}
	var counts []string
	for _, name := range []string{"subuid", "subgid"} {
		shown := "/etc/" + name
		ranges, err := m.readRanges(shown)
		if err != nil {
			f.Status, f.Detail, f.Fix = Degraded, err.Error(), "sudoedit "+shown
			return f
		}
		total := 0
		for _, r := range ranges {
			total += r.Length
		}
		if total == 0 {
			f.Status, f.Detail, f.Fix = Degraded, shown+" has no range for "+m.who(), m.fixRanges()
			return f
		}
		counts = append(counts, fmt.Sprintf("%d in %s", total, shown))
	}
	f.Detail = strings.Join(counts, ", ")
	return f
}

func (m *machine) who() string {
	if m.user != "" {
		return m.user
	}
	return "user " + strconv.Itoa(m.uid)
}

// readRanges returns the caller's ranges in a file like /etc/subuid. Unlike
// idtools it names the line that is wrong.
func (m *machine) readRanges(path string) ([]idtools.SubIDRange, error) {
	b, err := os.ReadFile(filepath.Join(m.root, path))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ranges []idtools.SubIDRange
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		owner, r, err := parseRange(line)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", number, path, err)
		}
		if owner == strconv.Itoa(m.uid) || (m.user != "" && owner == m.user) {
			ranges = append(ranges, r)
		}
	}
	return ranges, nil
}

// parseRange reads NAME:START:COUNT (subuid(5)).
func parseRange(line string) (owner string, r idtools.SubIDRange, err error) {
	f := strings.Split(line, ":")
	if len(f) != 3 {
		return "", r, fmt.Errorf("%q is not NAME:START:COUNT", line)
	}
	if r.Start, err = strconv.Atoi(f[1]); err == nil {
		r.Length, err = strconv.Atoi(f[2])
	}
	if err != nil {
		return "", r, fmt.Errorf("%q is not NAME:START:COUNT: %w", line, err)
	}
	return f[0], r, checkRange(r)
}

// fixRanges is the command that gives the caller ranges that nobody has yet.
func (m *machine) fixRanges() string {
	const size = 65536
	start := 100000
	for _, path := range []string{"etc/subuid", "etc/subgid"} {
		b, _ := os.ReadFile(filepath.Join(m.root, path))
		for line := range strings.Lines(string(b)) {
			if _, r, err := parseRange(strings.TrimSpace(line)); err == nil {
				start = max(start, r.Start+r.Length)
			}
		}
	}
	name := m.user
	if name == "" {
		name = "$(id -un)"
	}
	return fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %[1]d-%[2]d %[3]s", start, start+size-1, name)
}
