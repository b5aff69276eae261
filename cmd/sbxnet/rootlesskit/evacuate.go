package rootlesskit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// evacuate moves all processes of our cgroup, which is the sandbox's too, into one
// of that name within it, and enables in the one that they have left what
// controllers there are: a cgroup2 with processes of its own has none to give
// (cgroups(7), "no internal processes"), and the command is to manage containers
// below it. It does so outside of the sandbox's PID namespace, where all have
// numbers, and after the sandbox's cgroup namespace was made, which begins at the
// cgroup that they leave.
func evacuate(name string, log *slog.Logger) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	mount, group := cgroup2Mount(string(mounts)), cgroup2Of(string(groups))
	switch {
	case mount == "":
		log.Warn("cgroup2 is not mounted. cgroup2 evacuation is discarded.")
		return nil
	case group == "":
		log.Warn("process is not running with cgroup2. cgroup2 evacuation is discarded.")
		return nil
	}
	return evacuateGroup(filepath.Join(mount, group), name, log)
}

// evacuateGroup moves the processes of the cgroup at path.
func evacuateGroup(path, name string, log *slog.Logger) error {
	inner := filepath.Join(path, name)
	if err := os.MkdirAll(inner, 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(pids)) {
		if pid == "0" { // of a PID namespace that we do not see
			continue
		}
		if err := writeCgroup(filepath.Join(inner, "cgroup.procs"), pid); err != nil {
			log.Warn(fmt.Sprintf("failed to move process %s to cgroup %q: %v", pid, inner, err))
		}
	}
	controllers, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := writeCgroup(filepath.Join(path, "cgroup.subtree_control"), "+"+c); err != nil {
			log.Warn(fmt.Sprintf("failed to enable controller %q: %v", c, err))
		}
	}
	return nil
}

// writeCgroup writes to a file of the kernel's, which is there or cannot be.
func writeCgroup(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// checkEvacuation refuses a name that is none of a single cgroup.
func checkEvacuation(name string) error {
	if strings.Contains(name, "/") || !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("unexpected evacuation group name %q: must not contain \"/\"", name)
	}
	return nil
}

// cgroup2Mount is the first place where a cgroup2 is mounted, by the lines of
// proc_pid_mountinfo(5); empty without one.
func cgroup2Mount(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		if f := strings.Fields(before); found && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return unescape(f[4])
		}
	}
	return ""
}

// unescape reads the octal escapes of a mount point.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// cgroup2Of is the process's cgroup, by the lines of proc_pid_cgroup(5); empty
// where it is in none.
func cgroup2Of(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		if group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return group
		}
	}
	return ""
}
