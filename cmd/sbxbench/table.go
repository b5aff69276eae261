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
	Machine  machine  `json:"machine"`
	Networks []string `json:"networks"`
	Rows     []*row   `json:"rows"`
	Problems []string `json:"problems,omitempty"`
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
func (r *row) cell(network string, markdown bool) string {
	m, ok := r.Values.median(network)
	if !ok {
		return "–"
	}
	text := figure(m)
	if s := r.Values.spread(network); s > 0 && !markdown {
		text += fmt.Sprintf(" ±%.0f%%", s*50)
	}
	if ratio, ok := r.Values.ratio(network); ok && network != "native" {
		text += fmt.Sprintf(" %.2f×", ratio)
	}
	return text
}

func figure(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *report) text(w io.Writer) {
	fmt.Fprintln(w, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\t"+strings.Join(r.Networks, "\t"))
	for _, row := range r.Rows {
		fmt.Fprint(t, row.title())
		for _, n := range r.Networks {
			fmt.Fprint(t, "\t"+row.cell(n, false))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	r.problems(w)
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n| |%s|\n|---|%s\n", r.Machine, strings.Join(r.Networks, "|"), strings.Repeat("---|", len(r.Networks)))
	for _, row := range r.Rows {
		fmt.Fprintf(w, "|%s|", row.title())
		for _, n := range r.Networks {
			fmt.Fprintf(w, "%s|", row.cell(n, true))
		}
		fmt.Fprintln(w)
	}
	r.problems(w)
}

func (r *report) problems(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, "not measured:", strings.ReplaceAll(p, "\n", " "))
	}
}
