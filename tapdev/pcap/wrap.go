package pcap

import (
	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

// observer sees every frame that passes a link. It is called by the goroutines
// of all queues.
type observer interface {
	// received and sending see one batch. The frames are only lent.
	received(queue int, in []tapdev.Received)
	sending(queue int, out []frame.Frame)
	// close is called once, after the link was closed.
	close() error
}

// link is a tapdev.Link with an observer. It implements tapdev.Wrapper.
type link struct {
	tapdev.Link
	observer observer
	queues   []tapdev.Queue
}

func wrap(l tapdev.Link, o observer) tapdev.Link {
	w := &link{Link: l, observer: o}
	for i, q := range l.Queues() {
		w.queues = append(w.queues, &queue{Queue: q, observer: o, index: i})
	}
	return w
}

// Unwrap implements tapdev.Wrapper.
func (l *link) Unwrap() tapdev.Link { return l.Link }

// Queues implements tapdev.Link.
func (l *link) Queues() []tapdev.Queue { return l.queues }

// Close implements tapdev.Link. The link is closed whether or not the observer
// can be.
func (l *link) Close() error {
	err := l.Link.Close()
	if e := l.observer.close(); err == nil {
		err = e
	}
	return err
}

type queue struct {
	tapdev.Queue
	observer observer
	index    int
}

// Read implements tapdev.Queue.
func (q *queue) Read(in []tapdev.Received) (int, error) {
	n, err := q.Queue.Read(in)
	if n > 0 {
		q.observer.received(q.index, in[:n])
	}
	return n, err
}

// Write implements tapdev.Queue. Frames are seen before they are written, so
// that a capture has the question before the answer.
func (q *queue) Write(out []frame.Frame) error {
	if len(out) > 0 {
		q.observer.sending(q.index, out)
	}
	return q.Queue.Write(out)
}
