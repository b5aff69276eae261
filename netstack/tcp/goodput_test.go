package tcp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestGoodput is a table of virtual-time goodput in Mbit/s over a round trip of
// 20 ms, by loss rate and buffer size, and floors well below what it shows, so
// that a congestion control that has gone wrong is seen.
func TestGoodput(t *testing.T) {
	floors := []struct {
		loss float64
		mbit [3]float64 // for buffers of 64 KiB, 256 KiB, 1 MiB
	}{
		{0, [3]float64{20, 60, 100}},
		{0.003, [3]float64{10, 12, 12}},
		{0.01, [3]float64{6, 7, 7}},
		{0.03, [3]float64{2, 3, 3}},
		{0.10, [3]float64{0.5, 0.5, 0.5}},
	}
	for _, cc := range []string{"cubic", "newreno"} {
		var table strings.Builder
		fmt.Fprintf(&table, "\n%-8s %8s %8s %8s\n", cc, "64K", "256K", "1M")
		for _, row := range floors {
			fmt.Fprintf(&table, "%7.1f%%", row.loss*100)
			for i, buffer := range []int{64 << 10, 256 << 10, 1 << 20} {
				cfg := testConfig()
				cfg.SendBuffer, cfg.ReceiveBuffer, cfg.Congestion = buffer, buffer, cc
				const n = 4 << 20
				path := impairment{delay: 10 * time.Millisecond, loss: row.loss}
				took := transfer(t, 5, path, cfg, cfg, n, 0)
				mbit := n * 8 / took.Seconds() / 1e6
				fmt.Fprintf(&table, " %8.2f", mbit)
				if mbit < row.mbit[i] {
					t.Errorf("%s, loss %.1f%%, buffer %d: %.2f Mbit/s, want %.2f", cc, row.loss*100, buffer, mbit, row.mbit[i])
				}
			}
			table.WriteByte('\n')
		}
		t.Log(table.String())
	}
}
