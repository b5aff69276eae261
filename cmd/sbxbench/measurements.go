package main

import (
	"fmt"
	"slices"
	"time"
)

// A measurement is one figure to take from each network.
type measurement struct {
	name string
	mtu  int
	// quick measurements are part of --quick.
	quick     bool
	published bool // the bench is the client, through a published port
	order     order
	value     func(outcome) float64
	unit      string
	// less is true where a smaller figure is the better one.
	less bool
}

func gigabits(o outcome) float64           { return float64(o.Bytes) * 8 / o.Elapsed.Seconds() / 1e9 }
func perSecond(o outcome) float64          { return float64(o.Count) / o.Elapsed.Seconds() }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func p50(o outcome) float64                { return microseconds(o.P50) }
func p99(o outcome) float64                { return microseconds(o.P99) }

const (
	ordinaryMTU = 1500
	largeMTU    = 65520
)

// measurements are grouped by MTU, because changing it takes new sessions.
func measurements() []measurement {
	var all []measurement
	for _, mtu := range []int{ordinaryMTU, largeMTU} {
		for _, streams := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				all = append(all, measurement{
					name: fmt.Sprintf("TCP %s, %d stream%s", way, streams, plural(streams)), mtu: mtu, quick: streams == 1,
					order: order{Load: way, Streams: streams}, value: gigabits, unit: "Gbit/s",
				})
			}
		}
		all = append(all, measurement{name: "TCP both ways", mtu: mtu, order: order{Load: "both", Streams: 1}, value: gigabits, unit: "Gbit/s"})
		if mtu != ordinaryMTU {
			continue
		}
		all = append(all,
			measurement{name: "published, inwards", mtu: mtu, quick: true, published: true, order: order{Load: "up", Streams: 1}, value: gigabits, unit: "Gbit/s"},
			measurement{name: "published, outwards", mtu: mtu, quick: true, published: true, order: order{Load: "down", Streams: 1}, value: gigabits, unit: "Gbit/s"},
			measurement{name: "round trip p50", mtu: mtu, quick: true, order: order{Load: "rtt"}, value: p50, unit: "µs", less: true},
			measurement{name: "round trip p99", mtu: mtu, order: order{Load: "rtt"}, value: p99, unit: "µs", less: true},
			measurement{name: "connect+request+close", mtu: mtu, quick: true, order: order{Load: "requests"}, value: perSecond, unit: "/s"},
			measurement{name: "UDP 64 B received", mtu: mtu, order: order{Load: "udp", Size: 64}, value: perSecond, unit: "/s"},
			measurement{name: "UDP 1400 B received", mtu: mtu, quick: true, order: order{Load: "udp", Size: 1400}, value: perSecond, unit: "/s"},
			measurement{name: "UDP round trip p50", mtu: mtu, order: order{Load: "udp-rtt"}, value: p50, unit: "µs", less: true},
		)
	}
	return all
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

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
func (s samples) ratio(name string) (float64, bool) {
	m, ok := s.median(name)
	n, have := s.median("native")
	if !ok || !have || n == 0 {
		return 0, false
	}
	return m / n, true
}
