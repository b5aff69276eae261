package reactor

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/timer"
)

type handlerFunc func(Events)

func (f handlerFunc) Ready(e Events) { f(e) }

func newLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func turn(t *testing.T, l *Loop, d time.Duration) {
	t.Helper()
	if _, err := l.Wait(l.Clock().Add(d)); err != nil {
		t.Fatal(err)
	}
	l.Dispatch()
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func TestEdgeIsReportedOnce(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	var seen []Events
	if _, err := l.Add(a, Edge, handlerFunc(func(e Events) { seen = append(seen, e) })); err != nil {
		t.Fatal(err)
	}
	turn(t, l, time.Second)
	if len(seen) != 1 || !seen[0].Writable() || seen[0].Readable() {
		t.Fatalf("first turn saw %x, want writable only", seen)
	}
	unix.Write(b, []byte("x"))
	turn(t, l, time.Second)
	turn(t, l, 0)
	if len(seen) != 2 || !seen[1].Readable() {
		t.Fatalf("saw %x, want one more, readable", seen)
	}
	unix.Shutdown(b, unix.SHUT_WR)
	turn(t, l, time.Second)
	if len(seen) != 3 || seen[2]&unix.EPOLLRDHUP == 0 {
		t.Fatalf("saw %x, want the half-close reported", seen)
	}
}

func TestStaleEventFindsNobody(t *testing.T) {
	l := newLoop(t)
	a, _ := pair(t)
	c, _ := pair(t)
	var first, second, third int
	var tokenC Token
	// Both are writable at once. Whichever runs first lets go of the other and
	// gives its slot to a third.
	steal := func(victim *Token) {
		l.Forget(*victim)
		l.table.add(handlerFunc(func(Events) { third++ }))
	}
	var tokenA Token
	tokenA, _ = l.Add(a, Edge, handlerFunc(func(Events) { first++; steal(&tokenC) }))
	tokenC, _ = l.Add(c, Edge, handlerFunc(func(Events) { second++; steal(&tokenA) }))
	turn(t, l, time.Second)
	if first+second != 1 || third != 0 {
		t.Fatalf("first %d, second %d, third %d: a stale event was delivered", first, second, third)
	}
}

func TestForgettingTwiceHarmsNobody(t *testing.T) {
	l := newLoop(t)
	a, _ := pair(t)
	k, err := l.Add(a, Edge, handlerFunc(func(Events) {}))
	if err != nil {
		t.Fatal(err)
	}
	l.Remove(a, k)
	n := 0
	k2, err := l.Add(a, Edge, handlerFunc(func(Events) { n++ }))
	if err != nil {
		t.Fatal(err)
	}
	l.Forget(k)
	l.Forget(Token{})
	turn(t, l, time.Second)
	if n != 1 || k2 == k {
		t.Fatalf("handler called %d times, tokens %v and %v", n, k, k2)
	}
}

func TestWaitEndsAtDeadlineAndNotBefore(t *testing.T) {
	l := newLoop(t)
	l.Wait(0)
	for _, d := range []time.Duration{3500 * time.Microsecond, 1, 20 * time.Millisecond, time.Millisecond} {
		deadline := l.Clock().Add(d)
		now := sleepUntil(t, l, deadline)
		if now < deadline {
			t.Errorf("a wait of %v ended %v early", d, deadline.Sub(now))
		}
	}
}

// sleepUntil waits as a shard does, again and again until the deadline.
func sleepUntil(t *testing.T, l *Loop, deadline timer.Instant) timer.Instant {
	t.Helper()
	for began := time.Now(); ; {
		now, err := l.Wait(deadline)
		if err != nil {
			t.Fatal(err)
		}
		l.Dispatch()
		if now >= deadline {
			return now
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("the loop is awake, the deadline %v away", deadline.Sub(now))
		}
	}
}

func TestDeadlineThatMovesAwayCostsOneWakeUp(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	var buf [8]byte
	l.Add(a, Level, handlerFunc(func(Events) { unix.Read(a, buf[:]) }))
	const ahead = 40 * time.Millisecond
	for range 100 { // each event puts the deadline off
		unix.Write(b, buf[:1])
		turn(t, l, ahead)
	}
	deadline := l.Clock().Add(ahead)
	waits := 0
	for now := l.Now(); now < deadline; waits++ {
		var err error
		if now, err = l.Wait(deadline); err != nil {
			t.Fatal(err)
		}
		l.Dispatch()
	}
	if waits > 2 {
		t.Errorf("woke %d times up to the last deadline, want the stale alarm and the deadline itself", waits)
	}
}

func TestEarlierDeadlineIsNotSleptThrough(t *testing.T) {
	l := newLoop(t)
	l.alarm.setFor(l.Clock().Add(time.Hour), l.Clock(), int64(time.Hour))
	began := time.Now()
	sleepUntil(t, l, l.Clock().Add(5*time.Millisecond))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("slept %v for a deadline in 5 ms", took)
	}
}

func TestPostWakesTheLoopFromOtherGoroutines(t *testing.T) {
	l := newLoop(t)
	const posters, each = 8, 100
	ran := 0
	var wg sync.WaitGroup
	for range posters {
		wg.Go(func() {
			for range each {
				l.Post(func() { ran++ })
			}
		})
	}
	for ran < posters*each {
		if _, err := l.Wait(timer.Never); err != nil {
			t.Fatal(err)
		}
		l.Dispatch()
	}
	wg.Wait()
}

func TestWhatAPostedClosurePostsRunsInTheNextTurn(t *testing.T) {
	l := newLoop(t)
	var order []int
	l.Post(func() { order = append(order, 1); l.Post(func() { order = append(order, 2) }) })
	turn(t, l, time.Second)
	if len(order) != 1 {
		t.Fatalf("ran %v in one turn", order)
	}
	turn(t, l, time.Second)
	if len(order) != 2 {
		t.Fatalf("ran %v in two turns", order)
	}
}

func TestPostAfterCloseIsRefused(t *testing.T) {
	l, err := New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if l.Post(func() {}) {
		t.Error("a closed loop accepted a closure")
	}
	l.Wake()
}

func TestTurnDoesNotAllocate(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	var buf [8]byte
	l.Add(a, Edge, handlerFunc(func(e Events) { unix.Read(a, buf[:]) }))
	msg := []byte("x")
	if n := testing.AllocsPerRun(200, func() {
		unix.Write(b, msg)
		l.Wait(l.Clock().Add(time.Second))
		l.Dispatch()
		l.Wait(0)
	}); n != 0 {
		t.Errorf("%v allocations in a turn", n)
	}
}
