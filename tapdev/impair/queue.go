package impair

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

// batchFrames is how many frames go in or out of the inner queue at a time.
const batchFrames = 64

// queue is a tapdev.Queue with a lane in front of it each way. It belongs to
// the one goroutine that uses it.
type queue struct {
	inner   tapdev.Queue
	rx, tx  *lane
	epfd    int
	timerfd int
	armed   int64 // what the timer is set to; 0: off
	pending bool  // the inner queue keeps frames until it is writable

	epoch time.Time
	start int64 // CLOCK_MONOTONIC at epoch, in nanoseconds

	in   [batchFrames]tapdev.Received
	out  [batchFrames]frame.Frame
	held [batchFrames][]byte // the memory of out
	lent [][]byte            // what the last Read returned
}

func newQueue(inner tapdev.Queue, rx, tx *lane) (*queue, error) {
	q := &queue{inner: inner, rx: rx, tx: tx, epfd: -1, timerfd: -1}
	if err := q.open(); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *queue) open() (err error) {
	var now unix.Timespec
	q.epoch = time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	q.start = now.Nano()
	if q.timerfd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("create timer: %w", err)
	}
	if q.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create epoll set: %w", err)
	}
	for _, fd := range []int{q.timerfd, q.inner.FD()} {
		if err := unix.EpollCtl(q.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			return fmt.Errorf("add descriptor %d to epoll set: %w", fd, err)
		}
	}
	return nil
}

func (q *queue) close() {
	for _, fd := range []*int{&q.epfd, &q.timerfd} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// clock is CLOCK_MONOTONIC, as the timer has it, in nanoseconds.
func (q *queue) clock() int64 { return q.start + int64(time.Since(q.epoch)) }

// FD implements tapdev.Queue.
func (q *queue) FD() int { return q.epfd }

// Read implements tapdev.Queue. It also sends what has become due.
func (q *queue) Read(in []tapdev.Received) (int, error) {
	for i, data := range q.lent {
		q.rx.recycle(data)
		q.lent[i] = nil
	}
	q.lent = q.lent[:0]
	now := q.clock()
	if err := q.receive(now); err != nil {
		return 0, err
	}
	if err := q.send(now); err != nil {
		return 0, err
	}
	n := 0
	for ; n < len(in) && q.rx.due(now); n++ {
		p := q.rx.take()
		in[n] = tapdev.Received{Data: p.data, Offload: p.Offload}
		q.lent = append(q.lent, p.data)
	}
	return n, q.arm()
}

// receive takes what the inner queue has, once; its descriptor says if there is
// more.
func (q *queue) receive(now int64) error {
	n, err := q.inner.Read(q.in[:])
	if err != nil {
		return err
	}
	for i := range q.in[:n] {
		r := &q.in[i]
		cut := min(int(r.HeaderLen), len(r.Data))
		f := frame.Frame{Header: r.Data[:cut], Payload: [2][]byte{r.Data[cut:]}, Offload: r.Offload}
		q.rx.offer(now, &f)
		*r = tapdev.Received{}
	}
	return nil
}

// Write implements tapdev.Queue.
func (q *queue) Write(out []frame.Frame) error {
	now := q.clock()
	for i := range out {
		q.tx.offer(now, &out[i])
	}
	if err := q.send(now); err != nil {
		return err
	}
	return q.arm()
}

// send gives the inner queue the packets that are due, and what it kept.
func (q *queue) send(now int64) error {
	for q.tx.due(now) {
		n := 0
		for ; n < batchFrames && q.tx.due(now); n++ {
			p := q.tx.take()
			cut := len(p.data)
			if h := int(p.HeaderLen); h > 0 {
				cut = min(h, cut)
			}
			q.held[n] = p.data
			q.out[n] = frame.Frame{Header: p.data[:cut], Payload: [2][]byte{p.data[cut:]}, Offload: p.Offload}
		}
		err := q.inner.Write(q.out[:n])
		for i := range n {
			q.tx.recycle(q.held[i])
		}
		clear(q.held[:n])
		clear(q.out[:n])
		if err != nil {
			return err
		}
	}
	return q.flush()
}

// flush makes the inner queue try again. Its being writable counts as our being
// readable for as long as it keeps something.
func (q *queue) flush() error {
	pending, err := q.inner.Flush()
	if err != nil || pending == q.pending {
		return err
	}
	q.pending = pending
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	if pending {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(q.epfd, unix.EPOLL_CTL_MOD, q.inner.FD(), &ev); err != nil {
		return fmt.Errorf("wait for room in the link: %w", err)
	}
	return nil
}

// Flush implements tapdev.Queue. What waits here makes FD readable, so there is
// nothing that its owner would have to wait for besides.
func (q *queue) Flush() (pending bool, err error) { return false, q.flush() }

// arm sets the timer to the next packet that is due, in the past if one is due
// already. A timer that is set to the same time need not be touched: it has
// either not expired, or nobody took its being readable away.
func (q *queue) arm() error {
	var next int64
	for _, l := range []*lane{q.rx, q.tx} {
		if l.waiting.len() > 0 && (next == 0 || l.waiting.next() < next) {
			next = l.waiting.next()
		}
	}
	if next == q.armed {
		return nil
	}
	q.armed = next
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(next)}
	if err := unix.TimerfdSettime(q.timerfd, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		return fmt.Errorf("set timer: %w", err)
	}
	return nil
}
