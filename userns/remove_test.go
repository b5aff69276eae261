package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// removable is a directory to remove, with a file outside that must stay and
// ways that lead to it.
func removable(t *testing.T) (dir, outside string) {
	t.Helper()
	top := t.TempDir()
	dir, outside = filepath.Join(top, "state"), filepath.Join(top, "outside")
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "mounted"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "a", "b", "file"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	must(t, os.Mkdir(outside, 0o700))
	must(t, os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "a", "link")))
	return dir, outside
}

// removing is a sandbox with dir to remove, whose command mounts the outside
// where it would be hit by who does not look.
func removing(own bool, dir, outside string) Config {
	cfg := unlinked()
	cfg.PIDNamespace = own
	cfg.Remove = []string{dir}
	cfg.Command = []string{"sh", "-c", fmt.Sprintf(
		"mount --bind %[2]s %[1]s/mounted && mount --bind %[2]s %[1]s && touch %[2]s/mounts; sleep 1000", dir, outside)}
	return cfg
}

// mounted waits until the command has made its mounts.
func mounted(t *testing.T, outside string) {
	t.Helper()
	until(t, "the command mounts", func() bool { return exists(filepath.Join(outside, "mounts")) })
}

func TestFirstProcessRemovesWhatADeadSbxnetLeft(t *testing.T) {
	for _, own := range []bool{false, true} {
		dir, outside := removable(t)
		p := startParent(t, removing(own, dir, outside), nil)
		mounted(t, outside)
		must(t, p.Process.Kill())
		p.Wait()
		gone(t, p.init)
		if exists(dir) {
			t.Errorf("pid-namespace=%v: %s is still there", own, dir)
		}
		if !exists(filepath.Join(outside, "precious")) {
			t.Errorf("pid-namespace=%v: a file outside was removed", own)
		}
	}
}

func TestSandboxThatIsClosedLeavesRemovalToSbxnet(t *testing.T) {
	dir, outside := removable(t)
	cfg := removing(false, dir, outside)
	sb := started(t, cfg)
	if err := sb.Exec(); err != nil {
		t.Fatal(err)
	}
	mounted(t, outside)
	must(t, sb.Close())
	if !exists(filepath.Join(dir, "file")) {
		t.Error("removed")
	}
}

func TestDirectoryThatIsInUseAnewStays(t *testing.T) {
	dir, outside := removable(t)
	p := startParent(t, removing(false, dir, outside), nil)
	mounted(t, outside)
	lock, err := os.Open(filepath.Join(dir, "lock"))
	must(t, err)
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	must(t, p.Process.Kill())
	p.Wait()
	gone(t, p.init)
	if !exists(filepath.Join(dir, "file")) {
		t.Error("removed under its new user")
	}
}

func TestDirectoryThatWasReplacedStays(t *testing.T) {
	dir, outside := removable(t)
	p := startParent(t, removing(false, dir, outside), nil)
	mounted(t, outside)
	old := dir + ".old"
	must(t, os.Rename(dir, old))
	must(t, os.Mkdir(dir, 0o700))
	must(t, p.Process.Kill())
	p.Wait()
	gone(t, p.init)
	if !exists(dir) {
		t.Error("what came in its place was removed")
	}
	if left, err := os.ReadDir(old); err != nil || len(left) > 0 {
		t.Errorf("left in the directory that was moved: %v, %v", left, err)
	}
}

func TestOnlyWhatIsOursIsRemoved(t *testing.T) {
	for _, p := range []string{"", "relative", "/", "/tmp/.."} {
		cfg := unlinked()
		cfg.Remove = []string{p}
		if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q: %v", p, err)
		}
	}
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	theirs := "/etc" // root's, and maybe ours
	if os.Geteuid() == 0 {
		theirs = filepath.Join(t.TempDir(), "theirs")
		must(t, os.Mkdir(theirs, 0o700))
		must(t, os.Chown(theirs, 12345, 12345))
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(t.TempDir(), link))
	list := openRemovals([]string{theirs, "/none/there", link}, note)
	if len(list) != 1 || list[0].isDir || len(notes) != 2 {
		t.Errorf("%+v, %q", list, notes)
	}
	start := time.Now()
	removeAll(list)
	if exists(link) || time.Since(start) > time.Second {
		t.Error("the link is there, or it took long")
	}
}
