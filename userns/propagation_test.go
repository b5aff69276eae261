package userns

import (
	"os"
	"strings"
	"testing"
)

// rootMount is the optional fields of the root mount (proc_pid_mountinfo(5)).
const rootMount = `awk '$5 == "/" { f = ""; for (i = 7; $i != "-"; i++) f = f " " $i; print f }' /proc/self/mountinfo`

func TestPropagationIsTheOneAskedFor(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	hostShares := strings.Contains(string(mounts), " / / ") && strings.Contains(string(mounts), "shared:")
	for _, p := range []Propagation{"", PropagationSlave, "slave", PropagationPrivate, "private", PropagationShared, "shared"} {
		cfg := unlinked()
		cfg.Propagation = p
		out, status := shell(t, cfg, rootMount)
		shared, slave := strings.Contains(out, "shared:"), strings.Contains(out, "master:")
		if want := strings.HasSuffix(string(p), "shared"); status != 0 || shared != want {
			t.Errorf("%q: the root mount has %q, status %d; shared should be %v", p, out, status, want)
		}
		if slave && (strings.HasSuffix(string(p), "private") || !hostShares) {
			t.Errorf("%q: the root mount has %q, a slave", p, out)
		}
	}
}

func TestUnknownPropagationIsRefused(t *testing.T) {
	cfg := unlinked()
	cfg.Propagation = "rfriendly"
	sb, err := Start(cfg)
	if err == nil {
		sb.Close()
		t.Fatal("started")
	}
	if !strings.Contains(err.Error(), `unknown propagation "rfriendly": use rslave`) {
		t.Error(err)
	}
}
