package sim

import (
	"testing"
	"time"
)

// The long fast path: 1 Gbit/s and 100 ms there and back, so that 12.5 MB are on
// the way. Its queue holds a whole window: what one that overflows does to slow
// start is congestion control's matter.
const (
	longRate  = 1_000_000_000 / 8
	longTrip  = 100 * time.Millisecond
	longQueue = 16 << 20

	startBuffer, mostBuffer = 1 << 20, 16 << 20
)

// onWire is how many bytes pass the path for each of a full segment's payload:
// Ethernet, IPv4, and TCP with timestamps.
const onWire = 1514.0 / 1448

// long is bulk data over the long path, from each stack that sends.
func long(loss float64, sends ...int) Scenario {
	s := Scenario{Seed: 1}
	for i := range 2 {
		s.Stacks[i] = StackPlan{
			MTU: 1500, TSO: true, Congestion: "cubic",
			SendBuffer: startBuffer, ReceiveBuffer: startBuffer, BufferMax: mostBuffer,
		}
		s.Path[i] = Impairment{Loss: loss, Delay: longTrip / 2, Rate: longRate, Buffer: longQueue}
	}
	app := AppPlan{WriteMax: 64 << 10, ReadMax: 1 << 20}
	s.Conns = []ConnPlan{{Dialer: 1, Apps: [2]AppPlan{app, app}}}
	for _, i := range sends {
		s.Conns[0].Apps[i].Send = 1 << 31
	}
	return s
}

// fixed is the scenario with buffers that do not grow.
func fixed(s Scenario, size int) Scenario {
	for i := range s.Stacks {
		p := &s.Stacks[i]
		p.SendBuffer, p.ReceiveBuffer, p.BufferMax = size, size, 0
	}
	return s
}

// after is what the scenario has come to at a time.
func after(t *testing.T, s Scenario, at time.Duration) Result {
	t.Helper()
	s.Limit = at
	r, err := Run(s, nil)
	if err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	return r
}

// share is which part of a direction's rate is used from one time to another, by
// all senders.
func share(t *testing.T, s Scenario, from, to time.Duration) float64 {
	t.Helper()
	bytes := after(t, s, to).Bytes - after(t, s, from).Bytes
	return float64(bytes) * onWire / longRate / (to - from).Seconds()
}

func TestLongFastPathIsFilled(t *testing.T) {
	slowSim(t)
	const from, to = 1500 * time.Millisecond, 2500 * time.Millisecond
	for i, sender := range []string{"gateway", "sandbox"} {
		got := share(t, long(0, i), from, to)
		t.Logf("the %s uses %.1f %% of the rate", sender, got*100)
		if got < 0.9 {
			t.Errorf("the %s uses %.1f %% of the rate after slow start, want 90", sender, got*100)
		}
	}
	// With both at it acknowledgements wait in the other direction's queue, and
	// the round trip grows beyond what 16 MiB fill.
	got, large := share(t, long(0, 0, 1), from, to), share(t, fixed(long(0, 0, 1), mostBuffer), from, to)
	t.Logf("both use %.1f %%, with large buffers from the beginning %.1f %%", got*50, large*50)
	if got < 0.95*large || got < 2*0.7 {
		t.Errorf("both use %.1f %%, with large buffers from the beginning %.1f %%", got*50, large*50)
	}
}

// TestGrowingBuffersCostNoTime compares with buffers that are as large from the
// beginning: slow start is to take as long.
func TestGrowingBuffersCostNoTime(t *testing.T) {
	slowSim(t)
	for i, from := range []string{"the gateway", "the sandbox"} {
		s := long(0, i)
		grown, large := after(t, s, 1500*time.Millisecond), after(t, fixed(s, mostBuffer), 1500*time.Millisecond)
		t.Logf("from %s: %d bytes, with %d from the beginning %d", from, grown.Bytes, mostBuffer, large.Bytes)
		if grown.Bytes < large.Bytes*95/100 {
			t.Errorf("from %s: %d bytes in the first 1.5 s, with large buffers from the beginning %d", from, grown.Bytes, large.Bytes)
		}
	}
}

// TestLongFastPathWithLossIsFilledAsCubicAllows: with one packet in 10000 lost at
// random it is CUBIC that decides (RFC 9438 §5.1), and the buffers stay out of
// its way. A loss more or less makes a great difference, hence several seeds.
func TestLongFastPathWithLossIsFilledAsCubicAllows(t *testing.T) {
	slowSim(t)
	var grown, large, small int
	for seed := range uint64(3) {
		s := long(0.0001, 0)
		s.Seed = seed
		grown += after(t, s, 3*time.Second).Bytes
		large += after(t, fixed(s, mostBuffer), 3*time.Second).Bytes
		small += after(t, fixed(s, startBuffer), 3*time.Second).Bytes
	}
	t.Logf("%d bytes; with %d from the beginning %d, with %d for good %d", grown, mostBuffer, large, startBuffer, small)
	if grown < large*9/10 || grown < 2*small {
		t.Errorf("%d bytes, with large buffers %d, with small ones %d", grown, large, small)
	}
}

func TestGrowthStopsAtTheLimit(t *testing.T) {
	const limit = 3 << 20
	for i, from := range []string{"the gateway", "the sandbox"} {
		for j, which := range []string{"send", "receive"} {
			s := long(0, i)
			s.Stacks[i^j].BufferMax = limit
			r := after(t, s, 3*time.Second)
			rate := limit / longTrip.Seconds()
			if most := int(rate * 3); r.Bytes > most || r.Bytes < most/3 {
				t.Errorf("from %s, %s buffer of %d: %d bytes in 3 s, of %d at most", from, which, limit, r.Bytes, most)
			}
			if j == 0 && r.Buffers[i] > limit+idleBytes {
				t.Errorf("from %s: %d bytes of send buffer", from, r.Buffers[i])
			}
			if j == 1 && r.Windows[1-i] > limit+512 {
				t.Errorf("to the other than %s: window of %d", from, r.Windows[1-i])
			}
		}
	}
}

// TestShortPathKeepsSmallBuffers is a link as fast as memory, where nothing is
// ever lost, congestion windows grow for ever and the round trip is what our own
// queue makes it.
func TestShortPathKeepsSmallBuffers(t *testing.T) {
	for i, from := range []string{"the gateway", "the sandbox"} {
		for _, trip := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond} {
			s := long(0, i)
			s.Whole = true
			for j := range s.Path {
				s.Path[j] = Impairment{Delay: trip / 2, Rate: 30_000_000_000 / 8}
			}
			r := after(t, s, 60*time.Millisecond)
			if sent := float64(r.Bytes) / 0.06; sent < 0.9*30e9/8 {
				t.Errorf("from %s, %v: %.2g bytes a second", from, trip, sent)
			}
			if n := r.Buffers[i]; n > startBuffer+256<<10 {
				t.Errorf("from %s, %v: %d bytes of send buffer", from, trip, n)
			}
			if n := r.Windows[1-i]; n > startBuffer+512 {
				t.Errorf("from %s, %v: window of %d", from, trip, n)
			}
		}
	}
}

// slowSim is for tests that take seconds, and minutes with the race detector.
func slowSim(t *testing.T) {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("takes seconds, and minutes with the race detector; the full run does it")
	}
}
