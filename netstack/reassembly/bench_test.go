package reassembly

import (
	"testing"
	"time"

	"sbxnet/netstack/timer"
)

// train has a reassembler take whole datagrams of 64 KiB in fragments of 1480
// bytes.
type train struct {
	r      *Reassembler
	now    timer.Instant
	id     uint32
	pieces []Fragment
}

func newTrain() *train {
	b, timers := pattern(60_000), &timer.Queue{}
	t := &train{r: New(Limits{}, 30*time.Second, timers, nil)}
	for at := 0; at < len(b); at += 1480 {
		t.pieces = append(t.pieces, cut(b, at, min(at+1480, len(b))))
	}
	return t
}

// datagram reports whether one datagram came together.
func (t *train) datagram() bool {
	t.now = t.now.Add(time.Millisecond)
	t.id++
	key := testKey
	key.ID = t.id
	var d *Datagram
	for _, f := range t.pieces {
		d, _ = t.r.Add(t.now, key, f)
	}
	return d != nil && len(d.Payload) == 60_000
}

func TestReassemblyAllocatesNothingInSteadyUse(t *testing.T) {
	tr := newTrain()
	tr.datagram()
	if n := testing.AllocsPerRun(100, func() {
		if !tr.datagram() {
			t.Fatal("not complete")
		}
	}); n != 0 {
		t.Fatalf("%v allocations per datagram", n)
	}
}

func BenchmarkReassembly(b *testing.B) {
	tr := newTrain()
	b.SetBytes(60_000)
	b.ReportAllocs()
	for b.Loop() {
		tr.datagram()
	}
}
