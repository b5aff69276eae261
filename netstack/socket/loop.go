package socket

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/timer"
)

// Received is the shape of a frame that a [Link] delivers: its bytes from the
// Ethernet header on, good until the next Read, and its offload metadata.
// tapdev.Received has it.
type Received interface {
	~struct {
		Data []byte
		frame.Offload
	}
}

// Link is a way for frames in and out that is waited for with a channel, such as
// tapdev.Channel. One goroutine uses it at a time.
type Link[R Received] interface {
	// Ready has something to receive when Read may return a frame or an error.
	Ready() <-chan struct{}
	// Read fills in with frames and returns their number; 0 and no error means
	// that there is none now.
	Read(in []R) (int, error)
	// Write sends the frames and does not keep them.
	Write(out []frame.Frame) error
	// Capabilities is what the link does for frames on their way out.
	Capabilities() frame.Capabilities
}

// Start runs a stack of its own over link, on a goroutine of its own, and
// returns its sockets. It sets cfg's Output and Caps, and Seed if that is zero.
// The stack runs until ctx is done, the link fails or [Net.Close] is called; the
// link stays the caller's to close. Calls on sockets then fail with
// net.ErrClosed, or with ENETDOWN if it was the link.
func Start[R Received](ctx context.Context, cfg netstack.Config, link Link[R]) (*Net, error) {
	batch := new(frame.Batch)
	cfg.Output, cfg.Caps = batch, link.Capabilities()
	if cfg.Seed == [32]byte{} {
		rand.Read(cfg.Seed[:])
	}
	stack, err := netstack.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("start stack: %w", err)
	}
	l := &loop{stack: stack, batch: batch, epoch: time.Now(),
		wake: make(chan struct{}, 1), stopping: make(chan struct{}), done: make(chan struct{})}
	n := New(stack, l, cfg.Addresses)
	n.loop = l
	go func() {
		defer close(l.done)
		err := run(ctx, l, link)
		l.refuse()
		n.fail(err)
	}()
	return n, nil
}

// loop is the owner of a stack that Start made.
type loop struct {
	stack    *netstack.Stack
	batch    *frame.Batch
	epoch    time.Time // of the stack's clock
	wake     chan struct{}
	stopping chan struct{}
	done     chan struct{}
	once     sync.Once

	mu     sync.Mutex
	posted []func()
	gone   bool
}

// Post implements Runner.
func (l *loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return false
	}
	l.posted = append(l.posted, f)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// stop ends the loop after one more turn and waits for it.
func (l *loop) stop() {
	l.once.Do(func() { close(l.stopping) })
	<-l.done
}

// refuse makes Post fail from now on.
func (l *loop) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.posted = nil
}

func (l *loop) runPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

func (l *loop) now() timer.Instant { return timer.Instant(time.Since(l.epoch)) }

// readsPerTurn bounds what one turn reads before it answers.
const readsPerTurn, framesPerRead = 8, 32

// run is the loop. It returns what calls on sockets fail with afterwards.
func run[R Received](ctx context.Context, l *loop, link Link[R]) error {
	in := make([]R, framesPerRead)
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for more := true; ; {
		last := false
		if !more {
			last = l.wait(ctx, link.Ready(), alarm)
		}
		l.stack.Tick(l.now())
		var err error
		if more, err = input(l, link, in); err != nil {
			return down(err)
		}
		l.runPosted()
		if err := output(l, link); err != nil {
			return down(err)
		}
		if last || ctx.Err() != nil {
			return net.ErrClosed
		}
	}
}

// wait sleeps until there is something to do, and reports whether that is to
// end.
func (l *loop) wait(ctx context.Context, ready <-chan struct{}, alarm *time.Timer) (last bool) {
	var expired <-chan time.Time
	if at := l.stack.NextDeadline(); at != timer.Never {
		alarm.Reset(at.Sub(l.now()))
		expired = alarm.C
	}
	select {
	case <-ready:
	case <-l.wake:
	case <-expired:
	case <-ctx.Done():
		return true
	case <-l.stopping:
		return true
	}
	return false
}

// input feeds the stack, and reports whether the link may have more.
func input[R Received](l *loop, link Link[R], in []R) (more bool, err error) {
	type received struct {
		Data []byte
		frame.Offload
	}
	for range readsPerTurn {
		n, err := link.Read(in)
		if n == 0 || err != nil {
			return false, err
		}
		now := l.now()
		for i := range in[:n] {
			r := received(in[i])
			l.stack.Input(r.Data, r.Offload, now)
		}
	}
	return true, nil
}

// output puts on the link what the stack has to say.
func output[R Received](l *loop, link Link[R]) error {
	l.stack.Flush()
	err := link.Write(l.batch.Frames())
	l.batch.Reset()
	l.stack.Reclaim()
	return err
}

// down is a failure of the link, as calls on sockets report it.
func down(err error) error {
	return fmt.Errorf("%w: %w", syscall.ENETDOWN, err)
}
