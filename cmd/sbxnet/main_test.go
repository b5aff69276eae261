package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"sbxnet/userns"
)

// asProgram makes the test binary sbxnet itself, also inside its sandboxes.
const asProgram = "SBXNET_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	userns.Init()
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// typed is what became of a command line without anything being started.
type typed struct {
	status         int
	stdout, stderr string
	// settings that run was called with; nil if it was not.
	settings *settings
	// attach is what attach was called with.
	attach *attachSettings
}

// typeIn reads a command line. The program's commands only note that they were
// called.
func typeIn(t *testing.T, args ...string) typed {
	t.Helper()
	var got typed
	var stdout, stderr bytes.Buffer
	p := &program{stdout: &stdout, stderr: &stderr}
	p.run = func(s *settings) error { got.settings = s; return nil }
	p.attach = func(s *attachSettings) error { got.attach = s; return nil }
	p.doctor = func() error { stdout.WriteString("doctor called"); return nil }
	p.demo = func() error { stdout.WriteString("demo called"); return nil }
	got.status = p.main(append([]string{"sbxnet"}, args...))
	got.stdout, got.stderr = stdout.String(), stderr.String()
	return got
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		stdout string // part of it
	}{
		{nil, 0, "sbxnet run"},
		{[]string{"--help"}, 0, "sbxnet run"},
		{[]string{"run", "--help"}, 0, "--publish"},
		{[]string{"run", "-h"}, 0, "--publish"},
		{[]string{"demo"}, 0, "demo called"},
		{[]string{"demo", "--help"}, 0, "Ctrl-C"},
		{[]string{"doctor"}, 0, "doctor called"},
		{[]string{"version"}, 0, "sbxnet "},
	} {
		got := typeIn(t, c.args...)
		if got.status != c.status || !strings.Contains(got.stdout, c.stdout) || got.stderr != "" || got.settings != nil {
			t.Errorf("%q: status %d, stdout %.80q, stderr %q", c.args, got.status, got.stdout, got.stderr)
		}
	}
}

func TestCommandsThatDoNotExistAreRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"curl"}, "curl: no such command"},
		{[]string{"--verbose"}, "--verbose: no such flag"},
		{[]string{"doctor", "now"}, "doctor now: takes no arguments"},
		{[]string{"version", "--long"}, "--long: no such flag"},
		{[]string{"demo", "-p", "80"}, "-p: no such flag"},
	} {
		got := typeIn(t, c.args...)
		if got.status != exitFailure || !strings.HasPrefix(got.stderr, "sbxnet: "+c.want) || strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%q: status %d, stdout %q, stderr %q", c.args, got.status, got.stdout, got.stderr)
		}
	}
}

// Every flag of run has a line of help that is not longer than a wide terminal,
// and no group is empty.
func TestHelpNamesEveryFlag(t *testing.T) {
	help := typeIn(t, "run", "--help").stdout
	for _, f := range runFlags() {
		if !strings.Contains(help, "--"+f.Names()[0]) {
			t.Errorf("--%s is not in the help text", f.Names()[0])
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 116 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
	for _, group := range []string{groupNetwork, groupSandbox, groupLink, groupWatching} {
		if strings.Count(help, "\n"+group+"\n  ") != 1 {
			t.Errorf("group %s is not there once, with flags", group)
		}
	}
}
