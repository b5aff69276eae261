package portfwd

import (
	"testing"

	"sbxnet/tapdev"
	"sbxnet/tapdev/linktest"
)

func TestLinksAreWhatIsChosenUnlessTheTestSays(t *testing.T) {
	t.Setenv(linktest.Env, "link=packet num-network-channels=3 gso=false tx-checksum-offload=false")
	for _, c := range []struct {
		options []option
		kind    tapdev.Kind
		queues  int
	}{
		{nil, tapdev.Packet, 3},
		{[]option{queues(1)}, tapdev.Packet, 1},
		{[]option{linked(tapdev.TAP)}, tapdev.TAP, 3},
	} {
		w := newWorld(t, c.options...)
		info := w.link.(interface{ Info() tapdev.Info }).Info()
		if info.Kind != c.kind || info.Queues != c.queues || len(w.fwd.shards) != c.queues || info.GSO || info.TXChecksum || !info.GRO || !info.RXChecksum {
			t.Errorf("%+v with %d shards, want %s with %d and neither GSO nor checksums towards the sandbox", info, len(w.fwd.shards), c.kind, c.queues)
		}
		a, b := w.connect(outside4)
		swap(t, a, b, 1<<20)
	}
}
