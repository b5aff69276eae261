package kerneltest

import (
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
)

var (
	sizeFlag   = flag.Int64("megabytes", 0, "megabytes each way in each case, in place of what the test has")
	impairFlag = flag.String("impair", "", "one impairment to test, in place of those the test has")
)

// stream is n bytes that differ from place to place.
func stream(n int64, seed uint64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), n)
}

// result is how one direction went.
type result struct {
	bytes  int64
	sum    uint32
	pause  time.Duration // the longest time between two pieces
	took   time.Duration // from the first byte to the last
	finish error
}

func receive(from net.Conn) (r result) {
	buf := make([]byte, 256<<10)
	h := crc32.NewIEEE()
	var first, last time.Time
	for {
		n, err := from.Read(buf)
		now := time.Now()
		if n > 0 {
			h.Write(buf[:n])
			r.bytes += int64(n)
			if first.IsZero() {
				first = now
			} else {
				r.pause = max(r.pause, now.Sub(last))
			}
			last = now
			continue
		}
		r.took, r.sum = last.Sub(first), h.Sum32()
		if err != io.EOF {
			r.finish = err
		}
		return r
	}
}

// check compares what arrived with what was sent.
func (r *result) check(t *testing.T, size int64, seed uint64) {
	t.Helper()
	h := crc32.NewIEEE()
	io.CopyBuffer(struct{ io.Writer }{h}, stream(size, seed), make([]byte, 256<<10))
	if r.finish != nil || r.bytes != size || r.sum != h.Sum32() {
		t.Errorf("stream %d: %d bytes with checksum %08x, %v; want %d with %08x", seed, r.bytes, r.sum, r.finish, size, h.Sum32())
	}
}

// swap sends size bytes each way at once, each stream ended by a half-close, and
// compares what arrives.
func swap(t *testing.T, sandbox, host *net.TCPConn, up, down int64) (ups, downs result) {
	t.Helper()
	var wg sync.WaitGroup
	deadline := time.Now().Add(90 * time.Second)
	for _, d := range []struct {
		name     string
		from, to *net.TCPConn
		size     int64
		seed     uint64
		got      *result
	}{{"up", sandbox, host, up, 1, &ups}, {"down", host, sandbox, down, 2, &downs}} {
		d.from.SetDeadline(deadline)
		wg.Go(func() {
			if n, err := io.CopyBuffer(struct{ io.Writer }{d.from}, stream(d.size, d.seed), make([]byte, 256<<10)); err != nil {
				t.Errorf("%s: send after %d bytes: %v", d.name, n, err)
			}
			if err := d.from.CloseWrite(); err != nil {
				t.Errorf("%s: half-close: %v", d.name, err)
			}
		})
		wg.Go(func() {
			*d.got = receive(d.to)
			d.got.check(t, d.size, d.seed)
		})
	}
	wg.Wait()
	return ups, downs
}

// transferCase is one impairment, and how much is sent through it in a short run
// in each of the eight combinations of link, role and family, in MB, half of it
// each way.
type transferCase struct {
	impairment string
	short      int64
}

// transferSize is what every case moves byte-exact in a full run, MB, half of it
// each way. A short run, and one with the race detector, moves little.
const transferSize = 100

var transferCases = []transferCase{
	{"none", 10},
	{"loss=0.1%", 5},
	{"loss=1%", 2},
	{"loss=5%", 1},
	{"loss=2%,burst=4", 1},
	{"reorder=1%", 2},
	{"dup=2%", 5},
	{"corrupt=1%", 1},
	{"delay=10ms,loss=1%", 1},
	{"delay=5ms,jitter=2ms,reorder=1%,dup=1%", 1},
	{"delay=20ms,jitter=5ms,loss=1%,reorder=0.5%,dup=0.5%,rate=100mbit", 1},
}

const mb = 1e6

func TestStreamsAreExactOverImpairedLinks(t *testing.T) {
	cases := transferCases
	if *impairFlag != "" {
		cases = []transferCase{{*impairFlag, 1}}
	}
	for i, c := range cases {
		for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
			for _, r := range []role{kernelDials, stackDials} {
				for _, family := range []string{"4", "6"} {
					name := fmt.Sprintf("%s/%s/%s/IPv%s", c.impairment, kind, r, family)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						transfer(t, kind, r, family, c, i)
					})
				}
			}
		}
	}
}

// short says that the run is to be over soon.
func short() bool { return testing.Short() || raceEnabled }

// eachWay is how much the case sends in each direction, in bytes.
func (c *transferCase) eachWay() int64 {
	switch {
	case *sizeFlag > 0:
		return *sizeFlag * mb
	case short():
		return c.short * mb / 2
	}
	return transferSize * mb / 2
}

