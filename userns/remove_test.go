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

// killed starts a sandbox, kills its sbxnet, and waits for its first process.
func killed(t *testing.T, cfg Config, meanwhile func()) {
	t.Helper()
	p := startParent(t, cfg, nil)
	meanwhile()
	must(t, p.Process.Kill())
	p.Wait()
	gone(t, p.init)
}

func TestOuterDirectoryGoesWithTheLastInIt(t *testing.T) {
	for _, own := range []bool{false, true} {
		outer := filepath.Join(t.TempDir(), "outer")
		first, second := filepath.Join(outer, "first"), filepath.Join(outer, "second")
		must(t, os.MkdirAll(first, 0o700))
		must(t, os.Mkdir(second, 0o700))
		cfg := unlinked()
		cfg.PIDNamespace, cfg.Command = own, []string{"sleep", "1000"}
		cfg.Remove, cfg.RemoveIfEmpty = []string{first}, []string{outer}
		killed(t, cfg, func() {})
		if exists(first) || !exists(second) {
			t.Errorf("pid-namespace=%v: first: %v, second: %v", own, exists(first), exists(second))
		}
		cfg.Remove = nil // alone it is removed as well
		killed(t, cfg, func() { must(t, os.Remove(second)) })
		if exists(outer) {
			t.Errorf("pid-namespace=%v: the empty directory is still there", own)
		}
	}
}

// Who holds the directory's lock is about to make something in it.
func TestEmptyDirectoryThatIsLockedStays(t *testing.T) {
	outer := filepath.Join(t.TempDir(), "outer")
	inner := filepath.Join(outer, "inner")
	must(t, os.MkdirAll(inner, 0o700))
	f, err := os.Open(outer)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	cfg := unlinked()
	cfg.Command = []string{"sleep", "1000"}
	cfg.Remove, cfg.RemoveIfEmpty = []string{inner}, []string{outer}
	killed(t, cfg, func() {})
	if exists(inner) || !exists(outer) {
		t.Errorf("inner: %v, outer: %v", exists(inner), exists(outer))
	}
}

func TestEmptyDirectoryThatWasReplacedStays(t *testing.T) {
	outer := filepath.Join(t.TempDir(), "outer")
	must(t, os.Mkdir(outer, 0o700))
	cfg := unlinked()
	cfg.Command = []string{"sleep", "1000"}
	cfg.RemoveIfEmpty = []string{outer}
	killed(t, cfg, func() {
		must(t, os.Rename(outer, outer+".old"))
		must(t, os.Mkdir(outer, 0o700))
	})
	if !exists(outer) || !exists(outer+".old") {
		t.Error("removed")
	}
}

func TestOnlyWhatIsOursIsRemoved(t *testing.T) {
	for _, p := range []string{"", "relative", "/", "/tmp/.."} {
		cfg := unlinked()
		cfg.Remove = []string{p}
		if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q: %v", p, err)
		}
		cfg.Remove, cfg.RemoveIfEmpty = nil, []string{p}
		if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q if empty: %v", p, err)
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
	var list removals
	list.open([]string{theirs, "/none/there", link}, []string{theirs}, note)
	if len(list.whole) != 1 || list.whole[0].isDir || len(list.ifEmpty) != 0 || len(notes) != 2 {
		t.Errorf("%+v, %q", list, notes)
	}
	start := time.Now()
	list.remove()
	if exists(link) || time.Since(start) > time.Second {
		t.Error("the link is there, or it took long")
	}
}

// Who asks for a removal may have removed the thing itself by the time that it is
// looked for: that is nothing to warn of.
func TestRemovalOfWhatHasGoneIsNothingToSay(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	must(t, os.WriteFile(there, nil, 0o600))
	file := filepath.Join(there, "below a file")
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	var r removals
	r.open([]string{filepath.Join(dir, "gone"), there, filepath.Join(dir, "gone", "with its directory")}, nil, note)
	if len(r.whole) != 1 || r.whole[0].path != there || len(notes) != 0 {
		t.Errorf("%d to remove, and said %q; want %s, and nothing said", len(r.whole), notes, there)
	}
	r.open([]string{file}, nil, note)
	if len(notes) != 1 {
		t.Errorf("said %q of what cannot be opened, want a line", notes)
	}
}
