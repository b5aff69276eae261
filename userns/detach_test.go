package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// name makes the file that a namespace is mounted on.
func name(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	return path
}

func namespaceNumber(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestDetachedNetworkIsMountedOnItsNameAndNotTheCommands(t *testing.T) {
	cfg := linked()
	cfg.DetachNetNS = name(t)
	cfg.ResolvConf = "nameserver 192.0.2.1\n"
	resolvers, _ := os.ReadFile("/etc/resolv.conf")
	out, status := shell(t, cfg, `
		readlink /proc/self/ns/net; stat -f -c %T `+cfg.DetachNetNS+`; ls /sys/class/net | grep -c tap0
		nsenter --net=`+cfg.DetachNetNS+` ip -o addr show dev tap0 scope global | awk '{ print $4 }'
		nsenter --net=`+cfg.DetachNetNS+` ip -o link show dev lo | grep -o 'LOOPBACK,UP'
		cat /etc/resolv.conf`)
	host, _ := os.Readlink("/proc/self/ns/net")
	want := strings.TrimSpace(fmt.Sprintf("%s\nnsfs\n0\n10.0.2.100/24\nfd00::100/64\nLOOPBACK,UP\n%s", host, resolvers))
	if status != 0 || out != want {
		t.Errorf("status %d, inside:\n%s\nwant:\n%s", status, out, want)
	}
	if b, err := os.ReadFile(cfg.DetachNetNS); err != nil || len(b) != 0 {
		t.Errorf("outside, the name is more than an empty file: %q, %v", b, err)
	}
}

func TestDetachedNetworkIsReachedThroughTheFirstProcess(t *testing.T) {
	cfg := unlinked()
	cfg.DetachNetNS = name(t)
	cfg.Command = []string{"sleep", "100"}
	sb := started(t, cfg)
	if err := sb.Exec(); err != nil {
		t.Fatal(err)
	}
	inside := namespaceNumber(t, fmt.Sprintf("/proc/%d/root%s", sb.PID(), cfg.DetachNetNS))
	own := namespaceNumber(t, "/proc/self/ns/net")
	for _, pid := range []int{sb.PID(), sb.CommandPID()} {
		if n := namespaceNumber(t, fmt.Sprintf("/proc/%d/ns/net", pid)); n != own || n == inside {
			t.Errorf("process %d is in network namespace %d; the host's is %d, the detached one %d", pid, n, own, inside)
		}
	}
}

func TestDetachedNetworkFollowsACopiedUpDirectory(t *testing.T) {
	cfg := unlinked()
	cfg.DetachNetNS = name(t)
	cfg.CopyUp = []string{filepath.Dir(cfg.DetachNetNS)}
	if out, status := shell(t, cfg, "nsenter --net="+cfg.DetachNetNS+" ls /proc/self/net/dev && stat -Lf -c %T "+cfg.DetachNetNS); status != 0 || !strings.HasSuffix(out, "nsfs") {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestDetachingRefusesWhatItCannotBeMountedOn(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		mode      Mode
		path, why string
	}{
		{NetworkNone, filepath.Join(dir, "missing"), "missing: no such file"},
		{NetworkNone, dir, "is not a regular file"},
		{NetworkHost, name(t), "no network namespace to detach with --network host"},
	} {
		sb, err := Start(Config{Network: c.mode, DetachNetNS: c.path})
		if err == nil {
			sb.Close()
			t.Errorf("%s on %s: started", c.mode, c.path)
		} else if !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s on %s: %v; want %q", c.mode, c.path, err, c.why)
		}
	}
}
