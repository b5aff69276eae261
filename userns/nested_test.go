package userns

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a container does to /proc and /sys makes the kernel refuse fresh ones
// and settings.
func TestSandboxInAContainerIsDegradedAndNotRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("host\n"), 0o644))
	exe, err := os.Executable()
	must(t, err)
	inner := linked()
	inner.Link.Kind = "packet" // /dev/net/tun is often not there either
	inner.PIDNamespace = true
	inner.ResolvConf = "ours\n"
	inner.Command = []string{"sh", "-c", "cat /etc/resolv.conf; exit 9"}
	spec, err := json.Marshal(inner)
	must(t, err)
	t.Setenv("SPEC", string(spec))

	stderr := filepath.Join(dir, "stderr")
	out, status := shell(t, unlinked(), `
		mount -t tmpfs mask /sys/kernel && mount -t tmpfs mask /proc/irq && mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 1
		`+parentEnv+`="$SPEC" `+exe+` 2>`+stderr)
	said, _ := os.ReadFile(stderr)
	if out != "ours" || status != 9 {
		t.Errorf("status %d, output %q, want 9 and our resolv.conf; stderr:\n%s", status, out, said)
	}
	for _, want := range []string{"a fresh one cannot be mounted", "/sys shows the network devices of the host", "ping in the sandbox needs"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("no note says %q:\n%s", want, said)
		}
	}
}

func TestSandboxInASandbox(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	inner := linked()
	inner.UserMap = MapSingle
	inner.Command = []string{"sh", "-c", "ping -c 1 -W 2 10.0.2.100 > /dev/null && id -u; exit 9"}
	spec, err := json.Marshal(inner)
	must(t, err)
	t.Setenv("SPEC", string(spec))
	for _, m := range []UserMap{MapSingle, MapAuto} {
		cfg := unlinked()
		cfg.UserMap = m
		if out, status := shell(t, cfg, parentEnv+`="$SPEC" `+exe+" 2>/dev/null"); out != "0" || status != 9 {
			t.Errorf("%s map: status %d, output %q", m, status, out)
		}
	}
}

func TestLimitsOfTheCallerArePassedOn(t *testing.T) {
	// Go raises the soft limit of every process that it starts in; the shell of
	// an ordinary child shows what it was.
	want, err := exec.Command("sh", "-c", "ulimit -n; umask").Output()
	must(t, err)
	if got, _ := shell(t, unlinked(), "ulimit -n; umask"); got != strings.TrimSpace(string(want)) {
		t.Errorf("open files and umask %q, want %q", got, want)
	}
}
