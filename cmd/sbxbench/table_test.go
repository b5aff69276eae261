package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func sample() *report {
	return &report{
		Machine:  machine{Kernel: "6.1", Cores: 2, CongestionControl: "cubic", ReceiveMax: 212992},
		Networks: []string{"native", "sbxnet", "pasta", "sbxnet no GSO"},
		Variants: []string{"sbxnet no GSO"},
		Rounds:   3,
		Rows: []*row{
			{Name: "TCP up, 1 stream", MTU: 1500, Unit: "Gbit/s", Compare: byRatio,
				Values: samples{"native": {50, 40, 60}, "sbxnet": {25, 30, 20}, "pasta": {1, 2, 1}, "sbxnet no GSO": {5, 5, 5}}},
			{Name: "round trip p50", MTU: 1500, Unit: "µs", Less: true, Compare: byRatio, Values: samples{"native": {10}, "sbxnet": {14}}},
			{Name: "round trip p99", MTU: 1500, Unit: "µs", Less: true, Values: samples{"native": {20}, "sbxnet": {30}}},
			{Name: wakeUps, Unit: "in 10s", Less: true, Compare: byValue, Slack: 5, Values: samples{"sbxnet": {0}}},
		},
		Problems: []string{"pasta, MTU 65520: broken\npipe"},
	}
}

func TestTextShowsMediansSpreadAndRatio(t *testing.T) {
	var out bytes.Buffer
	sample().text(&out)
	for _, want := range []string{
		"Linux 6.1, 2 cores, cubic, rmem_max 208 KiB", "TCP up, 1 stream, MTU 1500 (Gbit/s)",
		"50.0 ±20%", "25.0 ±20% 0.50×", "14.0 1.40×", "–",
		"3 of 3 goals reached", "not measured: pasta, MTU 65520: broken pipe\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Columns of variants would make the main table too wide to read; and most of
// its rows they do not have.
func TestVariantsHaveATableOfTheirOwn(t *testing.T) {
	tables := sample().tables()
	if len(tables) != 2 {
		t.Fatalf("%d tables", len(tables))
	}
	if want := []string{"native", "sbxnet", "pasta"}; !reflect.DeepEqual(tables[0].networks, want) || len(tables[0].rows) != 4 {
		t.Errorf("main table: %v, %d rows", tables[0].networks, len(tables[0].rows))
	}
	if want := []string{"native", "sbxnet", "sbxnet no GSO"}; !reflect.DeepEqual(tables[1].networks, want) || len(tables[1].rows) != 1 {
		t.Errorf("variants: %v, %d rows", tables[1].networks, len(tables[1].rows))
	}
}

func TestMarkdownHasAsManyCellsInEachLine(t *testing.T) {
	var out bytes.Buffer
	sample().markdown(&out)
	cells, lines := 0, 0
	for line := range strings.SplitSeq(out.String(), "\n") {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		lines++
		if n := strings.Count(line, "|"); cells == 0 {
			cells = n
		} else if n != cells {
			t.Errorf("%d cells where there are %d: %s", n, cells, line)
		}
	}
	if lines != 2+4+2+1 {
		t.Errorf("%d lines in tables:\n%s", lines, out.String())
	}
}

func TestJSONComesBackAsItWas(t *testing.T) {
	var out bytes.Buffer
	if err := sample().json(&out); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || !reflect.DeepEqual(&got, sample()) {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestMedianAndSpread(t *testing.T) {
	s := samples{"odd": {3, 1, 2}, "even": {4, 1, 3, 2}, "zero": {0, 0}}
	for name, want := range map[string]float64{"odd": 2, "even": 2.5, "zero": 0} {
		if got, ok := s.median(name); !ok || got != want {
			t.Errorf("median of %s: %v, %v", name, got, ok)
		}
	}
	if _, ok := s.median("none"); ok {
		t.Error("a median of nothing")
	}
	if got := s.spread("odd"); got != 1 {
		t.Errorf("spread %v, want 1", got)
	}
	if _, ok := s.ratioTo("zero", "odd"); ok {
		t.Error("a ratio to zero")
	}
}
