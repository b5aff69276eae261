package tapdev

import (
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func interfaces(t *testing.T) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	check(t, err)
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func TestSandboxSeesItsOwnEndOfPacketLinkOnly(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	before := len(interfaces(t))
	info, l := openLink(t, testOptions(Packet))
	if got := interfaces(t); len(got) != before+1 || len(info.Notes) != 0 {
		t.Errorf("interfaces %v, notes %q", got, info.Notes)
	}
	check(t, l.Close())
	for deadline := time.Now().Add(5 * time.Second); len(interfaces(t)) != before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v: the interface does not go with its link", interfaces(t))
		}
	}
}

func TestPacketLinkWithoutAnotherNamespace(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	// This is the limit of the user namespace that the test made.
	check(t, os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0))
	w := newWorld(t, testOptions(Packet))
	if len(w.info.Notes) != 1 || len(interfaces(t)) < 3 {
		t.Errorf("interfaces %v, notes %q", interfaces(t), w.info.Notes)
	}
	w.pings()
}
