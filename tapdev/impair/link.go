package impair

import (
	"fmt"

	"sbxnet/tapdev"
)

// link is a tapdev.Link whose packets meet a Spec. It implements
// tapdev.Wrapper.
type link struct {
	tapdev.Link
	spec   Spec
	queues []*queue
}

// Wrap returns l with spec's impairments, or l itself if spec has none. It takes
// ownership of l: closing the returned link closes l. On an error, such as for
// want of descriptors, of which it needs two for each queue, it takes nothing.
func Wrap(l tapdev.Link, spec Spec) (tapdev.Link, error) {
	if spec.IsZero() {
		return l, nil
	}
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("impair link: %w", err)
	}
	w := &link{Link: l, spec: spec}
	in, out := &wire{rate: spec.Rate}, &wire{rate: spec.Rate}
	for i, inner := range l.Queues() {
		q, err := newQueue(inner, newLane(&w.spec, in, 0, uint64(i)), newLane(&w.spec, out, 1, uint64(i)))
		if err != nil {
			w.closeQueues()
			return nil, fmt.Errorf("impair link: %w", err)
		}
		w.queues = append(w.queues, q)
	}
	return w, nil
}

// Unwrap implements tapdev.Wrapper.
func (l *link) Unwrap() tapdev.Link { return l.Link }

// Queues implements tapdev.Link.
func (l *link) Queues() []tapdev.Queue {
	qs := make([]tapdev.Queue, len(l.queues))
	for i, q := range l.queues {
		qs[i] = q
	}
	return qs
}

// Close implements tapdev.Link. Packets that wait are forgotten.
func (l *link) Close() error {
	l.closeQueues()
	return l.Link.Close()
}

func (l *link) closeQueues() {
	for _, q := range l.queues {
		q.close()
	}
}

// Stats counts what became of packets, from the sandbox and to it. The link's
// own Stats count what the device saw: more from the sandbox, less to it.
type Stats struct {
	FromSandbox, ToSandbox Counts
}

// Counts are those of one direction, in packets as they would be on a wire.
type Counts struct {
	Packets    uint64 // that came, once each
	Delivered  uint64 // that came out, duplicates included
	Lost       uint64
	Duplicated uint64
	Corrupted  uint64
	Reordered  uint64 // held back for others to overtake
	Overflowed uint64 // for which there was no room within Spec.Limit
	Malformed  uint64 // super-segments that nobody could cut
}

// StatsOf looks through wrappers for an impaired link and adds up the counts of
// its queues. It reports false if there is none.
func StatsOf(l tapdev.Link) (Stats, bool) {
	for {
		if w, ok := l.(*link); ok {
			return w.counts(), true
		}
		w, ok := l.(tapdev.Wrapper)
		if !ok {
			return Stats{}, false
		}
		l = w.Unwrap()
	}
}

func (l *link) counts() (s Stats) {
	for _, q := range l.queues {
		s.FromSandbox.add(&q.rx.stats)
		s.ToSandbox.add(&q.tx.stats)
	}
	return s
}

func (c *Counts) add(from *counters) {
	c.Packets += from.packets.Load()
	c.Delivered += from.delivered.Load()
	c.Lost += from.lost.Load()
	c.Duplicated += from.duplicated.Load()
	c.Corrupted += from.corrupted.Load()
	c.Reordered += from.reordered.Load()
	c.Overflowed += from.overflowed.Load()
	c.Malformed += from.malformed.Load()
}
