package impair

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is an impaired end of a link in memory, and its plain other end.
func pair(t testing.TB, spec Spec) (near tapdev.Link, far *tapdev.Channel) {
	t.Helper()
	a, b := tapdev.NewChannel(1500, tapdev.WithCapacity(2000))
	near, err := Wrap(a, spec)
	check(t, err)
	t.Cleanup(func() { near.Close(); b.Close() })
	return near, b
}

// readable waits for the descriptor as a reactor does: in an epoll set of its
// own, level-triggered.
func readable(t testing.TB, fd int, within time.Duration) bool {
	t.Helper()
	ep, err := unix.EpollCreate1(0)
	check(t, err)
	defer unix.Close(ep)
	check(t, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}))
	var events [1]unix.EpollEvent
	for deadline := time.Now().Add(within); ; {
		n, err := unix.EpollWait(ep, events[:], int(max(time.Until(deadline), 0).Milliseconds()))
		if err == nil {
			return n > 0
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

// read takes what the queue has, as long as its descriptor says so within the
// time.
func read(t testing.TB, q tapdev.Queue, within time.Duration) (got []uint32) {
	t.Helper()
	in := make([]tapdev.Received, 7)
	for readable(t, q.FD(), within) {
		n, err := q.Read(in)
		check(t, err)
		for _, r := range in[:n] {
			got = append(got, numberOf(r.Data))
		}
	}
	return got
}

func some(from, to uint32) (fs []frame.Frame, ns []uint32) {
	for n := from; n < to; n++ {
		fs = append(fs, *numbered(n, 100))
		ns = append(ns, n)
	}
	return fs, ns
}

func TestNothingAskedForWrapsNothing(t *testing.T) {
	a, _ := tapdev.NewChannel(1500)
	l, err := Wrap(a, Spec{Seed: 1, Limit: 3})
	if err != nil || l != tapdev.Link(a) {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := Wrap(a, Spec{Jitter: 1}); err == nil {
		t.Error("a spec that can't be was taken")
	}
	a.Close()
	if _, err := Wrap(a, Spec{Delay: 1}); err == nil {
		t.Error("a link without a descriptor was taken")
	}
}

func TestFramesWithoutDelayPassInOneCall(t *testing.T) {
	near, far := pair(t, Spec{Loss: 1e-9})
	q := near.Queues()[0]
	frames, want := some(0, 200)
	check(t, q.Write(frames))
	if got := read(t, far, 0); !slices.Equal(got, want) {
		t.Errorf("%d to the sandbox", len(got))
	}
	check(t, far.Write(frames))
	if got := read(t, q, 0); !slices.Equal(got, want) {
		t.Errorf("%d from the sandbox", len(got))
	}
	if readable(t, q.FD(), 0) {
		t.Error("readable with nothing to read")
	}
}

func TestDelayedFramesWakeTheReaderWhenDue(t *testing.T) {
	const delay = 500 * time.Millisecond // what comes in less is on time
	near, far := pair(t, Spec{Delay: delay})
	q := near.Queues()[0]
	frames, want := some(0, 100)
	start := time.Now()
	check(t, far.Write(frames))
	in := make([]tapdev.Received, 64)
	for readable(t, q.FD(), 0) { // moves them into the lane
		if n, err := q.Read(in); n != 0 || err != nil {
			t.Fatalf("%d frames, %v before their time", n, err)
		}
	}
	if !readable(t, q.FD(), 5*time.Second) {
		t.Fatal("nobody says that frames are due")
	}
	if took := time.Since(start); took < delay {
		t.Errorf("readable after %v", took)
	}
	if got := read(t, q, 0); !slices.Equal(got, want) {
		t.Errorf("%d arrived", len(got))
	}

	// The other way, the same descriptor tells that there is something to send.
	start = time.Now()
	check(t, q.Write(frames))
	if got := read(t, far, 0); len(got) != 0 {
		t.Fatalf("%d arrived before their time", len(got))
	}
	if !readable(t, q.FD(), 5*time.Second) || time.Since(start) < delay {
		t.Fatalf("not readable when due, but after %v", time.Since(start))
	}
	if n, err := q.Read(in); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if got := read(t, far, 0); !slices.Equal(got, want) {
		t.Errorf("%d arrived", len(got))
	}
}

func TestFramesDoNotChangeUntilTheNextRead(t *testing.T) {
	near, far := pair(t, Spec{Loss: 1e-9})
	q := near.Queues()[0]
	frames, want := some(0, 20)
	check(t, far.Write(frames))
	in := make([]tapdev.Received, 20)
	n, err := q.Read(in)
	check(t, err)
	more, _ := some(100, 120)
	check(t, far.Write(more))
	check(t, q.Write(more))
	for i, r := range in[:n] {
		if numberOf(r.Data) != want[i] {
			t.Fatalf("frame %d became %d", i, numberOf(r.Data))
		}
	}
}

func TestStatisticsTellBothDirectionsApart(t *testing.T) {
	near, far := pair(t, Spec{Loss: 50, Seed: 3})
	q := near.Queues()[0]
	frames, _ := some(0, 1000)
	check(t, q.Write(frames))
	arrived := uint64(len(read(t, far, 0)))
	check(t, far.Write(frames[:100]))
	came := uint64(len(read(t, q, 0)))
	s, ok := StatsOf(near)
	if !ok || s.ToSandbox.Packets != 1000 || s.ToSandbox.Delivered != arrived || s.ToSandbox.Lost != 1000-arrived ||
		s.FromSandbox.Packets != 100 || s.FromSandbox.Delivered != came || s.FromSandbox.Lost != 100-came || came == 0 || arrived == 0 {
		t.Errorf("%+v; %d arrived, %d came", s, arrived, came)
	}
	if _, ok := StatsOf(far); ok {
		t.Error("a plain link has impairments")
	}
}

func TestEndOfTheLinkIsReported(t *testing.T) {
	near, far := pair(t, Spec{Delay: time.Hour})
	q := near.Queues()[0]
	far.Close()
	if !readable(t, q.FD(), 5*time.Second) {
		t.Fatal("not readable")
	}
	if _, err := q.Read(make([]tapdev.Received, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	check(t, near.Close())
	check(t, near.Close())
}

// fullOnce is a queue that keeps what it is given until a pipe has room.
type fullOnce struct {
	tapdev.Queue
	fd     int
	keeps  bool
	writes int
}

func (f *fullOnce) FD() int                                { return f.fd }
func (f *fullOnce) Read(in []tapdev.Received) (int, error) { return 0, nil }
func (f *fullOnce) Write(out []frame.Frame) error          { f.writes += len(out); return nil }
func (f *fullOnce) Flush() (pending bool, err error)       { return f.keeps, nil }
func (f *fullOnce) Queues() []tapdev.Queue                 { return []tapdev.Queue{f} }
func (f *fullOnce) Stats() tapdev.Stats                    { return tapdev.Stats{} }
func (f *fullOnce) Capabilities() (c frame.Capabilities)   { return c }
func (f *fullOnce) Close() error                           { return nil }

func TestRoomInAFullDeviceMakesTheQueueReadable(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for err = nil; err == nil; {
		_, err = unix.Write(fds[0], make([]byte, 1<<16))
	}
	device := &fullOnce{fd: fds[0], keeps: true}
	l, err := Wrap(device, Spec{Duplicate: 1e-9})
	check(t, err)
	defer l.Close()
	q := l.Queues()[0]
	check(t, q.Write([]frame.Frame{*numbered(1, 100)}))
	if pending, err := q.Flush(); pending || err != nil || device.writes != 1 {
		t.Fatalf("pending %v, %v, %d written", pending, err, device.writes)
	}
	if readable(t, q.FD(), 20*time.Millisecond) {
		t.Fatal("readable while the device is full")
	}
	for err = nil; err == nil; {
		_, err = unix.Read(fds[1], make([]byte, 1<<16))
	}
	if !readable(t, q.FD(), 5*time.Second) {
		t.Fatal("nobody says that the device has room")
	}
	device.keeps = false
	if _, err := q.Read(make([]tapdev.Received, 1)); err != nil {
		t.Fatal(err)
	}
	if readable(t, q.FD(), 20*time.Millisecond) {
		t.Error("still readable when all is sent")
	}
}

func BenchmarkSuperSegment(b *testing.B) {
	near, far := pair(b, Spec{Loss: 1})
	q := near.Queues()[0]
	f := []frame.Frame{*super(make([]byte, 44*1448), 1448)}
	in := make([]tapdev.Received, 64)
	b.SetBytes(44 * 1448)
	b.ReportAllocs()
	for b.Loop() {
		q.Write(f)
		for n := 1; n > 0; {
			n, _ = far.Read(in)
		}
	}
}
