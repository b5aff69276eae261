package tapdev

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestCheckNamesACommandForEverythingItFaults(t *testing.T) {
	found := Check()
	if len(found) != 4 {
		t.Errorf("%d findings, want 4", len(found))
	}
	for _, f := range found {
		t.Logf("%+v", f)
		if f.Name == "" || f.Detail == "" || strings.Contains(f.Detail, "\n") {
			t.Errorf("not one line with a name: %+v", f)
		}
		switch f.Status {
		case OK:
			if f.Fix != "" {
				t.Errorf("%s is ok, but wants %q", f.Name, f.Fix)
			}
		case Degraded, Missing:
		default:
			t.Errorf("%s: status %q", f.Name, f.Status)
		}
	}
	if tun := found[0]; (tunUsable() == nil) != (tun.Status == OK) || tun.Status != OK && tun.Fix == "" {
		t.Errorf("%+v", tun)
	}
}

func TestProbeFindsPacketLinkAndLeavesNothing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	byName := map[string]Finding{}
	for _, f := range Probe() {
		t.Logf("%+v", f)
		byName[f.Name] = f
	}
	if byName["packet link"].Status != OK {
		t.Errorf("packet link: %+v", byName["packet link"])
	}
	if tunUsable() == nil && byName["tap link"].Status != OK {
		t.Errorf("TAP link: %+v", byName["tap link"])
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, probeName) {
			t.Errorf("%s was left behind", l.Attrs().Name)
		}
	}
}
