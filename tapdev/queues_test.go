package tapdev

import "testing"

func TestQueuesByCores(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 6: 3, 8: 4, 64: 4} {
		if got := queuesFor(cores); got != want {
			t.Errorf("%d cores: %d queues, want %d", cores, got, want)
		}
	}
	if n := DefaultQueues(); n < 1 || n > MaxQueues {
		t.Errorf("%d queues on this machine", n)
	}
	if o := (Options{}).withQueues(); o.Queues != DefaultQueues() {
		t.Errorf("%d queues if nobody says", o.Queues)
	}
	if o := (Options{Queues: 3}).withQueues(); o.Queues != 3 {
		t.Errorf("%d queues, asked for 3", o.Queues)
	}
}
