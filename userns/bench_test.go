package userns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkStart is the time from Start to the end of a command that does
// nothing; with a link it is what sbxnet run -- true has to pay here.
func BenchmarkStart(b *testing.B) {
	for name, cfg := range map[string]Config{"none": unlinked(), "link": linked()} {
		for _, m := range []UserMap{MapSingle, MapAuto} {
			b.Run(name+"/"+string(m), func(b *testing.B) {
				cfg.UserMap = m
				cfg.Command = []string{"true"}
				for b.Loop() {
					sb, err := Start(cfg)
					if err != nil {
						b.Fatal(err)
					}
					if err := sb.Exec(); err != nil {
						b.Fatal(err)
					}
					if status, err := sb.Wait(); status != 0 || err != nil {
						b.Fatal(status, err)
					}
					if err := sb.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSockets is what sockets cost once answers to them are steered: 16 are
// what a forwarder takes at a time.
func BenchmarkSockets(b *testing.B) {
	cfg := linked()
	cfg.Command = []string{"sleep", "1000"}
	sb, err := Start(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer sb.Close()
	for b.Loop() {
		files, err := sb.Sockets(false, 16)
		if err != nil {
			b.Fatal(err)
		}
		closeAll(files)
	}
}

// BenchmarkDivert is what it costs to divert a connection, and to end that, with
// none and with as many as possible of others; cpu-ns is the time of the first
// process's threads for both.
func BenchmarkDivert(b *testing.B) {
	for _, k := range []struct {
		name   string
		to     netip.AddrPort
		others int
	}{{"IPv4", there4, 0}, {"IPv6", there6, 0}, {"IPv4/others", there4, maxDiverted - 1}} {
		b.Run(k.name, func(b *testing.B) {
			cfg := linked()
			cfg.Command = []string{"sleep", "1000"}
			sb, err := Start(cfg)
			must(b, err)
			defer sb.Close()
			must(b, sb.Exec())
			all := connections(b, inside(sb), k.to, false, k.others+1)
			for _, c := range all[1:] {
				must(b, sb.Divert(c.from, c.to))
			}
			before := cpuTime(b, sb.PID())
			for b.Loop() {
				must(b, sb.Divert(all[0].from, all[0].to))
				must(b, sb.Undivert(all[0].from, all[0].to))
			}
			b.ReportMetric(float64(cpuTime(b, sb.PID())-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is that of a process's threads that live.
func cpuTime(b *testing.B, pid int) (sum time.Duration) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	must(b, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(b, err)
		var ns time.Duration
		_, err = fmt.Sscan(string(text), &ns)
		must(b, err)
		sum += ns
	}
	return sum
}
