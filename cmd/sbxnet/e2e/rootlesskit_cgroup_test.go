package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup2 is where this machine has one mounted; empty without.
func cgroup2() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}

// delegated makes a cgroup that is the test's user's, as a service manager does
// for a service with Delegate=yes.
func delegated(t *testing.T, r *rootless) string {
	t.Helper()
	root := cgroup2()
	if root == "" {
		unavailable(t, "this machine has no cgroup2")
	}
	if os.Getuid() != 0 {
		t.Skip("only root can make a cgroup and give it away; the gate runs this as root, too")
	}
	dir, err := os.MkdirTemp(root, "sbxnet-test")
	if err != nil {
		unavailable(t, "no cgroup can be made and given away: %v", err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // its last process is about to be reaped
			_ = os.Remove(dir + "/evacuated")
			err := os.Remove(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		r.own(filepath.Join(dir, f))
	}
	return dir
}

func TestCompatRootlesskitEvacuatesItsCgroup(t *testing.T) {
	for _, network := range []string{"--net=slirp4netns", "--net=host"} {
		t.Run(network, func(t *testing.T) {
			r := newRootless(t)
			group := delegated(t, r)
			dir, err := os.Open(group)
			r.must(err)
			defer dir.Close()
			flags := []string{"--cgroupns", "--pidns", "--evacuate-cgroup2=evacuated", network}
			if network != "--net=host" {
				flags = append(flags, "--disable-host-loopback")
			}
			cmd := r.command("rootlesskit", append(flags, "sh", "-ec",
				`cat /proc/self/cgroup | grep ^0:; cat /sys/fs/cgroup/cgroup.procs; wc -l </sys/fs/cgroup/evacuated/cgroup.procs; mkdir /sys/fs/cgroup/mine; rmdir /sys/fs/cgroup/mine`)...)
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
			res := startCommand(t, cmd).wait(patience)
			lines := strings.Split(strings.TrimSpace(res.stdout), "\n")
			// rootlesskit itself, the sandbox's first process and the shell, at least.
			var n int
			if len(lines) == 2 {
				fmt.Sscan(lines[1], &n)
			}
			if res.status != 0 || lines[0] != "0::/evacuated" || n < 3 {
				t.Errorf("status %d: %q, %s", res.status, lines, res.stderr)
			}
		})
	}
}

// The cgroup of those who run this is not theirs to divide, unless they are root,
// which would move what is not the test's.
func TestCompatRootlesskitCannotEvacuateWhatIsNotItsOwn(t *testing.T) {
	if cgroup2() == "" {
		unavailable(t, "this machine has no cgroup2")
	}
	r := newRootless(t)
	own, err := os.ReadFile("/proc/self/cgroup")
	r.must(err)
	_, group, _ := strings.Cut("\n"+string(own), "\n0::")
	group, _, _ = strings.Cut(group, "\n")
	var st unix.Stat_t
	if unix.Stat(filepath.Join(cgroup2(), group), &st) != nil || int(st.Uid) == r.user.uid {
		unavailable(t, "this process's cgroup is its user's, as in a login session")
	}
	res := r.start("rootlesskit", "--cgroupns", "--pidns", "--evacuate-cgroup2=evacuated", "true").wait(patience)
	if res.status != 1 || !strings.Contains(res.stderr, "[rootlesskit:parent] error: mkdir "+cgroup2()) || !strings.Contains(res.stderr, "/evacuated: permission denied") {
		t.Errorf("status %d: %s", res.status, res.stderr)
	}
}

func TestCompatRootlesskitAsksForSubordinateIDs(t *testing.T) {
	r := newRootless(t)
	asker := r.dir + "/getsubids"
	script := "#!/bin/sh\nf=/etc/subuid; [ $1 = -g ] && { f=/etc/subgid; shift; }\n" +
		`IFS=: read u start n <<E` + "\n$(grep ^$1: $f)\nE\n" + `[ "$n" ] || { echo "Error fetching ranges" >&2; exit 1; }` + "\n" + `echo "0: $u $start 7"` + "\n"
	r.must(os.WriteFile(asker, []byte(script), 0o755))
	for _, source := range []string{"dynamic", "auto"} {
		cmd := r.command("rootlesskit", "--subid-source="+source, "cat", "/proc/self/uid_map", "/proc/self/gid_map")
		cmd.Env = append(cmd.Env, "GETSUBIDS="+asker)
		res := startCommand(t, cmd).wait(patience)
		f := strings.Fields(res.stdout)
		if res.status != 0 || len(f) != 12 || f[5] != "7" || f[11] != "7" {
			t.Errorf("%s: status %d, %q, %s", source, res.status, f, res.stderr)
		}
	}
	cmd := r.command("rootlesskit", "--subid-source=dynamic", "echo", "started")
	cmd.Env = append(cmd.Env, "GETSUBIDS=/nonexistent")
	res := startCommand(t, cmd).wait(patience)
	if want := "[rootlesskit:parent] error: failed to setup UID/GID map: failed to compute uid/gid map: subid-source:dynamic: "; res.status != 1 || !strings.HasPrefix(res.stderr, want) || res.stdout != "" {
		t.Errorf("status %d: %q, %s", res.status, res.stdout, res.stderr)
	}
}
