package state

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// left are the names in a directory.
func left(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestANameIsTakenOnceAndGivenBack(t *testing.T) {
	runtime := runtimeDir(t)
	d, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(runtime, "sbxnet"), d.Path} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	_, err = Create("web")
	var taken *TakenError
	if !errors.As(err, &taken) || taken.PID != os.Getpid() || !strings.Contains(err.Error(), fmt.Sprintf("taken by a running sandbox (sbxnet, pid %d)", os.Getpid())) {
		t.Errorf("second: %v", err)
	}
	other, err := Create("web2")
	if err != nil {
		t.Fatalf("another name: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if names := left(t, runtime); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	again, err := Create("web")
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "web", "web-1", "Web_1.test", strings.Repeat("n", 63), "1"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", "_a", "a/b", "../x", "a b", "ä", "a\x00", strings.Repeat("n", 64)} {
		if err := CheckName(bad); err == nil {
			t.Errorf("%q is taken for a name", bad)
		}
		if _, err := Create(bad); err == nil {
			t.Errorf("%q was made", bad)
		}
	}
}

// A name that nobody chose tells what runs, and is always a name.
func TestAutomaticNames(t *testing.T) {
	runtimeDir(t)
	for _, c := range []struct{ command, want string }{
		{"./server", "server-1"}, {"/usr/bin/server", "server-2"}, {"bash", "bash-1"},
		{"", "sandbox-1"}, {"/", "sandbox-2"}, {"../..", "sandbox-3"}, {"-x y!", "xy-1"}, {"日本", "sandbox-4"},
		{strings.Repeat("long", 100), strings.Repeat("long", 13) + "lon-1"},
	} {
		d, err := CreateNamedFor(c.command)
		if err != nil {
			t.Fatalf("%q: %v", c.command, err)
		}
		defer d.Close()
		if d.Name != c.want || CheckName(d.Name) != nil {
			t.Errorf("%q became %q, want %q", c.command, d.Name, c.want)
		}
	}
}

// Twenty sandboxes that start and end at the same time never see half of one
// another.
func TestStartingAndEndingAtOnce(t *testing.T) {
	runtime := runtimeDir(t)
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 10 {
				d, err := CreateNamedFor("server")
				if err == nil {
					err = d.SetChildPID(g)
				}
				if err == nil {
					err = d.Close()
				}
				if err != nil {
					t.Errorf("%d.%d: %v", g, i, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if names := left(t, runtime); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// stale makes what a killed sbxnet leaves.
func stale(t *testing.T, root, name string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{fileLock: "1\n", fileChildPID: "2", "other": "x"} {
		if err := os.WriteFile(filepath.Join(path, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(path, fileSocket)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

func TestTheNextOneSweepsWhatAKilledOneLeft(t *testing.T) {
	runtime := runtimeDir(t)
	root := filepath.Join(runtime, "sbxnet")
	stale(t, root, "web")
	stale(t, root, "db")
	if running, err := List(); err != nil || len(running) != 0 {
		t.Errorf("listed as running: %v, %v", running, err)
	}
	if _, err := Open("web"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	d, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	if names := left(t, root); !slices.Equal(names, []string{"web"}) {
		t.Errorf("not swept: %v", names)
	}
	if names := left(t, d.Path); !slices.Equal(names, []string{fileLock}) {
		t.Errorf("the killed one's files are still there: %v", names)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// What is not a state directory of ours is not swept, and not used.
func TestHostileDirectoriesAreRefused(t *testing.T) {
	runtime := runtimeDir(t)
	root := filepath.Join(runtime, "sbxnet")
	elsewhere := t.TempDir()
	keep := filepath.Join(elsewhere, "keep")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"symlink", func(p string) error { return os.Symlink(elsewhere, p) }, "is no directory; remove it"},
		{"file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, "is no directory; remove it"},
		{"fifo", func(p string) error { return syscall.Mkfifo(p, 0o600) }, "is no directory; remove it"},
		{"others may enter", func(p string) error { return open777(p) }, "others may enter it (mode 0777); chmod 700 it"},
	} {
		for _, path := range []string{root, filepath.Join(root, "web")} {
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			if path != root {
				if err := os.Mkdir(root, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			var untrusted *UntrustedError
			if _, err := Create("web"); !errors.As(err, &untrusted) || untrusted.Path != path || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: Create: %v", c.name, err)
			}
			if _, err := Open("web"); !errors.As(err, &untrusted) {
				t.Errorf("%s: Open: %v", c.name, err)
			}
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
				t.Errorf("%s: was changed: %v, %v", c.name, after, err)
			}
		}
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("what the symbolic link led to is gone: %v", err)
	}
}

func open777(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o777)
}

func TestADirectoryOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory to another user")
	}
	root := filepath.Join(runtimeDir(t), "sbxnet")
	for _, path := range []string{root, filepath.Join(root, "web")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Create("web"); err == nil || !strings.Contains(err.Error(), "belongs to user 12345, not to you (0); set XDG_RUNTIME_DIR") {
			t.Errorf("%s: %v", path, err)
		}
		if err := os.Chown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
}

// An automatic name passes over what is in its way.
func TestAutomaticNamesPassOverHostileDirectories(t *testing.T) {
	root := filepath.Join(runtimeDir(t), "sbxnet")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(root, "server-1")); err != nil {
		t.Fatal(err)
	}
	d, err := CreateNamedFor("server")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Name != "server-2" {
		t.Errorf("%s", d.Name)
	}
}

func TestRootFollowsTheEnvironment(t *testing.T) {
	runtime := runtimeDir(t)
	if got := Root(); got != filepath.Join(runtime, "sbxnet") {
		t.Errorf("%s", got)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, dir := range []string{"", "relative", "/nonexistent", open, os.DevNull} {
		t.Setenv("XDG_RUNTIME_DIR", dir)
		got := Root()
		if got != fmt.Sprintf("/run/user/%d/sbxnet", os.Geteuid()) && got != fmt.Sprintf("%s/sbxnet-%d", tmp, os.Geteuid()) {
			t.Errorf("XDG_RUNTIME_DIR=%q: %s", dir, got)
		}
	}
}

func TestADirectoryThatTheUserNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d, err := CreateAt(path)
	if err != nil {
		t.Fatal(err)
	}
	var taken *TakenError
	if _, err := CreateAt(path); !errors.As(err, &taken) {
		t.Errorf("second: %v", err)
	}
	if err := d.SetChildPID(1); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fileLock, fileChildPID, ".bp.sock"} { // what a killed one leaves
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d, err = CreateAt(path); err != nil {
		t.Fatal(err)
	}
	if names := left(t, path); !slices.Equal(names, []string{fileLock}) {
		t.Errorf("%v", names)
	}
	d.Close()
	// Made with an ordinary umask, it is closed to others.
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if d, err = CreateAt(path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	d.Close()
	// A home directory, named by mistake, stays as it is.
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "thesis"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateAt(path); err == nil || !strings.Contains(err.Error(), "has thesis in it") {
		t.Errorf("%v", err)
	}
}

// A socket's address holds 107 bytes; a path may be longer.
func TestLongPaths(t *testing.T) {
	runtime := runtimeDir(t)
	long := filepath.Join(runtime, strings.Repeat("d", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", long)
	d, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := Serve(Sandbox{Dir: d, ChildPID: 1, Ports: realPorts(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Open("web")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if list, err := c.Ports(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	again, err := Open("web")
	if err != nil {
		t.Fatalf("a second client: %v", err)
	}
	again.Close()
}

// What others are to remove is what Close removes.
func TestLeftoversAreWhatCloseRemoves(t *testing.T) {
	runtime := runtimeDir(t)
	named, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	at, err := CreateAt(filepath.Join(runtime, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(runtime, "sbxnet")
	whole, ifEmpty := named.Leftovers()
	if !slices.Equal(whole, []string{filepath.Join(root, "web")}) || !slices.Equal(ifEmpty, []string{root}) {
		t.Errorf("%q, %q", whole, ifEmpty)
	}
	// Where the user said the place, what it is in is the user's.
	whole, ifEmpty = at.Leftovers()
	if !slices.Equal(whole, []string{filepath.Join(runtime, "mine")}) || len(ifEmpty) != 0 {
		t.Errorf("%q, %q", whole, ifEmpty)
	}
	for _, d := range []*Dir{named, at} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if names := left(t, runtime); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}
