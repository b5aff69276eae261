package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// allowed is how much worse a ratio may be than in the table it is compared
// with before that counts as a regression.
const allowed = 0.15

// check compares this run's ratios of sbxnet's own networks with an earlier
// report's, and returns a line for each that is worse.
func (r *report) check(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--check: %w", err)
	}
	var earlier report
	if err := json.Unmarshal(b, &earlier); err != nil {
		return nil, fmt.Errorf("--check %s: %w; make it with --json", file, err)
	}
	before := map[string]*row{}
	for _, row := range earlier.Rows {
		before[row.title()] = row
	}
	var worse []string
	for _, now := range r.Rows {
		then := before[now.title()]
		if then == nil {
			continue
		}
		for _, n := range r.Networks {
			if !strings.HasPrefix(n, "sbxnet") {
				continue
			}
			a, had := then.Values.ratio(n)
			b, has := now.Values.ratio(n)
			if !had || !has {
				continue
			}
			if now.Less && b > a*(1+allowed) || !now.Less && b < a*(1-allowed) {
				worse = append(worse, fmt.Sprintf("%s, %s: %.2f× native, was %.2f×", now.title(), n, b, a))
			}
		}
	}
	return worse, nil
}
