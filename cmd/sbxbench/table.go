package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// report is a run's outcome, as --json prints it and --check reads it.
type report struct {
	Machine machine `json:"machine"`
	// Networks are all; Variants are those of them that are sbxnet with one
	// thing changed, and have a table of their own.
	Networks []string `json:"networks"`
	Variants []string `json:"variants,omitempty"`
	Rounds   int      `json:"rounds"`
	Rows     []*row   `json:"rows"`
	Problems []string `json:"problems,omitempty"`
}

func (b *bench) report() *report {
	r := &report{Machine: thisMachine(), Rounds: b.rounds, Rows: b.rows, Problems: b.problems}
	for _, n := range b.networks {
		r.Networks = append(r.Networks, n.name)
		if n.variant {
			r.Variants = append(r.Variants, n.name)
		}
	}
	return r
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

func (r *row) title() string {
	t := r.Name
	if r.MTU != 0 {
		t += fmt.Sprintf(", MTU %d", r.MTU)
	}
	if r.Unit != "" {
		t += " (" + r.Unit + ")"
	}
	return t
}

// cell is "28.1 ±4% 0.52×": median, half the spread, ratio to native.
func (r *row) cell(network string) string {
	m, ok := r.Values.median(network)
	if !ok {
		return "–"
	}
	text := short(m)
	if s := r.Values.spread(network); s > 0 {
		text += fmt.Sprintf(" ±%.0f%%", s*50)
	}
	if ratio, ok := r.Values.ratio(network); ok && network != "native" {
		text += fmt.Sprintf(" %.2f×", ratio)
	}
	return text
}

// short is a number with three digits that matter.
func short(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// A table is some rows of some networks.
type table struct {
	networks []string
	rows     []*row
}

// tables are the contestants side by side, and the variants of sbxnet beside
// sbxnet as it comes.
func (r *report) tables() []table {
	isVariant := map[string]bool{}
	for _, n := range r.Variants {
		isVariant[n] = true
	}
	main := table{rows: r.Rows}
	for _, n := range r.Networks {
		if !isVariant[n] {
			main.networks = append(main.networks, n)
		}
	}
	if len(r.Variants) == 0 {
		return []table{main}
	}
	variants := table{networks: append([]string{"native", "sbxnet"}, r.Variants...)}
	for _, row := range r.Rows {
		for _, n := range r.Variants {
			if len(row.Values[n]) > 0 {
				variants.rows = append(variants.rows, row)
				break
			}
		}
	}
	return []table{main, variants}
}

func (r *report) text(w io.Writer) {
	fmt.Fprintln(w, r.heading())
	for _, t := range r.tables() {
		fmt.Fprintln(w)
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tab, "\t"+strings.Join(t.networks, "\t"))
		for _, row := range t.rows {
			fmt.Fprint(tab, row.title())
			for _, n := range t.networks {
				fmt.Fprint(tab, "\t"+row.cell(n))
			}
			fmt.Fprintln(tab)
		}
		tab.Flush()
	}
	r.remarks(w)
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintln(w, r.heading())
	for _, t := range r.tables() {
		fmt.Fprintf(w, "\n| | %s |\n|---%s|\n", strings.Join(t.networks, " | "), strings.Repeat("|---", len(t.networks)))
		for _, row := range t.rows {
			fmt.Fprintf(w, "| %s |", row.title())
			for _, n := range t.networks {
				fmt.Fprintf(w, " %s |", row.cell(n))
			}
			fmt.Fprintln(w)
		}
	}
	r.remarks(w)
}

func (r *report) heading() string {
	return fmt.Sprintf("%s. Medians of %d round%s, half their spread, and the ratio to native loopback.", r.Machine, r.Rounds, plural(r.Rounds))
}

// remarks are what does not fit in a table.
func (r *report) remarks(w io.Writer) {
	lines, taken := r.missed()
	if taken > 0 {
		fmt.Fprintf(w, "\n%d of %d goals reached\n", taken-len(lines), taken)
	}
	for _, line := range lines {
		fmt.Fprintln(w, "missed:", line)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, "not measured:", strings.ReplaceAll(p, "\n", " "))
	}
}
