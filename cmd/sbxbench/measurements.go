package main

import (
	"fmt"
	"time"
)

// A measurement is one load that each network carries, and the figures to read
// off its outcome.
type measurement struct {
	mtu int
	// quick measurements are part of --quick.
	quick bool
	// variants: variants of sbxnet take it too, because what they change shows
	// in it.
	variants bool
	// published: the bench is the client, through a published port.
	published bool
	order     order
	figures   []figure
}

// A figure is one number of an outcome.
type figure struct {
	name, unit string
	// less is true where a smaller figure is the better one.
	less bool
	// compare says how --check holds it against an earlier one.
	compare comparison
	value   func(outcome) float64
}

func (m measurement) String() string { return m.figures[0].name }

func gigabits(o outcome) float64           { return float64(o.Bytes) * 8 / o.Elapsed.Seconds() / 1e9 }
func perSecond(o outcome) float64          { return float64(o.Count) / o.Elapsed.Seconds() }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func p50(o outcome) float64                { return microseconds(o.P50) }
func p99(o outcome) float64                { return microseconds(o.P99) }

const (
	ordinaryMTU = 1500
	largeMTU    = 65520
)

func speed(name string) []figure {
	return []figure{{name: name, unit: "Gbit/s", compare: byRatio, value: gigabits}}
}

func rate(name string) []figure {
	return []figure{{name: name, unit: "/s", compare: byRatio, value: perSecond}}
}

// latency is the median and the tail. The tail is as much the machine's as the
// network's, and swings: it is shown, not compared.
func latency(name string, compare comparison) []figure {
	return []figure{
		{name: name + " p50", unit: "µs", less: true, compare: compare, value: p50},
		{name: name + " p99", unit: "µs", less: true, compare: never, value: p99},
	}
}

// measurements are grouped by MTU, because changing it takes new sessions.
func measurements() []measurement {
	var all []measurement
	for _, mtu := range []int{ordinaryMTU, largeMTU} {
		for _, streams := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				all = append(all, measurement{
					mtu: mtu, quick: streams == 1, variants: mtu == ordinaryMTU,
					order:   order{Load: way, Streams: streams},
					figures: speed(fmt.Sprintf("TCP %s, %d stream%s", way, streams, plural(streams))),
				})
			}
		}
		all = append(all, measurement{mtu: mtu, order: order{Load: "both", Streams: 1}, figures: speed("TCP both ways at once")})
	}
	return append(all,
		measurement{mtu: ordinaryMTU, quick: true, published: true, order: order{Load: "up", Streams: 1}, figures: speed("published, inwards")},
		measurement{mtu: ordinaryMTU, quick: true, published: true, order: order{Load: "down", Streams: 1}, figures: speed("published, outwards")},
		measurement{mtu: ordinaryMTU, quick: true, order: order{Load: "rtt"}, figures: latency("round trip", byRatio)},
		measurement{mtu: ordinaryMTU, quick: true, order: order{Load: "requests"}, figures: rate("connect+request+close")},
		measurement{mtu: ordinaryMTU, order: order{Load: "udp", Size: 64}, figures: rate("UDP 64 B received")},
		measurement{mtu: ordinaryMTU, quick: true, variants: true, order: order{Load: "udp", Size: 1400}, figures: rate("UDP 1400 B received")},
		measurement{mtu: ordinaryMTU, order: order{Load: "udp-rtt"}, figures: latency("UDP round trip", never)},
	)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
