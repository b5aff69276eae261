package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// allowed is how much worse a figure may be than in the table it is compared
// with before that counts as a regression.
const allowed = 0.15

// A comparison is how --check holds a figure against an earlier one.
type comparison string

const (
	// never: it is as much the machine's as the network's.
	never comparison = ""
	// byRatio compares ratios to native loopback, each in its own run: absolute
	// figures drift from day to day.
	byRatio comparison = "ratio"
	// byValue compares the figures themselves: there is no native one, or one
	// too small to divide by.
	byValue comparison = "value"
)

// baseline is the table that is checked in, the --json of a run on an otherwise
// idle 2-core machine with cubic. After a change for the better, and only then, it is made
// anew: sbxbench --json >cmd/sbxbench/baseline.json
//
//go:embed baseline.json
var baseline []byte

// earlierReport is the one to compare with: the checked-in table, or file's if
// that is not empty.
func earlierReport(file string) (*report, error) {
	b, name := baseline, "the checked-in table"
	if file != "" {
		name = file
		var err error
		if b, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--against: %w", err)
		}
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w; make it with --json", name, err)
	}
	if len(r.Rows) == 0 {
		return nil, fmt.Errorf("%s: has no figures; make it with --json", name)
	}
	return &r, nil
}

// A verdict is what comparing with an earlier report came to.
type verdict struct {
	Compared int      // figures
	Worse    []string // a line for each that is worse
	// Note says where the two runs' machines differ, empty if they don't.
	Note string
}

// check compares sbxnet's own figures with an earlier report's. A figure that
// the earlier run has and this one tried and failed to take counts as worse;
// what only one of them has set out to measure is not compared.
func (r *report) check(earlier *report) verdict {
	v := verdict{}
	if a, b := earlier.Machine.String(), r.Machine.String(); a != b {
		v.Note = fmt.Sprintf("compared with another machine's table: %s; this is %s", a, b)
	}
	before := map[string]*row{}
	for _, row := range earlier.Rows {
		before[row.title()] = row
	}
	for _, now := range r.Rows {
		then := before[now.title()]
		if then == nil || now.Compare == never {
			continue
		}
		for _, n := range r.Networks {
			if !strings.HasPrefix(n, "sbxnet") {
				continue
			}
			was, had := then.compared(n)
			if !had {
				continue
			}
			v.Compared++
			switch is, has := now.compared(n); {
			case !has:
				v.Worse = append(v.Worse, fmt.Sprintf("%s, %s: not measured, was %s", now.title(), n, then.shown(was)))
			case now.isWorse(is, was):
				v.Worse = append(v.Worse, fmt.Sprintf("%s, %s: %s, was %s", now.title(), n, now.shown(is), then.shown(was)))
			}
		}
	}
	return v
}

// compared is the number that stands for a network in comparisons; false if it
// was not measured.
func (r *row) compared(network string) (float64, bool) {
	if r.Compare == byRatio {
		return r.Values.ratio(network)
	}
	return r.Values.median(network)
}

func (r *row) shown(v float64) string {
	if r.Compare == byRatio {
		return fmt.Sprintf("%.2f× native", v)
	}
	return strings.TrimSpace(short(v) + " " + r.Unit)
}

// isWorse holds to the 15 %. Where values are compared the difference must be
// one that means something, too: two wake-ups are not a regression of 100 %.
func (r *row) isWorse(now, then float64) bool {
	if !r.Less {
		return now < then*(1-allowed)
	}
	return now > then*(1+allowed) && now-then > r.Slack
}
