package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckFindsWhatBecameWorseInEitherSense(t *testing.T) {
	set := func(row int, network string, v float64) func(*report) {
		return func(r *report) { r.Rows[row].Values[network] = []float64{v} }
	}
	for _, c := range []struct {
		name   string
		change func(*report)
		worse  string // how the one line begins; empty: none
	}{
		{"nothing", func(*report) {}, ""},
		{"slower by 14 %", set(0, "sbxnet", 21.5), ""},
		{"slower by 16 %", set(0, "sbxnet", 21), "TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet: 0.42× native, was 0.50× native"},
		{"faster", set(0, "sbxnet", 50), ""},
		{"the machine is slower, and sbxnet with it", func(r *report) { set(0, "native", 25)(r); set(0, "sbxnet", 12)(r); set(0, "sbxnet no GSO", 2.4)(r) }, ""},
		{"native is faster, and sbxnet is not", func(r *report) { set(0, "native", 60)(r); set(0, "sbxnet no GSO", 6)(r) }, "TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet: 0.42×"},
		{"later by 16 %", set(1, "sbxnet", 16.3), "round trip p50, MTU 1500 (µs), sbxnet: 1.63×"},
		{"later by 14 %", set(1, "sbxnet", 15.9), ""},
		{"a longer tail", set(2, "sbxnet", 300), ""},
		{"a wake-up or two", set(3, "sbxnet", 2), ""},
		{"a timer that ticks", set(3, "sbxnet", 10), "wake-ups, idle (in 10s), sbxnet: 10.0 in 10s, was 0 in 10s"},
		{"a peer", set(0, "pasta", 0.1), ""},
		{"a variant", set(0, "sbxnet no GSO", 4), "TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet no GSO: 0.08×"},
		{"it failed", func(r *report) { delete(r.Rows[0].Values, "sbxnet") }, "TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet: not measured, was 0.50×"},
		{"a variant is not part of the run", func(r *report) {
			r.Networks = r.Networks[:3]
			delete(r.Rows[0].Values, "sbxnet no GSO")
		}, ""},
		{"a row is not part of the run", func(r *report) { r.Rows = r.Rows[1:] }, ""},
	} {
		now := sample()
		c.change(now)
		v := now.check(sample())
		switch {
		case v.Compared == 0:
			t.Errorf("%s: nothing compared", c.name)
		case c.worse == "" && len(v.Worse) != 0,
			c.worse != "" && (len(v.Worse) != 1 || !strings.HasPrefix(v.Worse[0], c.worse)):
			t.Errorf("%s: %q, want %q", c.name, v.Worse, c.worse)
		}
	}
}

func TestCheckSaysWhoseTableItIs(t *testing.T) {
	now := sample()
	if v := now.check(sample()); v.Note != "" {
		t.Errorf("%q", v.Note)
	}
	now.Machine.CongestionControl = "bbr"
	if v := now.check(sample()); !strings.Contains(v.Note, "cubic") || !strings.Contains(v.Note, "bbr") {
		t.Errorf("%q", v.Note)
	}
}

func TestJudgement(t *testing.T) {
	for _, c := range []struct {
		verdict
		want string
	}{
		{verdict{Compared: 3}, ""},
		{verdict{}, "none of this run's figures"},
		{verdict{Compared: 3, Worse: []string{"a line"}}, "1 of 3 figures are more than 15 % worse"},
	} {
		var said strings.Builder
		err := judge(&said, c.verdict)
		for _, line := range c.Worse {
			if !strings.Contains(said.String(), line) {
				t.Errorf("no %q in %q", line, said.String())
			}
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c.verdict, err)
		}
	}
}

func TestEarlierReportsAreReadFromFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "before.json")
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := earlierReport(file)
	if err != nil || len(r.Rows) != len(sample().Rows) {
		t.Fatalf("%v, %+v", err, r)
	}
	if _, err := earlierReport(file + "x"); err == nil || !strings.HasPrefix(err.Error(), "--against: ") {
		t.Errorf("%v", err)
	}
	for _, wrong := range []string{"| | native |", "{}", ""} {
		if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := earlierReport(file); err == nil || !strings.Contains(err.Error(), "make it with --json") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestTheCheckedInTableCanBeComparedWith(t *testing.T) {
	earlier, err := earlierReport("")
	if err != nil {
		t.Fatal(err)
	}
	if v := earlier.check(earlier); v.Compared < 20 || len(v.Worse) != 0 || v.Note != "" {
		t.Errorf("compared with itself: %+v", v)
	}
}

func TestGoalsMissedAreNamed(t *testing.T) {
	r := sample()
	if lines, taken := r.missed(); len(lines) != 0 || taken != 3 {
		t.Errorf("%q, %d", lines, taken)
	}
	r.Rows[0].Values["sbxnet"] = []float64{24}
	r.Rows[0].Values["sbxnet packet"] = []float64{12}
	r.Rows[1].Values["sbxnet"] = []float64{17}
	r.Rows[3].Values["sbxnet"] = []float64{1}
	lines, taken := r.missed()
	want := []string{
		"round trip p50, MTU 1500 (µs), sbxnet: 1.70× native, at most 1.60× wanted",
		"wake-ups, idle (in 10s), sbxnet: 1.00, at most 0 wanted",
		"TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet: 0.48× native, at least 0.50× wanted",
		"TCP up, 1 stream, MTU 1500 (Gbit/s), sbxnet packet: 0.24× native, at least 0.30× wanted",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") || taken != 4 {
		t.Errorf("%d taken:\n%s", taken, strings.Join(lines, "\n"))
	}
	r.Machine.ReceiveMax = receiveAll
	lines, _ = r.missed()
	if want := "sbxnet packet: 0.50× sbxnet, at least 0.80× wanted"; !strings.HasSuffix(lines[3], want) {
		t.Errorf("%q, want %q", lines[3], want)
	}
}

// A goal for a figure that no run takes could never be missed.
func TestGoalsAreForFiguresThatAreTaken(t *testing.T) {
	taken := map[string]bool{startToExitOfTrue: true, residentIdle: true, residentLoaded: true, wakeUps: true}
	for _, m := range measurements() {
		for _, f := range m.figures {
			taken[(&row{Name: f.name, MTU: m.mtu}).title()] = true
		}
	}
	for _, g := range goals(machine{}) {
		if title := (&row{Name: g.figure, MTU: g.mtu}).title(); !taken[title] {
			t.Errorf("nothing takes %s", title)
		}
	}
}

// What --check compares with is what is promised, or better.
func TestCheckedInTableReachesEveryGoal(t *testing.T) {
	r, err := earlierReport("")
	if err != nil {
		t.Fatal(err)
	}
	lines, taken := r.missed()
	if len(lines) != 0 || taken != len(goals(r.Machine)) {
		t.Errorf("missed of %d, with the figures of %d:\n%s", len(goals(r.Machine)), taken, strings.Join(lines, "\n"))
	}
}
