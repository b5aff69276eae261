package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A factor is one thing that a link may be told in more ways than one.
type factor struct {
	name   string
	levels []string
}

// offloadFactors are everything that decides who cuts, joins and sums what.
var offloadFactors = []factor{
	{"link", []string{"tap", "packet"}},
	{"num-network-channels", []string{"1", "4"}},
	{"mtu", []string{"1500", "65520"}},
	{"gso", []string{"true", "false"}},
	{"software-gso", []string{"true", "false"}},
	{"gro", []string{"true", "false"}},
	{"tx-checksum-offload", []string{"true", "false"}},
	{"rx-checksum-offload", []string{"true", "false"}},
}

// A combination has one level, by its index, of each factor.
type combination []int

func (c combination) flags(factors []factor) []string {
	var flags []string
	for i, f := range factors {
		flags = append(flags, "--"+f.name+"="+f.levels[c[i]])
	}
	return flags
}

// everyCombination of the factors' levels.
func everyCombination(factors []factor) []combination {
	all := []combination{{}}
	for _, f := range factors {
		var longer []combination
		for _, c := range all {
			for level := range f.levels {
				longer = append(longer, append(slices.Clone(c), level))
			}
		}
		all = longer
	}
	return all
}

// pairwise are few combinations in which any two levels of any two factors meet
// at least once: most of what goes wrong takes two.
func pairwise(factors []factor) []combination {
	open := map[pair]bool{}
	all := everyCombination(factors)
	for _, c := range all {
		for _, p := range c.pairs() {
			open[p] = true
		}
	}
	var chosen []combination
	for len(open) > 0 {
		best, covers := combination(nil), 0
		for _, c := range all {
			n := 0
			for _, p := range c.pairs() {
				if open[p] {
					n++
				}
			}
			if n > covers {
				best, covers = c, n
			}
		}
		chosen = append(chosen, best)
		for _, p := range best.pairs() {
			delete(open, p)
		}
	}
	return chosen
}

// A pair is two levels of two factors.
type pair struct{ factor, level, otherFactor, otherLevel int }

func (c combination) pairs() []pair {
	var pairs []pair
	for i := range c {
		for j := range c[:i] {
			pairs = append(pairs, pair{i, c[i], j, c[j]})
		}
	}
	return pairs
}

// With every combination of offloads, links, queues and MTUs each byte arrives
// as it was sent, over TCP and UDP, IPv4 and IPv6, out of the sandbox and into
// it at once. The race detector is slow: with it, and with -short, any two
// levels of any two factors meet.
func TestSpeedOffloadsInEachCombination(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	needTAP(t)
	combinations := everyCombination(offloadFactors)
	if raceEnabled || testing.Short() {
		combinations = pairwise(offloadFactors)
	}
	seed := speedSeed(t)
	began := time.Now()
	for i, c := range combinations {
		flags := c.flags(offloadFactors)
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			carryBothWays(t, flags, load{seed: seed + uint64(i)<<8, count: 8, at: 4})
		})
	}
	t.Logf("%d combinations in %v", len(combinations), time.Since(began).Round(time.Second))
}

func TestSpeedPairwiseMeetsEachPair(t *testing.T) {
	chosen := pairwise(offloadFactors)
	met := map[pair]bool{}
	for _, c := range chosen {
		for _, p := range c.pairs() {
			met[p] = true
		}
	}
	all := everyCombination(offloadFactors)
	for _, c := range all {
		for _, p := range c.pairs() {
			if !met[p] {
				t.Fatalf("no combination has both --%s and --%s", offloadFactors[p.factor].name, offloadFactors[p.otherFactor].name)
			}
		}
	}
	if len(all) != 256 || len(chosen) > 12 {
		t.Errorf("%d combinations, %d chosen", len(all), len(chosen))
	}
	if got := fmt.Sprint(all[255].flags(offloadFactors)[:3]); got != "[--link=packet --num-network-channels=4 --mtu=65520]" {
		t.Errorf("%s", got)
	}
}
