package userns

import (
	"os"
	"strings"
	"testing"
)

func TestNamespacesAreNewWhereAskedForOnly(t *testing.T) {
	kinds := []string{"cgroup", "uts", "ipc", "pid"}
	for _, on := range append(kinds, "") {
		cfg := unlinked()
		switch on {
		case "cgroup":
			cfg.CgroupNamespace = true
		case "uts":
			cfg.UTSNamespace = true
		case "ipc":
			cfg.IPCNamespace = true
		case "pid":
			cfg.PIDNamespace = true
		}
		out, status := shell(t, cfg, "cd /proc/self/ns && readlink "+strings.Join(kinds, " "))
		inside := strings.Fields(out)
		if status != 0 || len(inside) != len(kinds) {
			t.Fatalf("status %d: %s", status, out)
		}
		for i, kind := range kinds {
			host, err := os.Readlink("/proc/self/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			if isNew := inside[i] != host; isNew != (kind == on) {
				t.Errorf("asked for %q: the %s namespace is %s inside and %s outside", on, kind, inside[i], host)
			}
		}
	}
}

func TestUTSNamespaceKeepsItsHostnameToItself(t *testing.T) {
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	cfg := unlinked()
	cfg.UTSNamespace = true
	if out, status := shell(t, cfg, "hostname; hostname box; hostname"); status != 0 || out != before+"\nbox" {
		t.Errorf("status %d: %q", status, out)
	}
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the host is called %q now, %v", after, err)
	}
}
