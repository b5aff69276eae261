package tapdev

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

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
		if got != n || err != nil || q.huge != state {
			t.Fatalf("%d frames, %v, state %d; want %d, and state %d", got, err, q.huge, n, state)
		}
		for i, r := range in[:got] {
			if !bytes.Equal(r.Data, bytes.Repeat([]byte{byte(i + 1)}, size)) {
				t.Errorf("frame %d is not what was sent", i)
			}
		}
	}
	send(1000, 1)
	want(1, 1000, smallPages)
	for range 3 {
		for i := range 3 {
			send(60_000, byte(i+1))
		}
		want(3, 60_000, max(q.huge, hugeIsDue))
		send(1000, 1)
		want(1, 1000, hugePages)
	}
}