func transfer(t *testing.T, kind tapdev.Kind, r role, family string, c transferCase, seed int) {
	impairment := c.impairment
	if !strings.Contains(impairment, "seed=") && impairment != "none" {
		impairment += fmt.Sprintf(",seed=%d", seed)
	}
	w := newWorld(t, kind, impairment)
	n := connections(impairment)
	ups, downs := make([]result, n), make([]result, n)
	each := (c.eachWay() + int64(n) - 1) / int64(n)
	size := each * int64(n)
	sandboxes, hosts := make([]*net.TCPConn, n), make([]*net.TCPConn, n)
	for i := range n {
		sandboxes[i], hosts[i] = w.connect(r, family)
	}
	if strings.Contains(impairment, "burst=") {
		w.chatter(t)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { ups[i], downs[i] = swap(t, sandboxes[i], hosts[i], each, each) })
	}
	wg.Wait()
	up, down := slowest(ups), slowest(downs)
	w.judge(n, size, size, max(up.pause, down.pause))
	for _, d := range []struct {
		name string
		r    result
		sent int64
	}{{"up", up, w.inner.in.Load()}, {"down", down, w.outer.out.Load()}} {
		note(t, "%-5s %7.1f Mbit/s, %5.2f %% sent again, longest pause %v", d.name,
			float64(size)*8/1e6/d.r.took.Seconds(), 100*float64(d.sent-size)/float64(size), d.r.pause.Round(time.Millisecond))
	}
}

// connections is how many share what a case sends: several where a round trip and
// loss keep one slow and the machine idle, and, in a full run, where it waits for
// timeouts most of the time.
func connections(impairment string) int {
	delayed, lossy := strings.Contains(impairment, "delay="), strings.Contains(impairment, "loss=")
	heavy := strings.Contains(impairment, "burst=") || strings.Contains(impairment, "loss=5%")
	switch {
	case delayed && lossy && short():
		return 4
	case delayed && lossy:
		return 24
	case heavy && !short():
		return 8
	}
	return 1
}

// slowest is the longest of the times.
func slowest(rs []result) (r result) {
	for _, one := range rs {
		r.pause, r.took = max(r.pause, one.pause), max(r.took, one.took)
	}
	return r
}

func note(t *testing.T, format string, args ...any) {
	t.Logf(format, args...)
	if os.Getenv("KERNELTEST_NOTES") != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", t.Name(), fmt.Sprintf(format, args...))
	}
}

// mss is the largest payload of a segment here.
const mss = 1460

// overtakenOurs and overtakenLinux are how many segments may go again for one that
// others overtook, on average: that one, when the acknowledgement is late.
//
// Linux may then take the one that was overtaken for its retransmission, and all that
// was sent before that and is under way for lost, half a window
// (tcp_rack_advance, net/ipv4/tcp_recovery.c: it goes by the least round trip, where
// ours goes by timestamps, RFC 8985 §6.2). On a busy machine that is one of forty; a
// short run has six, so that one sets its average.
const (
	overtakenOurs  = 3
	overtakenLinux = 12
)

// judge compares what was sent again with what was lost: for each packet that a
// sender had reason to miss, two may go again, and now and then one as a tail
// loss probe, as on a busy machine acknowledgements come late. Where that made
// everybody pause for a retransmission timeout, a window may go again.
func (w *world) judge(connections int, up, down int64, pause time.Duration) {
	w.t.Helper()
	// As they were sent: a damaged packet may have any flag when it arrives.
	if n := w.inner.inResets.Load() + w.outer.outResets.Load(); n > 0 {
		w.t.Errorf("%d segments with RST", n)
	}
	// One connection's window has room on the way to its shard.
	if n := w.fwd.Stats().HandoverLost; n > 0 && connections == 1 {
		w.t.Errorf("%d frames lost on the way to their shard", n)
	}
	s, _ := impair.StatsOf(w.link)
	for _, d := range []struct {
		name       string
		sent, size int64
		there      impair.Counts
		overtaken  int64
	}{
		{"up", w.inner.in.Load(), up, s.FromSandbox, overtakenLinux},
		{"down", w.outer.out.Load(), down, s.ToSandbox, overtakenOurs},
	} {
		again := d.sent - d.size
		missed := d.there.Lost + d.there.Corrupted + d.there.Overflowed
		probes := 20*int64(connections) + d.size/mb
		if pause > 100*time.Millisecond {
			probes += int64(connections) * (1 << 20 / mss)
		}
		if d.name == "up" && d.there.Reordered > 0 && short() {
			probes += d.size / mss
		}
		if limit := (2*int64(missed) + d.overtaken*int64(d.there.Reordered) + probes) * mss; again < 0 || again > limit {
			w.t.Errorf("%s: %d bytes sent again, with %d packets missed and %d overtaken: want at most %d", d.name, again, missed, d.there.Reordered, limit)
		}
	}
}
