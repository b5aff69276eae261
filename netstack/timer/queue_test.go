package timer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestInstantSaturatesAtNever(t *testing.T) {
	for _, c := range []struct {
		t    Instant
		d    time.Duration
		want Instant
	}{
		{0, time.Second, Instant(time.Second)},
		{Instant(time.Second), -time.Second, 0},
		{Never - 1, 1, Never},
		{Never - 1, 2, Never},
		{Never, time.Hour, Never},
		{1, math.MaxInt64, Never},
	} {
		if got := c.t.Add(c.d); got != c.want {
			t.Errorf("%d.Add(%d) = %d, want %d", c.t, c.d, got, c.want)
		}
	}
	if d := Instant(5).Sub(Instant(7)); d != -2 {
		t.Errorf("Sub: %d, want -2", d)
	}
	if !Instant(1).Before(2) || Instant(2).Before(2) {
		t.Error("Before is not a strict order")
	}
}

func TestTimersExpireInOrderOfDeadlineAndOnlyWhenDue(t *testing.T) {
	var q Queue
	var got []Instant
	for _, at := range []Instant{50, 10, 40, 20, 30} {
		q.Arm(&Timer{Expire: func(now Instant) {
			if now != 30 {
				t.Errorf("Expire told now is %d, want 30", now)
			}
			got = append(got, at)
		}}, at)
	}
	if q.Next() != 10 || q.Len() != 5 {
		t.Errorf("Next %d, Len %d, want 10, 5", q.Next(), q.Len())
	}
	q.Run(30)
	if want := []Instant{10, 20, 30}; !slices.Equal(got, want) {
		t.Errorf("expired %v, want %v", got, want)
	}
	if q.Next() != 40 || q.Len() != 2 {
		t.Errorf("Next %d, Len %d, want 40, 2", q.Next(), q.Len())
	}
}

func TestEmptyQueueIsNeverDue(t *testing.T) {
	var q Queue
	var armed Timer
	if q.Next() != Never {
		t.Errorf("Next of an empty queue is %d", q.Next())
	}
	q.Disarm(&armed) // not armed: nothing happens
	q.Run(math.MaxInt64)
	if _, ok := armed.Armed(); ok || q.Len() != 0 {
		t.Error("something is armed")
	}
}

func TestExpiredTimerIsNotArmed(t *testing.T) {
	var q Queue
	runs := 0
	var one Timer
	one.Expire = func(Instant) {
		runs++
		if _, ok := one.Armed(); ok {
			t.Error("still armed within Expire")
		}
	}
	q.Arm(&one, 5)
	if at, ok := one.Armed(); at != 5 || !ok {
		t.Errorf("Armed %d, %v, want 5, true", at, ok)
	}
	q.Run(10)
	q.Run(20)
	if runs != 1 {
		t.Errorf("expired %d times, want once", runs)
	}
}

func TestTimerDisarmedByAnotherDoesNotExpire(t *testing.T) {
	var q Queue
	var second Timer
	second.Expire = func(Instant) { t.Error("a disarmed timer expired") }
	first := Timer{Expire: func(Instant) { q.Disarm(&second) }}
	q.Arm(&first, 1)
	q.Arm(&second, 2)
	q.Run(10)
	if q.Len() != 0 {
		t.Errorf("%d timers left", q.Len())
	}
}

// A timer that arms itself in the past runs once per Run, and those that are
// due behind it still get their turn.
func TestTimerArmedInThePastWaitsForTheNextRunAndStarvesNobody(t *testing.T) {
	var q Queue
	selfish, patient := 0, 0
	var a Timer
	a.Expire = func(now Instant) {
		selfish++
		q.Arm(&a, now-100)
	}
	q.Arm(&a, 1)
	for range 3 {
		q.Arm(&Timer{Expire: func(Instant) { patient++ }}, 5)
	}
	q.Run(10)
	if selfish != 1 || patient != 3 {
		t.Errorf("the selfish ran %d times, the patient %d, want 1 and 3", selfish, patient)
	}
	if q.Next() != 11 {
		t.Errorf("next at %d, want 11: as soon as the clock moves", q.Next())
	}
	q.Run(11)
	if selfish != 2 {
		t.Errorf("the selfish ran %d times after two runs", selfish)
	}
}

