package timer

// Timer is embedded, or held by value, in whatever wants to be woken: a
// connection, a fragment queue, a cache. The zero value is not armed.
type Timer struct {
	at     Instant
	index  int // position in the heap plus one; 0 means not in it
	Expire func(now Instant)
}

// Queue is a set of armed timers, a binary heap by deadline. It is not safe
// for concurrent use and allocates only while it grows.
type Queue struct {
	heap    []*Timer
	running bool    // within Run
	now     Instant // Run's argument, while running
}

// Arm sets t to expire at the given instant, whether or not it was armed. A
// deadline that only moves later costs nothing when t's owner re-arms it from
// Expire instead; [Queue.ArmEarlier] is for that. Within Run a deadline that has
// passed becomes the one just after Run's now, so that it waits for the next Run.
func (q *Queue) Arm(t *Timer, at Instant) {
	if q.running && at <= q.now {
		at = q.now.Add(1)
	}
	if t.index == 0 {
		q.heap = append(q.heap, t)
		t.index = len(q.heap)
		t.at = at
		q.up(len(q.heap) - 1)
		return
	}
	old := t.at
	t.at = at
	if at < old {
		q.up(t.index - 1)
	} else {
		q.down(t.index - 1)
	}
}

// ArmEarlier makes sure that t expires no later than at. It leaves an earlier
// deadline alone: t's owner finds out in Expire that there is nothing to do yet
// and arms again. That keeps a deadline which every packet pushes back, such as
// a retransmission timeout, out of the heap's way.
func (q *Queue) ArmEarlier(t *Timer, at Instant) {
	// A timer that is due in the Run in progress is early enough.
	due := q.running && t.at <= q.now
	if t.index == 0 || at < t.at && !due {
		q.Arm(t, at)
	}
}

// Disarm takes t out of the queue; it does nothing to a timer that is not armed.
func (q *Queue) Disarm(t *Timer) {
	if t.index == 0 {
		return
	}
	i, last := t.index-1, len(q.heap)-1
	q.swap(i, last)
	q.heap[last] = nil
	q.heap = q.heap[:last]
	t.index = 0
	if i < last {
		q.down(i)
		q.up(i)
	}
}

// Armed reports whether t is in a queue, and when it expires.
func (t *Timer) Armed() (Instant, bool) { return t.at, t.index != 0 }

// Next is the earliest deadline, or Never.
func (q *Queue) Next() Instant {
	if len(q.heap) == 0 {
		return Never
	}
	return q.heap[0].at
}

// Len is the number of armed timers.
func (q *Queue) Len() int { return len(q.heap) }

// Run takes out every timer whose deadline is not after now and calls its
// Expire, at most once each: what Expire arms in the past waits for the next
// Run, so a timer that misbehaves cannot hold the caller.
func (q *Queue) Run(now Instant) {
	q.running, q.now = true, now
	defer func() { q.running = false }()
	for n := len(q.heap); n > 0 && len(q.heap) > 0 && q.heap[0].at <= now; n-- {
		t := q.heap[0]
		q.Disarm(t)
		t.Expire(now)
	}
}

func (q *Queue) swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.heap[i].index, q.heap[j].index = i+1, j+1
}

func (q *Queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q.heap[parent].at <= q.heap[i].at {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *Queue) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(q.heap); c++ {
			if q.heap[c].at < q.heap[least].at {
				least = c
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}
