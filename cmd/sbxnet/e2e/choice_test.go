package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sbxnet/tapdev/linktest"
)

// What is built in is the link of the tools that have no flags for it, where they
// do not promise another.
func TestCompatLinkIsWhatIsBuiltIn(t *testing.T) {
	need(t, "ip")
	needTAP(t)
	sceneOf(t) // ends after what follows
	choice, err := linktest.Parse("link=packet num-network-channels=3 gso=false tx-checksum-offload=false rx-checksum-offload=false")
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch(t)
	program := filepath.Join(dir, "sbxnet")
	if !build(program, "sbxnet/cmd/sbxnet", choice.BuildFlags()...) {
		t.FailNow()
	}
	const show = "ip -d link show dev tap0"
	for name, args := range map[string][]string{
		"rootlesskit": {"--net=slirp4netns", "sh", "-c", show},
		"pasta":       {"--ns-ifname=tap0", "--", "sh", "-c", show},
	} {
		cmd := command(t, args...)
		cmd.Path, cmd.Args[0] = calledBy(t, program, name), name
		r := startCommand(t, cmd).wait(20 * time.Second)
		if !strings.Contains(r.stdout, "\n    veth ") {
			t.Errorf("%s: status %d, no packet link: %s%s", name, r.status, r.stdout, r.stderr)
		}
	}
	g := newGuest(t)
	s := startSlirpOf(t, program, "-c", "-r", "3", g.pid(), "tap0")
	s.waitReady()
	if got := g.sh(show); !strings.Contains(got, "tun type tap ") || !strings.Contains(got, " vnet_hdr off multi_queue numqueues 3 ") {
		t.Errorf("slirp4netns: no plain TAP with 3 queues: %s", got)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.wait(20 * time.Second)
}

// calledBy is program under another name.
func calledBy(t *testing.T, program, name string) string {
	t.Helper()
	path := filepath.Join(scratch(t), name)
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	return path
}
