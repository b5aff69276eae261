package sim

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The bottleneck of the goodput table, in both directions.
const (
	bulkRate   = 100_000_000 / 8
	bulkQueue  = 256 << 10
	bulkBytes  = 4 << 20
	bulkLimit  = 60 * time.Second
	bulkSeeds  = 3
	goodputTxt = "testdata/goodput.txt"
)

// bulk is one stream from the gateway to the sandbox. delay is the round trip,
// buffer the socket buffers on both sides.
func bulk(loss float64, delay time.Duration, buffer int, congestion string) Scenario {
	s := Scenario{Seed: 1, Limit: bulkLimit}
	for i := range 2 {
		s.Stacks[i] = StackPlan{MTU: 1500, TSO: true, SendBuffer: buffer, ReceiveBuffer: buffer, Congestion: congestion}
		s.Path[i] = Impairment{Loss: loss, Delay: delay / 2, Rate: bulkRate, Buffer: bulkQueue}
	}
	app := AppPlan{WriteMax: 64 << 10, ReadMax: 1 << 20}
	s.Conns = []ConnPlan{{Dialer: 1, Apps: [2]AppPlan{app, app}}}
	s.Conns[0].Apps[0].Send = bulkBytes
	return s
}

// goodput is what bulk achieves, in bytes per second, averaged over a few seeds.
func goodput(t *testing.T, s Scenario) float64 {
	sum := 0.0
	for seed := range uint64(bulkSeeds) {
		s.Seed = seed + 1
		r, err := Run(s, nil)
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		sum += float64(r.Bytes) / r.Time.Seconds()
	}
	return sum / bulkSeeds
}

func goodputTable(t *testing.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Goodput in Mbit/s of one stream of %d MiB through a bottleneck of %d Mbit/s with a
queue of %d KiB, by congestion control, random loss in both directions, round
trip, and socket buffer. To rewrite: go test ./netstack/sim -run TestGoodput -sim.update
`, bulkBytes>>20, bulkRate*8/1_000_000, bulkQueue>>10)
	buffers := []int{64 << 10, 256 << 10, 1 << 20, 4 << 20}
	for _, congestion := range []string{"cubic", "newreno"} {
		fmt.Fprintf(&b, "\n%-8s %6s %8s", congestion, "loss", "rtt")
		for _, n := range buffers {
			fmt.Fprintf(&b, " %7dK", n>>10)
		}
		b.WriteByte('\n')
		for _, loss := range []float64{0, 0.001, 0.01, 0.03, 0.1, 0.3} {
			for _, delay := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
				fmt.Fprintf(&b, "%14.1f%% %8v", loss*100, delay)
				for _, n := range buffers {
					fmt.Fprintf(&b, " %8.2f", goodput(t, bulk(loss, delay, n, congestion))*8/1e6)
				}
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// TestGoodput compares the table with the one that is checked in, so that what a
// change does to throughput is seen in its diff.
func TestGoodput(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the table is made on amd64: other processors round CUBIC's floating point differently")
	}
	if testing.Short() || raceEnabled {
		t.Skip("the table takes seconds, and minutes with the race detector; the full run compares it")
	}
	got := goodputTable(t)
	if *updateFlag {
		if err := os.WriteFile(goodputTxt, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(goodputTxt)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) == got {
		return
	}
	old, now := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(old), len(now)) {
		var a, b string
		if i < len(old) {
			a = old[i]
		}
		if i < len(now) {
			b = now[i]
		}
		if a != b {
			t.Errorf("line %d\n  was %s\n  is  %s", i+1, a, b)
		}
	}
	t.Error("goodput has changed; if that is meant, go test ./netstack/sim -run TestGoodput -sim.update")
}
