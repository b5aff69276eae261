package main

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func TestChecklistHolds(t *testing.T) {
	var out strings.Builder
	if status := run("", &out); status != 0 {
		t.Errorf("status %d", status)
	}
	if n := strings.Count(out.String(), "  ok    "); n != 12 || t.Failed() {
		t.Errorf("%d lines are ok\n%s", n, out.String())
	}
}

// A sandbox that cannot start must not look like one that isolates well.
func TestChecklistFailsWithoutASandbox(t *testing.T) {
	var out strings.Builder
	if status := run("/bin/false", &out); status != 1 {
		t.Errorf("status %d", status)
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "  ok ") && !strings.Contains(line, "the host itself reaches") {
			t.Errorf("said of a program that does nothing: %s", line)
		}
	}
}
