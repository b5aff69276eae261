package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var (
	seedsFlag  = flag.Int("sim.seeds", 0, "how many random scenarios to run; 0: what suits the mode")
	seedFlag   = flag.Int64("sim.seed", -1, "run this one random scenario, and write its capture; with -sim.seeds, that many from it on")
	pcapFlag   = flag.String("sim.pcap", "", "where to write the capture of a failing or single scenario")
	updateFlag = flag.Bool("sim.update", false, "rewrite testdata/goodput.txt")
)

// defaultSeeds is how many scenarios a run of the tests takes.
func defaultSeeds() int {
	switch {
	case *seedsFlag > 0:
		return *seedsFlag
	case raceEnabled:
		return 150
	case testing.Short():
		return 300
	}
	return 5000
}

// TestRandomScenarios runs scenario after scenario. Of one that fails it prints
// the command that runs it again, and writes a capture.
func TestRandomScenarios(t *testing.T) {
	first, n := uint64(0), defaultSeeds()
	if *seedFlag >= 0 {
		first, n = uint64(*seedFlag), max(1, *seedsFlag)
	}
	single := *seedFlag >= 0 && n == 1
	failed := 0
	var sum Result
	for seed := first; seed < first+uint64(n) && failed < 5; seed++ {
		r, err := Run(Draw(seed), nil)
		sum.Bytes += r.Bytes
		sum.Frames += r.Frames
		sum.Lost += r.Lost
		sum.Timeouts += r.Timeouts
		sum.Wrapped += r.Wrapped
		sum.Time += r.Time
		if err != nil {
			failed++
			report(t, seed, err)
		} else if single {
			t.Logf("%v\n%+v\ncapture: %s", Draw(seed), r, writeCapture(t, seed))
		}
	}
	t.Logf("%d scenarios: %d frames, %d of them lost, %d bytes read, %d streams over 2³², %d ends timed out, %v of virtual time",
		n, sum.Frames, sum.Lost, sum.Bytes, sum.Wrapped, sum.Timeouts, sum.Time)
	if !single && failed == 0 && (sum.Lost < n || sum.Wrapped < n/20 || sum.Bytes < 1000*n) {
		t.Error("the scenarios are too tame to show anything")
	}
}

func report(t *testing.T, seed uint64, err error) {
	t.Errorf("seed %d: %v\n%v\ncapture: %s\nto repeat: go test ./netstack/sim -run TestRandomScenarios -sim.seed %d",
		seed, err, Draw(seed), writeCapture(t, seed), seed)
}

// writeCapture runs a scenario once more to capture it, in a directory that
// outlives the test.
func writeCapture(t *testing.T, seed uint64) string {
	path := *pcapFlag
	if path == "" {
		dir, err := os.MkdirTemp("", "sbxnet-sim-")
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, fmt.Sprintf("seed-%d.pcap", seed))
	}
	var c Capture
	Run(Draw(seed), &c) // it fails as it did before
	if err := os.WriteFile(path, c.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(20) {
		var a, b Capture
		ra, erra := Run(Draw(seed), &a)
		rb, errb := Run(Draw(seed), &b)
		if ra != rb || !reflect.DeepEqual(erra, errb) || string(a.Bytes()) != string(b.Bytes()) {
			t.Fatalf("seed %d: %+v, then %+v", seed, ra, rb)
		}
	}
}

func TestCleanPathLosesNothing(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for dialer := range 2 {
			s := bulk(0, 10*time.Millisecond, 1<<20, "cubic")
			s.Conns[0].IPv6, s.Conns[0].Dialer = ipv6, dialer
			s.Path[0].Rate, s.Path[1].Rate = 0, 0
			r, err := Run(s, nil)
			if err != nil || r.Lost != 0 || r.Bytes != bulkBytes {
				t.Errorf("ipv6 %v dialer %d: %+v, %v", ipv6, dialer, r, err)
			}
		}
	}
}
