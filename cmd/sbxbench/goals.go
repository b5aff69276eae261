package main

import "fmt"

// A goal is what sbxnet promises of a figure, as a median on a machine with two
// cores and cubic.
type goal struct {
	figure, network string
	mtu             int
	// base is the network that bound is a ratio to; empty: bound is a value.
	base  string
	bound float64
	less  bool // bound is the most, not the least
}

// receiveAll is the net.core.rmem_max from which a packet link's buffer holds
// all that its windows may bring.
const receiveAll = 4 << 20

func goals(m machine) []goal {
	native := func(figure string, mtu int, bound float64) goal {
		return goal{figure: figure, network: "sbxnet", mtu: mtu, base: "native", bound: bound}
	}
	most := func(figure string, bound float64) goal {
		return goal{figure: figure, network: "sbxnet", bound: bound, less: true}
	}
	roundTrip := native("round trip p50", ordinaryMTU, 1.6)
	roundTrip.less = true
	all := []goal{
		native("published, inwards", ordinaryMTU, 0.50),
		native("published, outwards", ordinaryMTU, 0.50),
		roundTrip,
		native("connect+request+close", ordinaryMTU, 0.55),
		native("UDP 1400 B received", ordinaryMTU, 0.90),
		most(startToExitOfTrue, 30),
		most(residentIdle, 20),
		most(residentLoaded, 120),
		most(wakeUps, 0),
	}
	for _, way := range []string{"up", "down"} {
		one, eight := "TCP "+way+", 1 stream", "TCP "+way+", 8 streams"
		all = append(all,
			native(one, ordinaryMTU, 0.50), native(one, largeMTU, 0.55),
			native(eight, ordinaryMTU, 0.45), native(eight, largeMTU, 0.45))
		for _, mtu := range []int{ordinaryMTU, largeMTU} {
			packet := goal{figure: one, network: "sbxnet packet", mtu: mtu, base: "sbxnet", bound: 0.80}
			if m.ReceiveMax < receiveAll {
				packet.base, packet.bound = "native", 0.30
			}
			all = append(all, packet)
		}
	}
	return all
}

// missed returns a line for each goal that this run took the figure of and did
// not reach, and how many it took the figure of.
func (r *report) missed() (lines []string, taken int) {
	for _, g := range goals(r.Machine) {
		row := r.row(g.figure, g.mtu)
		if row == nil {
			continue
		}
		is, ok := row.Values.median(g.network)
		if g.base != "" {
			is, ok = row.Values.ratioTo(g.base, g.network)
		}
		if !ok {
			continue
		}
		taken++
		if g.less && is > g.bound || !g.less && is < g.bound {
			lines = append(lines, fmt.Sprintf("%s, %s: %s", row.title(), g.network, g.said(is)))
		}
	}
	return lines, taken
}

func (g goal) said(is float64) string {
	bound, sense := g.bound, "at least"
	if g.less {
		sense = "at most"
	}
	if g.base == "" {
		return fmt.Sprintf("%s, %s %s wanted", short(is), sense, short(bound))
	}
	return fmt.Sprintf("%.2f× %s, %s %.2f× wanted", is, g.base, sense, bound)
}

func (r *report) row(name string, mtu int) *row {
	for _, row := range r.Rows {
		if row.Name == name && row.MTU == mtu {
			return row
		}
	}
	return nil
}
