package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// goodMachine is one where nothing is missing, for user 1000, alice.
func goodMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{root: t.TempDir(), uid: 1000, user: "alice", groups: []int{1000}, path: "/usr/bin", clone: func(bool) error { return nil }}
	m.set(t, "proc/sys/"+sysctlMaxUserNS, "15000\n")
	m.set(t, "proc/sys/"+sysctlUserNSClone, "1\n")
	m.set(t, "proc/sys/"+sysctlAppArmorUserNS, "0\n")
	m.set(t, "proc/sys/"+sysctlPingGroups, "0\t2147483647\n")
	m.set(t, "proc/sys/"+sysctlPortStart, "80\n")
	m.set(t, "etc/subuid", "# comment\nbob:100000:65536\n\nalice:165536:65536\n1000:300000:10\n")
	m.set(t, "etc/subgid", "alice:165536:65536\n")
	for _, name := range []string{"newuidmap", "newgidmap"} {
		m.set(t, "usr/bin/"+name, "")
		must(t, os.Chmod(filepath.Join(m.root, "usr/bin", name), 0o755|os.ModeSetuid))
	}
	return m
}

func (m *machine) set(t *testing.T, path, content string) {
	t.Helper()
	path = filepath.Join(m.root, path)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func (m *machine) remove(t *testing.T, path string) {
	t.Helper()
	must(t, os.Remove(filepath.Join(m.root, path)))
}

// byName finds a finding.
func byName(t *testing.T, list []Finding, name string) Finding {
	t.Helper()
	for _, f := range list {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding %q", name)
	return Finding{}
}

func TestGoodMachineLacksNothing(t *testing.T) {
	m := goodMachine(t)
	if onNoSUID(m.root) {
		skip(t, "temporary files are on a file system mounted nosuid")
	}
	for _, f := range m.check() {
		if f.Status != OK || f.Fix != "" || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
	if d := m.checkRanges().Detail; d != "65546 in /etc/subuid, 65536 in /etc/subgid" {
		t.Errorf("ranges: %s", d)
	}
}

func TestEachFindingSaysWhatIsWrongAndWhatToType(t *testing.T) {
	appArmor := "proc/sys/" + sysctlAppArmorUserNS
	for _, c := range []struct {
		what    string
		spoil   func(m *machine)
		finding string
		status  Status
		detail  string
		fix     string
	}{
		{"max_user_namespaces is 0", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlMaxUserNS, "0\n")
		}, "max_user_namespaces", Missing, "none are allowed", fixMaxUserNS},
		{"clone says ENOSPC", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlMaxUserNS, "0\n")
			m.clone = func(bool) error { return unix.ENOSPC }
		}, featureUserNS, Missing, "user.max_user_namespaces=0", fixMaxUserNS},
		{"Debian's switch", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlUserNSClone, "0\n")
			m.clone = func(bool) error { return unix.EPERM }
		}, "unprivileged_userns_clone", Missing, "switched off", fixUserNS},
		{"Debian's switch, seen by clone", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlUserNSClone, "0\n")
			m.clone = func(bool) error { return unix.EPERM }
		}, featureUserNS, Missing, "kernel.unprivileged_userns_clone=0", fixUserNS},
		{"AppArmor refuses clone", func(m *machine) {
			m.set(t, appArmor, "1\n")
			m.clone = func(bool) error { return unix.EACCES }
		}, featureAppArmor, Missing, "keeps ordinary users", fixAppArmor},
		{"AppArmor denies capabilities", func(m *machine) {
			m.set(t, appArmor, "1\n")
			m.clone = func(capable bool) error {
				if capable {
					return unix.EPERM
				}
				return nil
			}
		}, featureAppArmor, Missing, "profile unprivileged_userns", fixAppArmor},
		{"AppArmor has a profile for us", func(m *machine) {
			m.set(t, appArmor, "1\n")
		}, featureAppArmor, OK, "not those of sbxnet", ""},
		{"a container's seccomp filter", func(m *machine) {
			m.clone = func(bool) error { return unix.EPERM }
		}, featureUserNS, Missing, "seccomp", "seccomp=unconfined"},
		{"no newgidmap", func(m *machine) {
			m.remove(t, "usr/bin/newgidmap")
		}, "newuidmap and newgidmap", Degraded, "newgidmap is not installed", fixUIDMap},
		{"newuidmap without its bit", func(m *machine) {
			must(t, os.Chmod(filepath.Join(m.root, "usr/bin/newuidmap"), 0o755))
		}, "newuidmap and newgidmap", Degraded, "/usr/bin/newuidmap is neither", "sudo chmod u+s /usr/bin/newuidmap"},
		{"no /etc/subuid", func(m *machine) {
			m.remove(t, "etc/subuid")
		}, featureSubIDs, Degraded, "no range for alice", "sudo usermod --add-subuids 231072-296607 --add-subgids 231072-296607 alice"},
		{"ranges of others only", func(m *machine) {
			m.set(t, "etc/subgid", "bob:100000:65536\n")
		}, featureSubIDs, Degraded, "/etc/subgid has no range for alice", "sudo usermod --add-subuids 300010-365545 --add-subgids 300010-365545 alice"},
		{"two fields", func(m *machine) {
			m.set(t, "etc/subuid", "alice:165536:65536\nbob:1\n")
		}, featureSubIDs, Degraded, `line 2 of /etc/subuid: "bob:1" is not NAME:START:COUNT`, "sudoedit /etc/subuid"},
		{"a word for a number", func(m *machine) {
			m.set(t, "etc/subuid", "alice:many:65536\n")
		}, featureSubIDs, Degraded, "line 1 of /etc/subuid", "sudoedit /etc/subuid"},
		{"root of the host in the range", func(m *machine) {
			m.set(t, "etc/subgid", "alice:0:65536\n")
		}, featureSubIDs, Degraded, "line 1 of /etc/subgid: range 0:65536", "sudoedit /etc/subgid"},
		{"a range past the last ID", func(m *machine) {
			m.set(t, "etc/subuid", "alice:4294967290:65536\n")
		}, featureSubIDs, Degraded, "line 1 of /etc/subuid", "sudoedit /etc/subuid"},
		{"ping is off", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlPingGroups, "1\t0\n")
		}, "ping_group_range", Degraded, "none of your groups", fixPingGroups},
		{"ping is for others", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlPingGroups, "5 999\n")
		}, "ping_group_range", Degraded, "none of your groups", fixPingGroups},
		{"the usual ports", func(m *machine) {
			m.set(t, "proc/sys/"+sysctlPortStart, "1024\n")
		}, "ip_unprivileged_port_start", Degraded, "ports below 1024", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := goodMachine(t)
			c.spoil(m)
			f := byName(t, m.check(), c.finding)
			if f.Status != c.status || !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Fix, c.fix) || (c.fix == "") != (f.Fix == "") {
				t.Errorf("%+v", f)
			}
			if strings.ContainsRune(f.Detail+f.Fix, '\n') {
				t.Errorf("more than one line: %+v", f)
			}
		})
	}
}

