package tapdev

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// A ring that has been outgrown without being full goes to a huge page at once.
func TestSmallRingGrowsWithBulk(t *testing.T) {
	q, other := tinySocket(t, "none")
	q.dev.info.VnetHeader = true
	q = newQueue(q.dev, q.fd)
	b := make([]byte, q.vnet+60_000)
	in := make([]Received, ringSize)
	for _, state := range []growth{hugeIsDue, hugePages} {
		for range 3 {
			if _, err := unix.Write(other, b); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := q.Read(in); n != 3 || err != nil || q.grown != state {
			t.Fatalf("%d frames, %v, state %d; want 3, and state %d", n, err, q.grown, state)
		}
	}
	if len(q.ring) != ringSize {
		t.Errorf("room for %d frames, want %d", len(q.ring), ringSize)
	}
}

// What has been read lies where it is until the next Read, also on the way to a
// huge page, which a ring that only small reads fill never takes.
func TestRingGrowsWithBulkAndLosesNothing(t *testing.T) {
	q, other := tinySocket(t, "none")
	q.dev.info.VnetHeader = true
	q = newQueue(q.dev, q.fd)
	send := func(n int, mark byte) {
		t.Helper()
		b := bytes.Repeat([]byte{mark}, q.vnet+n)
		clear(b[:q.vnet])
		if _, err := unix.Write(other, b); err != nil {
			t.Fatal(err)
		}
	}
	in := make([]Received, ringSize)
	want := func(n, size int, state growth) {
		t.Helper()
		got, err := q.Read(in)
		if got != n || err != nil || q.grown != state {
			t.Fatalf("%d frames, %v, state %d; want %d, and state %d", got, err, q.grown, n, state)
		}
		for i, r := range in[:got] {
			if !bytes.Equal(r.Data, bytes.Repeat([]byte{byte(i + 1)}, size)) {
				t.Errorf("frame %d is not what was sent", i)
			}
		}
	}
	send(1000, 1)
	want(1, 1000, fewFrames)
	for i := range ringSize {
		send(1000, byte(i+1))
	}
	want(firstFrames, 1000, manyAreDue)
	// The rest is numbered from where the first Read ended.
	if n, err := q.Read(in); n != ringSize-firstFrames || err != nil || q.grown != smallPages || in[0].Data[0] != firstFrames+1 {
		t.Fatalf("%d frames, %v, state %d", n, err, q.grown)
	}
	for range 3 {
		for i := range 3 {
			send(60_000, byte(i+1))
		}
		want(3, 60_000, max(q.grown, hugeIsDue))
		send(1000, 1)
		want(1, 1000, hugePages)
	}
}
