package rootlesskit

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOwnCgroup2IsFoundAmongOthers(t *testing.T) {
	const mounts = `30 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw shared:4 - cgroup cgroup rw,cpu
40 30 0:36 / /sys/fs/cgroup/uni\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw
41 30 0:37 / /mnt rw - cgroup2 none rw
`
	if got := cgroup2Mount(mounts); got != "/sys/fs/cgroup/uni fied" {
		t.Errorf("mounted on %q", got)
	}
	if got := cgroup2Mount("31 30 0:27 / /sys/fs/cgroup/cgroup2 rw - cgroup cgroup rw\nnonsense\n - cgroup2 x\n"); got != "" {
		t.Errorf("mounted on %q", got)
	}
	if got := cgroup2Of("4:memory:/a\n0::/user.slice/user-1000.slice/a b\n"); got != "/user.slice/user-1000.slice/a b" {
		t.Errorf("in %q", got)
	}
	if got := cgroup2Of("4:memory:/a\n"); got != "" {
		t.Errorf("in %q", got)
	}
}

// cgroup is a directory with a cgroup's files; the kernel makes those of the inner
// one by itself.
func cgroup(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEvacuationMovesProcessesAndEnablesControllers(t *testing.T) {
	dir := cgroup(t, map[string]string{
		"cgroup.procs": "0\n4711\n", "cgroup.controllers": "memory\n", "cgroup.subtree_control": "", "inner/cgroup.procs": "",
	})
	if err := evacuateGroup(dir, "inner", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"inner/cgroup.procs": "4711", "cgroup.subtree_control": "+memory"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// Of a process that does not want to be moved, as of one that has just ended, the
// log tells; of a cgroup that is not ours the error.
func TestEvacuationThatCannotBe(t *testing.T) {
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	dir := cgroup(t, map[string]string{"cgroup.procs": "1\n", "cgroup.controllers": "io"})
	if err := evacuateGroup(dir, "inner", log); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"failed to move process 1 to cgroup", `failed to enable controller`} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in %s", want, said.String())
		}
	}
	if err := evacuateGroup("/proc/self", "inner", log); err == nil || !strings.HasPrefix(err.Error(), "mkdir /proc/self/inner: ") {
		t.Errorf("%v", err)
	}
	if err := evacuateGroup(t.TempDir(), "inner", log); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if _, err := fs.Stat(os.DirFS(dir), "inner"); err != nil {
		t.Error(err)
	}
}
