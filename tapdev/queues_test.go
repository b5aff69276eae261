package tapdev

import "testing"

func TestQueuesByCores(t *testing.T) {
	for cores, want := range map[int]struct{ tap, packet int }{
		1: {1, 1}, 2: {2, 1}, 3: {2, 1}, 4: {2, 2}, 6: {3, 3}, 8: {4, 4}, 64: {4, 4},
	} {
		if got := TAP.queuesFor(cores); got != want.tap {
			t.Errorf("%d cores: %d queues of a TAP, want %d", cores, got, want.tap)
		}
		if got := Packet.queuesFor(cores); got != want.packet {
			t.Errorf("%d cores: %d queues of a packet link, want %d", cores, got, want.packet)
		}
	}
	for _, kind := range []Kind{TAP, Packet} {
		if n := kind.DefaultQueues(); n < 1 || n > MaxQueues {
			t.Errorf("%s: %d queues on this machine", kind, n)
		}
		if o := (Options{}).withQueues(kind); o.Queues != kind.DefaultQueues() {
			t.Errorf("%s: %d queues if nobody says", kind, o.Queues)
		}
		if o := (Options{Queues: 3}).withQueues(kind); o.Queues != 3 {
			t.Errorf("%s: %d queues, asked for 3", kind, o.Queues)
		}
	}
}
