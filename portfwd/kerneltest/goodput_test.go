package kerneltest

import (
	"io"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
)

// TestGoodputFillsAPacedPath sends one way at a time over a path of 100 Mbit/s
// and 40 ms there and back, as a good access line has, and wants most of it to
// be used, slow start included. Other load on the machine can only make it less,
// so it may try three times. A short run, or one under the race detector, goes on
// beside other packages' tests: it looks for a collapse only, and the exact
// figures are those of netstack/sim, in virtual time.
func TestGoodputFillsAPacedPath(t *testing.T) {
	const rate = 100e6
	share, size := 0.70, int64(40*mb)
	if testing.Short() || raceEnabled {
		share, size = 0.35, 20*mb
	}
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		for _, way := range []string{"up", "down"} {
			t.Run(string(kind)+"/"+way, func(t *testing.T) {
				best, possible := 0.0, rate
				for try := 0; try < 3 && best < share*possible; try++ {
					w := newWorld(t, kind, "delay=20ms,rate=100mbit")
					if way == "up" {
						possible = min(rate, w.windowRate(40*time.Millisecond))
					}
					best = max(best, w.goodput(way == "up", size))
				}
				if best < share*possible {
					t.Errorf("%.1f Mbit/s of %.0f, want %.0f %% at least", best/1e6, possible/1e6, share*100)
				}
			})
		}
	}
}

// windowRate is how many bit/s one connection can send to us with a round trip of
// that length. A packet link's windows are half of what its socket may hold, by
// net.core.rmem_max: with the 208 KiB of most systems, 21 Mbit/s over 40 ms.
func (w *world) windowRate(trip time.Duration) float64 {
	held := tapdev.ReceiveBuffer(w.link)
	if held == 0 {
		return math.Inf(1)
	}
	return float64(held/2) * 8 / trip.Seconds()
}

// goodput is what a new connection carries, in bit/s.
func (w *world) goodput(up bool, size int64) float64 {
	t := w.t.(*testing.T)
	t.Helper()
	sandbox, host := w.connect(kernelDials, "4")
	from, to, upSize, downSize := host, sandbox, int64(0), size
	if up {
		from, to, upSize, downSize = sandbox, host, size, 0
		withoutHyStart(t, sandbox)
	}
	start := time.Now()
	got := oneWay(t, from, to, size)
	rate := float64(size) * 8 / time.Since(start).Seconds()
	s, _ := impair.StatsOf(w.link)
	note(t, "%.1f Mbit/s, longest pause %v; from the sandbox %+v, to it %+v", rate/1e6, got.pause.Round(time.Millisecond), s.FromSandbox, s.ToSandbox)
	w.judge(1, upSize, downSize, got.pause)
	return rate
}

// withoutHyStart gives the kernel's sender a slow start that ends with loss or a
// full window. Cubic's ends when the round trip grows, which on a busy machine
// may be at 30 segments, and takes seconds to recover from that.
func withoutHyStart(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
	if err != nil {
		t.Fatal(err)
	}
}

// oneWay sends size bytes and compares what arrives.
func oneWay(t *testing.T, from, to *net.TCPConn, size int64) result {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	from.SetDeadline(deadline)
	to.SetDeadline(deadline)
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{from}, stream(size, 1), make([]byte, 256<<10))
		if err == nil {
			err = from.CloseWrite()
		}
		sent <- err
	}()
	got := receive(to)
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
	got.check(t, size, 1)
	return got
}
