package tapdev

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/gso"
	"sbxnet/tapdev/hugepage"
	"sbxnet/tapdev/virtio"
)

// ringSize is how many frames one Read returns at most: as many as fit into one
// huge page at their largest.
const ringSize = 31

// maxRead is after how many bytes one Read returns. What it has read is to be in
// the core's cache still when it is worked on.
const maxRead = 256 << 10

// bulkRead is after how many bytes of one Read the ring is worth a huge page.
const bulkRead = 128 << 10

// firstFrames is how many frames a ring has room for until so many come at once.
// The Go heap counts all of a ring as used, touched or not: with whole ones a
// collection would come during every start, whose own records stay, 0.7 MB.
const firstFrames = 4

// growth is where a ring is on its way from a few frames to many, and from small
// pages to a huge one. Most sandboxes never need either. What is due happens with
// the next Read, when nobody looks at the last one's frames any more.
type growth uint8

const (
	fewFrames growth = iota
	manyAreDue
	smallPages
	hugeIsDue
	hugePages
)

// maxRejects is how many frames in a row one Read leaves out before it returns:
// a sandbox that sends nothing but garbage does not get to hold its shard.
const maxRejects = 4 * ringSize

// queue is one descriptor of a device. All but the counters belongs to the one
// goroutine that uses the queue.
type queue struct {
	dev  *device
	fd   int
	vnet int // bytes of virtio header in front of each frame
	// maxSuper is the longest super-segment that the kernel takes, in bytes.
	maxSuper int

	ring   [][]byte
	frame  int    // size of each of them
	memory []byte // that ring consists of, once it has many
	grown  growth

	write     func(fd int, iov []unix.Iovec) unix.Errno // writev, but in tests
	iov       []unix.Iovec                              // reused for every writev
	iovHigh   int                                       // the most of it that was used in this batch
	vnetTx    [virtio.Size]byte
	headerTx  [frame.MaxHeader]byte
	linear    []byte // for frames whose headers are not in one piece
	splitter  gso.Splitter
	coalescer gso.Coalescer
	kept      backlog
	wrote     txCount // not yet in the counters below

	rxFrames, rxBytes, rxMalformed atomic.Uint64
	txFrames, txBytes, txDropped   atomic.Uint64
}

// txCount gathers what Write and Flush count, so that the atomic counters are
// stored to once a batch.
type txCount struct{ frames, bytes, dropped uint64 }

// publish moves what was gathered to the counters.
func (q *queue) publish() {
	add(&q.txFrames, q.wrote.frames)
	add(&q.txBytes, q.wrote.bytes)
	add(&q.txDropped, q.wrote.dropped)
	q.wrote = txCount{}
}

func newQueue(d *device, fd int) *queue {
	q := &queue{dev: d, fd: fd, vnet: d.info.vnetLen(), maxSuper: d.info.maxSuper(), write: writev}
	q.iov = make([]unix.Iovec, 0, 2+2*gso.MaxSegments)
	size := ethernetLen + d.info.MTU
	if q.vnet > 0 {
		size = ethernetLen + maxDatagram
	}
	// One byte more than any frame has, so that a truncated one shows, and
	// room for a VLAN tag, which must not make a frame look truncated.
	size += q.vnet + 4 + 1
	q.frame = (size + 63) &^ 63
	q.cut(make([]byte, firstFrames*q.frame))
	if d.info.QDisc == "fifo" {
		q.kept.limitFrames, q.kept.limitBytes = fifoFrames, fifoBytes
	}
	return q
}

// cut makes the ring of memory.
func (q *queue) cut(memory []byte) {
	q.ring = q.ring[:0]
	for ; len(memory) >= q.frame && len(q.ring) < ringSize; memory = memory[q.frame:] {
		q.ring = append(q.ring, memory[:q.frame:q.frame])
	}
}

// grow does what is due.
func (q *queue) grow() {
	if q.grown != manyAreDue && q.grown != hugeIsDue {
		return
	}
	if q.memory == nil {
		q.memory = hugepage.Make(ringSize * q.frame)
		q.cut(q.memory)
	}
	if q.grown == hugeIsDue {
		hugepage.Enlarge(q.memory)
	}
	q.grown++
}

// outgrown notes what a Read of n frames makes due.
func (q *queue) outgrown(n, bytes int) {
	switch {
	case q.grown < hugeIsDue && bytes >= bulkRead:
		q.grown = hugeIsDue
	case q.grown == fewFrames && n == len(q.ring):
		q.grown = manyAreDue
	}
}

// add counts without a locked instruction: each counter has one writer.
func add(c *atomic.Uint64, n uint64) {
	if n != 0 {
		c.Store(c.Load() + n)
	}
}

// FD implements [Queue].
func (q *queue) FD() int { return q.fd }

func (q *queue) close() error {
	if q.fd < 0 {
		return nil
	}
	err := unix.Close(q.fd)
	q.fd = -1
	return err
}

// Read implements [Queue].
func (q *queue) Read(in []Received) (int, error) {
	q.grow()
	n, bytes, malformed := 0, 0, 0
	var err error
	for n < min(len(in), len(q.ring)) && bytes < maxRead && malformed < maxRejects {
		buf := q.ring[n]
		got, errno := read(q.fd, buf)
		if errno != 0 {
			if again, e := q.readFailed(errno, &malformed); e != nil {
				err = e
			} else if again {
				continue
			}
			break
		}
		if !q.receive(&in[n], buf, got) {
			malformed++
			continue
		}
		bytes += len(in[n].Data)
		n++
	}
	q.outgrown(n, bytes)
	add(&q.rxFrames, uint64(n))
	add(&q.rxBytes, uint64(bytes))
	add(&q.rxMalformed, uint64(malformed))
	if n > 0 {
		return n, nil // an error comes again with the next Read
	}
	return 0, err
}

// receive fills in r with the got bytes in buf and reports whether they are a
// frame.
func (q *queue) receive(r *Received, buf []byte, got int) bool {
	if got < q.vnet+ethernetLen || got == len(buf) {
		return false
	}
	r.Data = buf[q.vnet:got:got]
	if q.vnet == 0 {
		r.Offload = frame.Offload{}
		return true
	}
	var err error
	r.Offload, err = virtio.Parse(buf[:q.vnet], r.Data)
	return err == nil
}

// readFailed judges an error of read(2): whether to read on, and whether the
// link is gone.
func (q *queue) readFailed(errno unix.Errno, malformed *int) (again bool, err error) {
	switch errno {
	case unix.EAGAIN:
		return false, nil
	case unix.EINTR:
		return true, nil
	case unix.EINVAL:
		// The kernel has no virtio header for this frame, and has dropped it
		// (virtio_net_hdr_from_skb).
		*malformed++
		return true, nil
	case unix.ENETDOWN, unix.EFAULT, unix.ENOBUFS:
		// The sandbox took its interface down: a packet socket says ENETDOWN
		// once, a TAP that was shut down EFAULT (tun_ring_recv). It may come up
		// again. Nor does it matter if it was deleted: a packet link's goes with
		// the sandbox's namespace while we still have what that sent, and an end
		// of the link would lose it.
		return false, nil
	}
	return false, fmt.Errorf("read link %s: %w", q.dev.info.Name, errno)
}

// read is read(2) on a non-blocking descriptor. It bypasses the scheduler: the
// call never waits, and entering and leaving it costs as much as the call.
func read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// writev is writev(2) on a non-blocking descriptor; see read.
func writev(fd int, iov []unix.Iovec) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return errno
}
