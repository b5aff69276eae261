package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filled returns a directory with a file, a link and a directory in it.
func filled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.Chmod(dir, 0o751),
		os.WriteFile(filepath.Join(dir, "file"), []byte("host's"), 0o644),
		os.Symlink("file", filepath.Join(dir, "link")),
		os.Symlink("/nonexistent/elsewhere", filepath.Join(dir, "dangling")),
		os.Mkdir(filepath.Join(dir, "sub"), 0o755),
		os.WriteFile(filepath.Join(dir, "sub", "inner"), []byte("deep"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// in runs a script in a sandbox, in the directory dir.
func in(t *testing.T, cfg Config, dir, script string) string {
	t.Helper()
	out, status := shell(t, cfg, "cd '"+dir+"' && "+script)
	if status != 0 {
		t.Fatalf("%s: status %d: %s", script, status, out)
	}
	return out
}

func TestCopiedUpDirectoryHasEverythingOfTheOriginal(t *testing.T) {
	cfg := unlinked()
	cfg.CopyUp = []string{filled(t)}
	out := in(t, cfg, cfg.CopyUp[0], `
		stat -f -c %T .; stat -c %a .; ls; cat file; echo; cat link; echo
		cat sub/inner; echo; readlink link dangling; readlink file | sed 's/[0-9]*\//N\//'`)
	want := "tmpfs\n751\ndangling\nfile\nlink\nsub\nhost's\nhost's\ndeep\nfile\n/nonexistent/elsewhere\n.roN/file"
	if out != want {
		t.Errorf("inside:\n%s\nwant:\n%s", out, want)
	}
}

func TestCopiedUpDirectoryChangesWithoutTheHost(t *testing.T) {
	cfg := unlinked()
	dir := filled(t)
	cfg.CopyUp = []string{dir}
	out := in(t, cfg, dir, "rm file sub && echo ours > file && mkdir new && cat file; ls")
	if out != "ours\ndangling\nfile\nlink\nnew\nsub" && out != "ours\ndangling\nfile\nlink\nnew" {
		t.Errorf("inside: %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "host's" {
		t.Errorf("the host's file is now %q, %v", b, err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".ro*")); len(names) > 0 {
		t.Errorf("left on the host: %q", names)
	}
}

func TestCopiedUpEtcHoldsTheSandboxesFilesAsItsOwn(t *testing.T) {
	cfg := unlinked()
	cfg.etc = filled(t)
	cfg.CopyUp = []string{cfg.etc + "/"}
	cfg.ResolvConf, cfg.Hosts = "nameserver 10.0.2.3\n", "127.0.0.1 localhost\n"
	if err := os.Symlink("/run/nowhere/stub", filepath.Join(cfg.etc, "resolv.conf")); err != nil {
		t.Fatal(err)
	}
	out := in(t, cfg, cfg.etc, `
		cat resolv.conf hosts; test -L resolv.conf || echo file
		echo edited > resolv.conf && mv resolv.conf x && cat x; awk '$5 ~ "`+cfg.etc+`/" { print "mount" }' /proc/self/mountinfo`)
	// The one mount below is the original directory.
	if want := "nameserver 10.0.2.3\n127.0.0.1 localhost\nfile\nedited\nmount"; out != want {
		t.Errorf("inside:\n%s\nwant:\n%s", out, want)
	}
}

func TestCopyUpOfTwoDirectoriesAndOfOneBelowTheOther(t *testing.T) {
	cfg := unlinked()
	outer, other := filled(t), filled(t)
	cfg.CopyUp = []string{outer, other, outer + "/sub"}
	out := in(t, cfg, outer, "echo more > sub/new; cat sub/inner; ls sub; stat -f -c %T sub/. "+other)
	if out != "deepinner\nnew\ntmpfs\ntmpfs" {
		t.Errorf("inside: %q", out)
	}
	if _, err := os.Stat(outer + "/sub/new"); err == nil {
		t.Error("the host sees what was written below a directory that was copied up")
	}
}

func TestCopyUpRefusesWhatItCannot(t *testing.T) {
	dir := filled(t)
	for path, why := range map[string]string{
		"etc":             `"etc": not an absolute path`,
		"":                `"": not an absolute path`,
		"/":               "has to stay what it is",
		"/proc/":          "has to stay what it is",
		dir + "/missing":  "copy up " + dir + "/missing: no such file or directory",
		dir + "/file":     "copy up " + dir + "/file: not a directory",
		dir + "/dangling": "no such file or directory",
	} {
		cfg := unlinked()
		cfg.CopyUp = []string{dir, path}
		sb, err := Start(cfg)
		if err == nil {
			sb.Close()
			t.Errorf("%q was copied up", path)
			continue
		}
		if !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want one line with %q", path, err, why)
		}
	}
}
