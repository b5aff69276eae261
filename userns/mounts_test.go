package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// etcWith is a stand-in for /etc, made by a function.
func etcWith(t *testing.T, fill func(dir string)) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	fill(dir)
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestResolvConfIsOurOwnHoweverTheHostKeepsIt(t *testing.T) {
	for name, fill := range map[string]func(dir string){
		"file": func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("host\n"), 0o644))
		},
		"absolute link": func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "stub"), []byte("host\n"), 0o644))
			must(t, os.Symlink(filepath.Join(dir, "stub"), filepath.Join(dir, "resolv.conf")))
		},
		"relative link": func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "stub"), []byte("host\n"), 0o644))
			must(t, os.Symlink("../"+filepath.Base(dir)+"/stub", filepath.Join(dir, "resolv.conf")))
		},
		"dangling link": func(dir string) {
			must(t, os.Symlink("/run/no/such/stub", filepath.Join(dir, "resolv.conf")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []UserMap{MapSingle, MapAuto} {
				cfg := unlinked()
				cfg.UserMap = m
				cfg.ResolvConf, cfg.Hosts = "nameserver 10.0.2.3\n", "10.0.2.100 box\n"
				cfg.etc = etcWith(t, fill)
				before := snapshot(t, cfg.etc)
				out, _ := shell(t, cfg, "cd "+cfg.etc+" && cat resolv.conf hosts && echo '# mine' >> resolv.conf && tail -1 resolv.conf")
				if out != "nameserver 10.0.2.3\n10.0.2.100 box\n# mine" {
					t.Errorf("%s map: seen inside: %q", m, out)
				}
				if after := snapshot(t, cfg.etc); after != before {
					t.Errorf("the host's files were\n%s\nand are now\n%s", before, after)
				}
			}
		})
	}
}

// snapshot lists the files of dir, and what is in them.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var b strings.Builder
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		content, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		b.WriteString(e.Name() + " " + e.Type().String() + " " + target + " " + string(content) + "\n")
	}
	return b.String()
}

func TestResolvConfStaysOurOwnWhenTheHostReplacesIts(t *testing.T) {
	for _, mode := range []Mode{NetworkNone, NetworkHost} {
		cfg := unlinked()
		cfg.Network = mode
		cfg.ResolvConf = "ours\n"
		cfg.etc = etcWith(t, func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("host\n"), 0o644))
		})
		go func() {
			// As NetworkManager does, while the sandbox runs; the script below
			// sees that it has happened by the file "replaced".
			time.Sleep(100 * time.Millisecond)
			for _, name := range []string{"resolv.conf", "replaced"} {
				_ = os.WriteFile(filepath.Join(cfg.etc, "new"), []byte("host, renewed\n"), 0o644)
				_ = os.Rename(filepath.Join(cfg.etc, "new"), filepath.Join(cfg.etc, name))
			}
		}()
		out, _ := shell(t, cfg, "cd "+cfg.etc+`; while ! test -e replaced; do sleep 0.01; done
			for i in $(seq 100); do grep -q ours resolv.conf && break; sleep 0.1; done; cat resolv.conf`)
		if out != "ours" {
			t.Errorf("%s: seen inside after the host's was replaced: %q", mode, out)
		}
		if b, _ := os.ReadFile(filepath.Join(cfg.etc, "resolv.conf")); string(b) != "host, renewed\n" {
			t.Errorf("%s: the host now sees %q", mode, b)
		}
	}
}

func TestHostModeLeavesSysAndResolvConf(t *testing.T) {
	cfg := unlinked()
	cfg.Network = NetworkHost
	cfg.Hosts = "10.0.2.100 box\n"
	cfg.etc = etcWith(t, func(dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("host\n"), 0o644))
	})
	want := devices(t)
	out, _ := shell(t, cfg, "cat "+cfg.etc+"/resolv.conf "+cfg.etc+"/hosts; readlink /proc/self/ns/net; ls /sys/class/net")
	ns, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if got := strings.Fields(out); strings.Join(got, " ") != "host 10.0.2.100 box "+ns+" "+want {
		t.Errorf("seen inside: %q, want the host's network %s and %s", got, ns, want)
	}
}

func devices(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestSysShowsTheSandboxsDevices(t *testing.T) {
	if out, _ := shell(t, linked(), "ls /sys/class/net"); strings.Join(strings.Fields(out), " ") != "lo tap0" {
		t.Errorf("devices: %q, want lo and tap0", out)
	}
	if out, _ := shell(t, unlinked(), "ls /sys/class/net"); out != "lo" {
		t.Errorf("devices without a network: %q, want lo", out)
	}
}

func TestCgroupsStayVisible(t *testing.T) {
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil || len(entries) == 0 {
		skip(t, "this machine has no cgroups mounted")
	}
	if out, _ := shell(t, unlinked(), "ls /sys/fs/cgroup"); !strings.Contains(out, entries[0].Name()) {
		t.Errorf("/sys/fs/cgroup inside: %q", out)
	}
}
