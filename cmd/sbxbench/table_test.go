package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample() *report {
	return &report{
		Networks: []string{"native", "sbxnet"},
		Rows: []*row{
			{Name: "TCP up", MTU: 1500, Unit: "Gbit/s", Values: samples{"native": {50, 40, 60}, "sbxnet": {25, 30, 20}}},
			{Name: "round trip p50", Unit: "µs", Less: true, Values: samples{"native": {10}, "sbxnet": {14}}},
		},
	}
}

func TestTableShowsMediansSpreadAndRatio(t *testing.T) {
	var out bytes.Buffer
	sample().text(&out)
	for _, want := range []string{"TCP up, MTU 1500 (Gbit/s)", "50.0 ±20%", "25.0 ±20% 0.50×", "14.0 1.40×"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestCheckFindsWhatBecameWorseInEitherSense(t *testing.T) {
	file := filepath.Join(t.TempDir(), "before.json")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := sample().json(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	now := sample()
	if worse, err := now.check(file); err != nil || len(worse) != 0 {
		t.Fatalf("the same report is worse than itself: %v %v", worse, err)
	}
	now.Rows[0].Values["sbxnet"] = []float64{21}
	now.Rows[1].Values["sbxnet"] = []float64{17}
	worse, err := now.check(file)
	if err != nil || len(worse) != 2 {
		t.Fatalf("%v %v", worse, err)
	}
	now.Rows[0].Values["sbxnet"] = []float64{22}
	now.Rows[1].Values["sbxnet"] = []float64{16}
	if worse, _ := now.check(file); len(worse) != 0 {
		t.Errorf("within 15 %% counts as worse: %v", worse)
	}
}

func TestEveryLoadRunsOnLoopback(t *testing.T) {
	s, err := serve("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, m := range measurements() {
		o := m.order
		o.Addr, o.Duration = at("127.0.0.1", s.port()), 20*time.Millisecond
		r := perform(o)
		if r.Error != "" || m.value(r) <= 0 {
			t.Errorf("%s: %+v", m.name, r)
		}
	}
}
