package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var allLinks = []string{"pasta", "pesto", "rootlesskit", "rootlesskit-docker-proxy", "slirp4netns"}

func TestCompatMakesAndRemovesLinks(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for range 2 { // a second install changes nothing
		got := typeIn(t, "compat", "install", dir)
		if got.status != 0 || strings.Count(got.stdout, "sbxnet   "+dir) != len(allLinks) {
			t.Fatalf("%+v", got)
		}
		// Lines that can be pasted, with the directory in them.
		for _, want := range []string{`network_cmd_path = "` + dir + `/slirp4netns"`, "Environment=PATH=" + dir + ":"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("no %q in %q", want, got.stdout)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range allLinks {
		if !sameFile(filepath.Join(dir, name), self) {
			t.Errorf("%s does not lead here", name)
		}
	}
	if got := typeIn(t, "compat", "status"); got.status != 0 || strings.Count(got.stdout, "sbxnet   "+dir) != len(allLinks) {
		t.Errorf("%+v", got)
	}
	if got := typeIn(t, "compat", "remove", dir); got.status != 0 || strings.Count(got.stdout, "removed ") != len(allLinks) {
		t.Errorf("%+v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if got := typeIn(t, "compat", "remove", dir); got.status != 0 || got.stdout != "" {
		t.Errorf("nothing to remove: %+v", got)
	}
	if got := typeIn(t, "compat", "status"); got.status != 0 || strings.Count(got.stdout, "not on PATH\n") != len(allLinks) {
		t.Errorf("%+v", got)
	}
}

// What is not a link to sbxnet is neither replaced nor removed, and then no link
// is made at all.
func TestCompatLeavesOtherPeoplesFilesAlone(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"a program":        func(p string) error { return os.WriteFile(p, []byte("#!/bin/sh\n"), 0o755) },
		"a link elsewhere": func(p string) error { return os.Symlink("/bin/true", p) },
		"a directory":      func(p string) error { return os.Mkdir(p, 0o755) },
		"a dangling link":  func(p string) error { return os.Symlink("/nonexistent/pasta.avx2", p) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "slirp4netns") // the last one
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		got := typeIn(t, "compat", "install", dir)
		if got.status != exitFailure || !strings.Contains(got.stderr, path+" is there and no link to sbxnet") || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", what, got)
		}
		if got := typeIn(t, "compat", "remove", dir); got.status != 0 || got.stdout != "left "+path+", which is no link to sbxnet\n" {
			t.Errorf("%s: %+v", what, got)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "slirp4netns" {
			t.Errorf("%s: %v, %v", what, entries, err)
		}
	}
}

// A link to a sbxnet that was moved is made anew.
func TestCompatReplacesLinksOfAnOlderOne(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/opt/old/sbxnet", filepath.Join(dir, "pasta")); err != nil {
		t.Fatal(err)
	}
	if got := typeIn(t, "compat", "status", dir); !strings.Contains(got.stdout, "stale    "+filepath.Join(dir, "pasta")) {
		t.Errorf("%+v", got)
	}
	if got := typeIn(t, "compat", "install", dir); got.status != 0 || strings.Contains(got.stdout, "stale") {
		t.Errorf("%+v", got)
	}
}

// Under each name sbxnet is that tool, wherever the link lies.
func TestPersonalitiesAreChosenByName(t *testing.T) {
	if names := linkNames(); !slices.Equal(names, allLinks) {
		t.Errorf("%v", names)
	}
	dir := t.TempDir()
	if got := typeIn(t, "compat", "install", dir); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	for name, want := range map[string]string{"slirp4netns": "slirp4netns version", "pasta": "pasta ", "pesto": "pesto ", "rootlesskit": "rootlesskit version"} {
		cmd := sbxnet("--version")
		cmd.Path = filepath.Join(dir, name)
		cmd.Args[0] = cmd.Path
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s --version: %v, %q", name, err, out)
		}
	}
}