func TestRootNeedsNoHelpers(t *testing.T) {
	m := goodMachine(t)
	m.uid, m.user = 0, "root"
	m.remove(t, "usr/bin/newuidmap")
	m.remove(t, "etc/subuid")
	m.set(t, "proc/sys/"+sysctlPortStart, "1024\n")
	for _, f := range m.check() {
		if f.Status != OK {
			t.Errorf("%+v", f)
		}
	}
}

func TestThisMachineIsChecked(t *testing.T) {
	list := Check()
	if len(list) != 8 {
		t.Fatalf("%d findings", len(list))
	}
	// Every test here makes sandboxes, so this is known.
	if f := byName(t, list, featureUserNS); f.Status != OK {
		t.Errorf("%+v", f)
	}
}

func TestRefusedCloneIsExplained(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		err  error
		says string
	}{
		{unix.ENOSPC, "nesting"},
		{unix.EUSERS, "nesting"},
		{unix.EINVAL, "without user or network namespaces"},
		{unix.EAGAIN, "ulimit -u"},
		{unix.ENOMEM, "cannot allocate memory"},
	} {
		got := explainClone(root, &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: c.err})
		if !strings.Contains(got.Error(), c.says) || strings.ContainsRune(got.Error(), '\n') {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestDeniedCapabilitiesAreBlamedOnAppArmor(t *testing.T) {
	err := explainSetup("/", message{Op: opFailed, Text: "set lo up: operation not permitted", Errno: int(unix.EPERM), Label: "unprivileged_userns (enforce)"})
	if u, ok := err.(*Unavailable); !ok || u.Feature != featureAppArmor || u.Fix != fixAppArmor || !strings.Contains(u.Cause, "set lo up") {
		t.Errorf("%v", err)
	}
	err = explainSetup("/", message{Op: opFailed, Text: "set lo up: operation not permitted", Errno: int(unix.EPERM), Label: "unconfined"})
	if fmt.Sprint(err) != "set lo up: operation not permitted" {
		t.Errorf("%v", err)
	}
}
