package rootlesskit

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// getsubids has the environment name a program that answers as the real one does.
func getsubids(t *testing.T, script string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "getsubids")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GETSUBIDS", path)
}

func TestDynamicSubIDsAreOfTheNameAndOfTheNumber(t *testing.T) {
	getsubids(t, `
		start=100000; [ "$1" = -g ] && { start=300000; shift; }
		echo "0: $1 $start 65536"
		[ "$1" = `+strconv.Itoa(os.Geteuid())+` ] && echo "1: $1 500000 10"
		true`)
	uids, gids, err := dynamicSubIDs()
	if want := []idtools.SubIDRange{{Start: 100000, Length: 65536}, {Start: 500000, Length: 10}}; err != nil || !slices.Equal(uids, want) {
		t.Errorf("%v, %v, want %v", uids, err, want)
	}
	if want := []idtools.SubIDRange{{Start: 300000, Length: 65536}, {Start: 500000, Length: 10}}; !slices.Equal(gids, want) {
		t.Errorf("%v, want %v", gids, want)
	}
}

// The real program fails for a number, mostly.
func TestDynamicSubIDsNeedOneOfTwoAnswers(t *testing.T) {
	getsubids(t, `for last; do :; done; case $last in [0-9]*) echo "Error fetching ranges" >&2; exit 1; esac; echo "0: $last 100000 65536"`)
	if uids, gids, err := requiredSubIDs(); err != nil || len(uids) != 1 || len(gids) != 1 {
		t.Errorf("%v, %v, %v", uids, gids, err)
	}
	getsubids(t, `echo "Error fetching ranges" >&2; exit 1`)
	_, _, err := requiredSubIDs()
	if err == nil {
		t.Fatal("ranges of nobody")
	}
	for _, want := range []string{"failed to setup UID/GID map: failed to compute uid/gid map: subid-source:dynamic: failed to get subuids by the username \"",
		`exit status 1 (stdout="", stderr="Error fetching ranges\n"); also failed to get subuids by the UID `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestSubIDsAreStaticWhereThereIsNoGetsubids(t *testing.T) {
	t.Setenv("GETSUBIDS", "/nonexistent/getsubids")
	if _, _, err := requiredSubIDs(); err == nil || !strings.Contains(err.Error(), "subid-source:dynamic: ") {
		t.Errorf("%v", err)
	}
	uids, gids, err := autoSubIDs()
	staticUIDs, staticGIDs, staticErr := staticSubIDs()
	if !slices.Equal(uids, staticUIDs) || !slices.Equal(gids, staticGIDs) || (err == nil) != (staticErr == nil) {
		t.Errorf("%v, %v, %v; want %v, %v, %v", uids, gids, err, staticUIDs, staticGIDs, staticErr)
	}
}

func TestNonsenseOfGetsubidsIsRefused(t *testing.T) {
	if got, err := parseSubIDs("# foo\n\n0: foo 100000 655360\n"); err != nil || !slices.Equal(got, []idtools.SubIDRange{{Start: 100000, Length: 655360}}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"foo 100000 65536", "0: foo 100000", "0: foo x 65536", "0: foo 1 99999999999999999999", ":"} {
		if got, err := parseSubIDs(text); err == nil || !strings.Contains(err.Error(), "line 1: unparsable line") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	getsubids(t, `while :; do echo "0: foo 100000 65536"; done`)
	if _, _, err := dynamicSubIDs(); err == nil {
		t.Error("a program that never stops was read to its end")
	}
}