func TestArmEarlierFromExpireDoesNotPutOffATimerThatIsDue(t *testing.T) {
	var q Queue
	ran := false
	second := Timer{Expire: func(Instant) { ran = true }}
	first := Timer{Expire: func(Instant) { q.ArmEarlier(&second, 0) }}
	q.Arm(&first, 1)
	q.Arm(&second, 5)
	q.Run(10)
	if !ran {
		t.Error("a timer that was due did not run")
	}
}

func TestArmEarlierOnlyMovesForward(t *testing.T) {
	var q Queue
	var a Timer
	for _, c := range []struct{ arm, want Instant }{{50, 50}, {60, 50}, {50, 50}, {40, 40}, {45, 40}} {
		q.ArmEarlier(&a, c.arm)
		if at, ok := a.Armed(); !ok || at != c.want {
			t.Errorf("after ArmEarlier(%d): %d, want %d", c.arm, at, c.want)
		}
	}
	if q.Len() != 1 {
		t.Errorf("Len %d, want 1", q.Len())
	}
}

// The queue against a plain slice that is searched, with random operations.
func TestQueueAgreesWithOracle(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q Queue
		timers := make([]Timer, 40)
		oracle := make(map[int]Instant) // armed timers
		var expired []int
		for i := range timers {
			timers[i].Expire = func(Instant) { expired = append(expired, i) }
		}
		now := Instant(0)
		for step := range 3000 {
			i := r.IntN(len(timers))
			at := now + Instant(r.IntN(200))
			switch r.IntN(5) {
			case 0, 1:
				q.Arm(&timers[i], at)
				oracle[i] = at
			case 2:
				q.ArmEarlier(&timers[i], at)
				if old, ok := oracle[i]; !ok || at < old {
					oracle[i] = at
				}
			case 3:
				q.Disarm(&timers[i])
				delete(oracle, i)
			case 4:
				now += Instant(r.IntN(30))
				due := map[int]Instant{}
				for i, at := range oracle {
					if at <= now {
						due[i] = at
						delete(oracle, i)
					}
				}
				expired = expired[:0]
				q.Run(now)
				if len(expired) != len(due) || !slices.IsSortedFunc(expired, func(a, b int) int { return int(due[a] - due[b]) }) {
					t.Fatalf("seed %d, step %d: expired %v, due %v", seed, step, expired, due)
				}
				for _, i := range expired {
					if _, ok := due[i]; !ok {
						t.Fatalf("seed %d, step %d: timer %d was not due", seed, step, i)
					}
				}
			}
			next := Never
			for _, at := range oracle {
				next = min(next, at)
			}
			if q.Next() != next || q.Len() != len(oracle) {
				t.Fatalf("seed %d, step %d: Next %d, Len %d, want %d, %d", seed, step, q.Next(), q.Len(), next, len(oracle))
			}
			for i := range timers {
				want, armed := oracle[i]
				if at, ok := timers[i].Armed(); ok != armed || ok && at != want {
					t.Fatalf("seed %d, step %d: timer %d armed %v at %d, want %v at %d", seed, step, i, ok, at, armed, want)
				}
			}
		}
	}
}

func TestArmingAllocatesNothingOnceGrown(t *testing.T) {
	var q Queue
	timers := make([]Timer, 100)
	ran := 0
	for i := range timers {
		timers[i].Expire = func(Instant) { ran++ }
	}
	now := Instant(0)
	round := func() {
		for i := range timers {
			q.Arm(&timers[i], now+Instant(i))
		}
		q.Disarm(&timers[3])
		now += 200
		q.Run(now)
	}
	round()
	if n := testing.AllocsPerRun(10, round); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
	if ran != 12*99 { // the first, AllocsPerRun's own warm-up, and its ten
		t.Errorf("%d expired, want %d", ran, 12*99)
	}
}

func BenchmarkArmEarlierOfFarTimers(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var q Queue
			timers := make([]Timer, n)
			for i := range timers {
				q.Arm(&timers[i], Instant(i))
			}
			i := 0
			for b.Loop() {
				q.ArmEarlier(&timers[i%n], Never)
				i++
			}
		})
	}
}

func BenchmarkArmAndDisarm(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var q Queue
			timers := make([]Timer, n)
			r := rand.New(rand.NewPCG(1, 1))
			for i := range timers {
				q.Arm(&timers[i], Instant(r.IntN(1000000)))
			}
			var extra Timer
			i := 0
			for b.Loop() {
				at, _ := timers[i%n].Armed()
				q.Arm(&extra, at)
				q.Disarm(&extra)
				i++
			}
		})
	}
}
