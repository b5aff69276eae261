package userns

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

func TestRangesFollowTheCallerOneAfterTheOther(t *testing.T) {
	got, err := appendRanges([]extent{{0, 1000, 1}}, []idtools.SubIDRange{{Start: 100000, Length: 65536}, {Start: 400000, Length: 10}})
	want := []extent{{0, 1000, 1}, {1, 100000, 65536}, {65537, 400000, 10}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("map %v (%v), want %v", got, err, want)
	}
}

func TestHostileRangesAreRefused(t *testing.T) {
	for _, r := range []idtools.SubIDRange{
		{Start: 0, Length: 65536},        // root of the host
		{Start: 100000, Length: 0},       //
		{Start: 100000, Length: -1},      //
		{Start: -5, Length: 10},          //
		{Start: 1 << 32, Length: 10},     //
		{Start: 1<<32 - 10, Length: 100}, // past the last ID
		{Start: 900, Length: 200},        // over the caller
	} {
		if m, err := appendRanges([]extent{{0, 1000, 1}}, []idtools.SubIDRange{r}); err == nil {
			t.Errorf("range %v was accepted: %v", r, m)
		}
	}
	same := idtools.SubIDRange{Start: 100000, Length: 10}
	if _, err := appendRanges([]extent{{0, 1000, 1}}, []idtools.SubIDRange{same, same}); err == nil {
		t.Error("the same range was accepted twice")
	}
}

func TestMapsHaveNoMoreExtentsThanTheKernelTakes(t *testing.T) {
	var many []idtools.SubIDRange
	for i := range 1000 {
		many = append(many, idtools.SubIDRange{Start: 100000 + 10*i, Length: 5})
	}
	got, err := appendRanges([]extent{{0, 1000, 1}}, many)
	if err != nil || len(got) != maxExtents {
		t.Errorf("%d extents (%v), want %d", len(got), err, maxExtents)
	}
}

func TestRootMapsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"uid_map": "         0       1000          1\n         1     100000      65536\n",
		"gid_map": "         0          0 4294967295\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	m, err := identityMaps(dir)
	must(t, err)
	if want := []extent{{0, 0, 1}, {1, 1, 65536}}; !slices.Equal(m.uid, want) {
		t.Errorf("user IDs %v, want %v", m.uid, want)
	}
	if want := []extent{{0, 0, 1<<32 - 1}}; !slices.Equal(m.gid, want) {
		t.Errorf("group IDs %v, want %v", m.gid, want)
	}
	must(t, os.WriteFile(filepath.Join(dir, "uid_map"), []byte("nonsense\n"), 0o644))
	if _, err := identityMaps(dir); err == nil {
		t.Error("nonsense was accepted")
	}
}

// helpersThatFail puts programs in PATH that refuse as newuidmap does.
func helpersThatFail(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"newuidmap", "newgidmap"} {
		script := "#!/bin/sh\necho '" + name + ": range [1-65537) is not allowed' >&2; exit 1\n"
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestWhatAHelperSaysIsInTheError(t *testing.T) {
	helpersThatFail(t)
	cfg, err := unlinked().withDefaults()
	must(t, err)
	m := singleMaps()
	m.helpers = true
	sb, err := start(cfg, m)
	if err == nil {
		sb.Close()
		t.Fatal("started")
	}
	var refused *mapError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "newuidmap: range [1-65537) is not allowed") {
		t.Errorf("error %v", err)
	}
}

func TestAutoFallsBackToTheSingleMapWithOneWarning(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root needs neither newuidmap nor ranges; run as an ordinary user")
	}
	helpersThatFail(t)
	var log bytes.Buffer
	cfg := unlinked()
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	out, _ := shell(t, cfg, "wc -l < /proc/self/uid_map")
	if out != "1" {
		t.Errorf("%s lines in the map, want 1", out)
	}
	if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), "only your own user ID") {
		t.Errorf("log: %s", log.String())
	}
	cfg.UserMap = MapFull
	sb, err := Start(cfg)
	if err == nil {
		sb.Close()
		t.Fatal("full started with helpers that fail")
	}
	var u *Unavailable
	if !errors.As(err, &u) || u.Feature != featureSubIDs {
		t.Errorf("full: error %v, want Unavailable", err)
	}
}
