package main

import "slices"

// samples are the figures of one row, by network.
type samples map[string][]float64

// median of the samples of one network; false if there are none.
func (s samples) median(name string) (float64, bool) {
	v := slices.Sorted(slices.Values(s[name]))
	if len(v) == 0 {
		return 0, false
	}
	if len(v)%2 == 1 {
		return v[len(v)/2], true
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2, true
}

// spread is the distance from the smallest to the largest sample, as a
// fraction of the median.
func (s samples) spread(name string) float64 {
	m, ok := s.median(name)
	if !ok || m == 0 {
		return 0
	}
	return (slices.Max(s[name]) - slices.Min(s[name])) / m
}

// ratio to native loopback in the same run; false where there is none.
func (s samples) ratio(name string) (float64, bool) { return s.ratioTo("native", name) }

// ratioTo is the ratio of one network's median to another's.
func (s samples) ratioTo(base, name string) (float64, bool) {
	m, ok := s.median(name)
	n, have := s.median(base)
	if !ok || !have || n == 0 {
		return 0, false
	}
	return m / n, true
}
