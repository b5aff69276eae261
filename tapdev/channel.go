package tapdev

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/gso"
)

// Channel is one end of a link in memory that joins two stacks. It is a [Link]
// with one queue, which is the Channel itself. Each end is for one goroutine at
// a time; Stats, Capabilities and Close may be called from any.
//
// Frames pass with their offload metadata, so nobody computes checksums or cuts
// segments unless an option asks for it. Frames beyond the capacity, and such
// as are larger than MaxFrame, are dropped and counted by the writing end.
type Channel struct {
	opts channelOptions
	rx   *pipe // frames to this end
	tx   *pipe // frames from this end

	splitter gso.Splitter
}

type channelOptions struct {
	mtu, capacity          int
	segmentation, finished bool
}

// ChannelOption changes what NewChannel makes.
type ChannelOption func(*channelOptions)

// WithCapacity bounds the frames that wait in each direction; the default is
// 256, at least 1. Their memory is kept for the next ones.
func WithCapacity(frames int) ChannelOption {
	return func(o *channelOptions) { o.capacity = max(frames, 1) }
}

// WithoutSegmentation makes a link that takes no super-segments: Capabilities
// says so, and what is larger than the MTU is dropped.
func WithoutSegmentation() ChannelOption {
	return func(o *channelOptions) { o.segmentation = false }
}

// WithChecksums makes every frame arrive as it would from a wire: super-segments
// cut and checksums complete.
func WithChecksums() ChannelOption {
	return func(o *channelOptions) { o.finished = true }
}

// NewChannel returns the two ends of a link in memory. The MTU is in bytes,
// without the Ethernet header. It needs no privilege and, unless FD is called,
// no descriptor.
func NewChannel(mtu int, options ...ChannelOption) (a, b *Channel) {
	o := channelOptions{mtu: mtu, capacity: 256, segmentation: true}
	for _, option := range options {
		option(&o)
	}
	x, y := newPipe(o.capacity), newPipe(o.capacity)
	return &Channel{opts: o, rx: x, tx: y}, &Channel{opts: o, rx: y, tx: x}
}

// Queues implements [Link].
func (c *Channel) Queues() []Queue { return []Queue{c} }

// Capabilities implements [Link].
func (c *Channel) Capabilities() frame.Capabilities {
	if !c.opts.segmentation {
		return frame.Capabilities{MaxFrame: ethernetLen + c.opts.mtu}
	}
	return frame.Capabilities{TSO4: true, TSO6: true, USO: true, MaxFrame: ethernetLen + 65535}
}

// Stats implements [Link].
func (c *Channel) Stats() Stats {
	tx, _ := c.tx.counts()
	_, rx := c.rx.counts()
	return Stats{
		RxFrames: rx.frames, RxBytes: rx.bytes,
		TxFrames: tx.frames, TxBytes: tx.bytes, TxDropped: tx.dropped,
	}
}

// Ready has something to receive when Read may have a frame to return, or the
// link was closed; the goroutine that waits on it then reads until there is
// none. It is for those who have no epoll set to wait in.
func (c *Channel) Ready() <-chan struct{} { return c.rx.ready }

// FD implements [Queue]. It is an eventfd, made by the first call; -1 where the
// process has no descriptor left.
func (c *Channel) FD() int { return c.rx.eventFD() }

// Read implements [Queue]. After Close, on either end, it returns what is left
// and then an error that wraps net.ErrClosed.
func (c *Channel) Read(in []Received) (int, error) {
	n, open := c.rx.take(in)
	if n == 0 && !open {
		return 0, fmt.Errorf("read channel link: %w", net.ErrClosed)
	}
	return n, nil
}

// Write implements [Queue].
func (c *Channel) Write(out []frame.Frame) error {
	for i := range out {
		if !c.send(&out[i]) {
			return fmt.Errorf("write channel link: %w", net.ErrClosed)
		}
	}
	return nil
}

