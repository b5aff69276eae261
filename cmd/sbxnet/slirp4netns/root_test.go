package slirp4netns

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestViewIsWhatIsNeeded(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"netns", "api"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir+"/netns", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/1/ns/net", dir+"/netns/process"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, api string
		want      []string // besides /etc, /run and where resolv.conf leads
		aliases   int
	}{
		{"", "", nil, 0},
		{dir + "/netns/web", "", []string{dir + "/netns"}, 0},
		{dir + "/netns/web", dir + "/netns/api.sock", []string{dir + "/netns", dir + "/netns writable"}, 0},
		{dir + "/link/web", dir + "/api/api.sock", []string{dir + "/netns", dir + "/api writable"}, 1},
		{dir + "/netns/process", "", []string{dir + "/netns", "/proc"}, 0},
		{"/proc/1/ns/net", "", []string{"/proc"}, 0},
		{"/run/web", "", nil, 0},
	} {
		v, err := (&options{Path: c.path}).view(c.api)
		if err != nil {
			t.Errorf("%q, %q: %v", c.path, c.api, err)
			continue
		}
		base, err := (&options{}).view("")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range v.places[len(base.places):] {
			if p.writable {
				p.path += " writable"
			}
			got = append(got, p.path)
		}
		if !slices.Equal(got, c.want) || len(v.aliases)-len(base.aliases) != c.aliases {
			t.Errorf("%q, %q: %q and %q, want %q and %d", c.path, c.api, got, v.aliases, c.want, c.aliases)
		}
	}
}

// A socket in the root directory would leave nothing hidden.
func TestViewOfEverythingIsRefused(t *testing.T) {
	for _, o := range []*options{{Path: "/ns"}, {}} {
		if v, err := o.view("/api.sock"); err == nil {
			t.Errorf("%+v: %+v", o, v)
		}
	}
}

// What is needed is never hidden, not even while the new root is put together.
func TestMountpointHidesNothingThatIsNeeded(t *testing.T) {
	v := &view{places: []place{{path: "/etc"}, {path: "/sys/fs"}}, aliases: [][2]string{{"/mnt/x", "/etc"}}}
	if at := v.mountpoint(); at != "/tmp" {
		t.Errorf("%q", at)
	}
	v.places = append(v.places, place{path: "/tmp"})
	if at := v.mountpoint(); at != "" {
		t.Errorf("%q", at)
	}
}
