package reactor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLingeringNeedsShortWaitsAndEndsWithLongOnes(t *testing.T) {
	var g lingerer
	for range shortWaits {
		if g.worthwhile() {
			t.Fatal("lingers before waits were short")
		}
		g.waited(lingerTime / 2)
	}
	if !g.worthwhile() {
		t.Fatalf("does not linger after %d short waits", shortWaits)
	}
	for range 1000 {
		g.waited(lingerTime / 2)
	}
	for i := 0; g.worthwhile(); i++ {
		if i == mostShortWaits/longWait {
			t.Fatalf("still lingers after %d long waits", i)
		}
		g.waited(lingerTime)
	}
	g = lingerer{alone: true, short: mostShortWaits}
	if g.worthwhile() {
		t.Error("lingers on the only core there is")
	}
}

// Events that come every few milliseconds are slept for, whatever was before.
func TestLoopThatIsSeldomNeededDoesNotLinger(t *testing.T) {
	l := newLoop(t)
	l.linger.short = mostShortWaits
	a, b := pair(t)
	var buf [8]byte
	l.Add(a, Level, handlerFunc(func(Events) { unix.Read(a, buf[:]) }))
	const events = 40
	for range events {
		time.AfterFunc(3*time.Millisecond, func() { unix.Write(b, []byte("x")) })
		turn(t, l, time.Second)
	}
	// On a busy machine an event may come before the wait for it has begun.
	if l.linger.turns > events/2 {
		t.Errorf("lingered in %d of %d waits", l.linger.turns, events)
	}
}

// What comes while the loop looks is found without sleeping.
func TestLingeringLoopFindsWhatComes(t *testing.T) {
	l := newLoop(t)
	l.linger = lingerer{short: mostShortWaits}
	a, b := pair(t)
	n := 0
	l.Add(a, Edge, handlerFunc(func(e Events) {
		if e.Readable() {
			n++
		}
	}))
	turn(t, l, 0) // the edge that says writable
	go unix.Write(b, []byte("x"))
	sleepUntil(t, l, l.Clock().Add(50*time.Millisecond))
	if n != 1 || l.linger.turns == 0 {
		t.Errorf("the event was seen %d times, the loop lingered %d times", n, l.linger.turns)
	}
}