// send reports whether the link is still open.
func (c *Channel) send(f *frame.Frame) bool {
	super := f.GSOType != frame.GSONone && f.Len()-int(f.HeaderLen) > int(f.GSOSize)
	limit := ethernetLen + c.opts.mtu
	if super && c.opts.segmentation {
		limit = ethernetLen + maxDatagram
	}
	if f.Len() > limit || f.Len() < ethernetLen {
		return c.tx.drop()
	}
	if !super || !c.opts.finished {
		return c.tx.put(f, c.opts.finished)
	}
	if !c.splitter.Start(f) {
		return c.tx.drop()
	}
	for s := c.splitter.Next(); s != nil; s = c.splitter.Next() {
		if !c.tx.put(s, true) {
			return false
		}
	}
	return true
}

// Flush implements [Queue]; a channel keeps nothing.
func (c *Channel) Flush() (pending bool, err error) { return false, nil }

// Close implements [Link]. It closes the link for both ends, but the other end's
// eventfd only goes when that end is closed too, so that whoever waits on it
// finds out.
func (c *Channel) Close() error {
	c.tx.close()
	c.rx.close()
	c.rx.closeEvent()
	return nil
}

// pipe is one direction of a channel: a ring of slots whose memory is kept. A
// lock guards it; unlike the kernel's links this one is not built for speed.
type pipe struct {
	ready chan struct{}

	mu       sync.Mutex
	slots    []slot
	next     int // the slot to read next
	waiting  int // slots that hold frames, from next on
	event    int // eventfd or -1
	eventSet bool
	closed   bool

	written, taken count
}

type slot struct {
	data    []byte
	offload frame.Offload
}

type count struct{ frames, bytes, dropped uint64 }

func newPipe(capacity int) *pipe {
	// A full Read of the capacity may be lent out while as much waits.
	return &pipe{ready: make(chan struct{}, 1), slots: make([]slot, 2*capacity), event: -1}
}

// put copies f into the ring, its checksum completed if finish is set.
func (p *pipe) put(f *frame.Frame, finish bool) (open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.waiting >= len(p.slots)/2 {
		p.written.dropped++
		return true
	}
	s := &p.slots[(p.next+p.waiting)%len(p.slots)]
	s.data = f.AppendTo(s.data[:0])
	s.offload = f.Offload
	if f.Len()-int(f.HeaderLen) <= int(f.GSOSize) {
		s.offload.GSOType, s.offload.GSOSize = frame.GSONone, 0
	}
	if finish && !gso.FinishBytes(s.data, &s.offload) {
		p.written.dropped++
		return true
	}
	p.waiting++
	p.written.frames++
	p.written.bytes += uint64(len(s.data))
	p.wake()
	return true
}

func (p *pipe) drop() (open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written.dropped++
	return !p.closed
}

// take lends frames to the reader until it calls again.
func (p *pipe) take(in []Received) (n int, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(len(in), p.waiting, len(p.slots)/2)
	for i := range n {
		s := &p.slots[(p.next+i)%len(p.slots)]
		in[i] = Received{Data: s.data, Offload: s.offload}
		p.taken.bytes += uint64(len(s.data))
	}
	p.taken.frames += uint64(n)
	p.next = (p.next + n) % len(p.slots)
	p.waiting -= n
	if p.waiting == 0 && !p.closed {
		p.sleep()
	} else {
		p.wake()
	}
	return n, !p.closed
}

// wake tells the reader that there is something to read.
func (p *pipe) wake() {
	if p.event >= 0 && !p.eventSet {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		unix.Write(p.event, one[:])
		p.eventSet = true
	}
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// sleep takes a wake-up back that has nothing to read behind it.
func (p *pipe) sleep() {
	if p.eventSet {
		var b [8]byte
		unix.Read(p.event, b[:])
		p.eventSet = false
	}
}

func (p *pipe) eventFD() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event >= 0 || p.closed {
		return p.event
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1
	}
	p.event = fd
	if p.waiting > 0 {
		p.wake()
	}
	return fd
}

func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.wake()
}

func (p *pipe) closeEvent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event >= 0 {
		unix.Close(p.event)
		p.event, p.eventSet = -1, false
	}
}

func (p *pipe) counts() (written, taken count) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written, p.taken
}
