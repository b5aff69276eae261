package portfwd

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/reactor"
)

// The kernel may report a connecting socket ready, with no error on it, before
// it has come to an outcome: an ICMP error that is being worked off on another
// core shows in poll first (Linux 6.18).
func TestAnEventBeforeTheOutcomeOfAConnectIsNone(t *testing.T) {
	w := newWorld(t)
	deaf := netip.MustParseAddrPort(deafListener(t).String())
	w.openFromNowhere(1, deaf)
	s := w.fwd.shards[0]
	s.call(func() {
		for r := range s.relays {
			r.Ready(reactor.Events(unix.EPOLLERR))
			r.work()
		}
	})
	if st := w.fwd.Stats(); st.Stacks[0].TCP.Held != 1 || st.TCP.Failed != 0 {
		t.Errorf("%d connects in flight, %d failed, want one that goes on", st.Stacks[0].TCP.Held, st.TCP.Failed)
	}
}
