package tapdev

import (
	"fmt"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/gso"
	"sbxnet/tapdev/virtio"
)

// verdict is what became of one frame.
type verdict uint8

const (
	sent    verdict = iota
	lost            // dropped: the device is down or full, or the frame is bad
	refused         // EINVAL: the kernel does not do what the virtio header asks
	gone            // the link is no more
)

// Write implements [Queue].
func (q *queue) Write(out []frame.Frame) error {
	if q.kept.frames() > 0 {
		if _, err := q.Flush(); err != nil {
			return err
		}
	}
	ok := q.writeAll(out)
	q.publish()
	clear(q.iov[:q.iovHigh]) // let go of the payload
	q.iovHigh = 0
	if !ok {
		return fmt.Errorf("write link %s: the device is gone", q.dev.info.Name)
	}
	return nil
}

// writeAll sends the frames and reports whether the device is still there.
func (q *queue) writeAll(out []frame.Frame) bool {
	for len(out) > 0 {
		n := 1
		if len(out) > 1 && q.dev.info.GRO {
			n = q.coalescer.Join(out, q.joinable())
		}
		var v verdict
		if n > 1 {
			v = q.sendJoined(out[:n])
		} else {
			v = q.sendOne(&out[0])
		}
		if v == gone {
			return false
		}
		out = out[n:]
	}
	return true
}

// joinable says which frames are worth coalescing now: those that the kernel
// takes joined.
func (q *queue) joinable() gso.Kinds {
	k := q.dev.kernel.Load()
	return gso.Kinds{TCPv4: k&kernelTSO4 != 0, TCPv6: k&kernelTSO6 != 0, UDP: k&kernelUSO != 0, MaxFrame: q.maxSuper}
}

// sendJoined sends the super-segment that the coalescer made of the frames, and
// where the kernel refuses it the frames one by one.
func (q *queue) sendJoined(frames []frame.Frame) verdict {
	joined := &q.coalescer.Joined
	q.iov = q.iov[:0]
	q.addVnetHeader(joined, joined.Len()+payloadLen(frames))
	q.addIov(joined.Header)
	for i := range frames {
		q.addIov(frames[i].Payload[0])
		q.addIov(frames[i].Payload[1])
	}
	v := q.emit(uint64(len(frames)), uint64(payloadLen(frames)+len(frames)*len(joined.Header)))
	if v != refused {
		return v
	}
	work, what := gsoWork(joined.GSOType)
	q.dev.refused(work, what)
	for i := range frames {
		if v = q.sendOne(&frames[i]); v == gone {
			break
		}
	}
	return v
}

func payloadLen(frames []frame.Frame) (n int) {
	for i := range frames {
		n += len(frames[i].Payload[0]) + len(frames[i].Payload[1])
	}
	return n
}

// sendOne sends a frame in the best way that is still open to it.
func (q *queue) sendOne(f *frame.Frame) verdict {
	if f.GSOType == frame.GSONone || f.Len()-int(f.HeaderLen) <= int(f.GSOSize) {
		return q.sendSegment(f)
	}
	work, what := gsoWork(f.GSOType)
	if q.dev.kernel.Load()&work != 0 && f.Len() <= q.maxSuper {
		if v := q.sendPieces(f); v != refused {
			return v
		}
		if !q.start(f) {
			return q.drop(1) // no wonder that the kernel didn't take it
		}
		q.dev.refused(work, what)
	} else if !q.start(f) {
		return q.drop(1)
	}
	for s := q.splitter.Next(); s != nil; s = q.splitter.Next() {
		if v := q.sendSegment(s); v == gone {
			return v
		}
	}
	return sent
}

// start begins to split f, in one piece if it lies otherwise than the splitter
// wants it.
func (q *queue) start(f *frame.Frame) bool {
	if len(f.Header) == int(f.HeaderLen) {
		return q.splitter.Start(f)
	}
	if f.Len() > ethernetLen+maxDatagram || f.Len() < int(f.HeaderLen) {
		return false
	}
	q.linear = f.AppendTo(q.linear[:0])
	g := frame.Frame{Header: q.linear[:f.HeaderLen], Offload: f.Offload}
	g.Payload[0] = q.linear[f.HeaderLen:]
	return q.splitter.Start(&g)
}

func gsoWork(t frame.GSOType) (work uint32, what string) {
	switch t {
	case frame.GSOTCPv4:
		return kernelTSO4, "TCP segmentation over IPv4"
	case frame.GSOTCPv6:
		return kernelTSO6, "TCP segmentation over IPv6"
	}
	return kernelUSO, "UDP segmentation"
}

// sendSegment sends a frame that need not be cut.
func (q *queue) sendSegment(f *frame.Frame) verdict {
	if !f.NeedsChecksum {
		v := q.sendPieces(f)
		if v == refused {
			return q.drop(1)
		}
		return v
	}
	if q.dev.kernel.Load()&kernelChecksum != 0 {
		if v := q.sendPieces(f); v != refused {
			return v
		}
		if int(f.ChecksumStart)+int(f.ChecksumOffset)+2 > f.Len() {
			return q.drop(1)
		}
		q.dev.refused(kernelChecksum|kernelTSO4|kernelTSO6|kernelUSO, "checksum offload")
	}
	return q.sendFinished(f)
}

// sendFinished completes the checksum in a copy of the header, which is not
// ours, and sends the frame.
func (q *queue) sendFinished(f *frame.Frame) verdict {
	g := frame.Frame{Payload: f.Payload, Offload: f.Offload}
	field := int(f.ChecksumStart) + int(f.ChecksumOffset)
	switch {
	case len(f.Header) <= len(q.headerTx) && field+2 <= len(f.Header):
		g.Header = q.headerTx[:copy(q.headerTx[:], f.Header)]
	case f.Len() <= ethernetLen+maxDatagram:
		q.linear = f.AppendTo(q.linear[:0])
		g.Header, g.Payload = q.linear, [2][]byte{}
	}
	if !gso.Finish(&g) {
		return q.drop(1)
	}
	if v := q.sendPieces(&g); v != refused {
		return v
	}
	return q.drop(1)
}

// sendPieces sends a frame as it is, with a virtio header where there is one.
func (q *queue) sendPieces(f *frame.Frame) verdict {
	q.iov = q.iov[:0]
	q.addVnetHeader(f, f.Len())
	q.addIov(f.Header)
	q.addIov(f.Payload[0])
	q.addIov(f.Payload[1])
	return q.emit(1, uint64(f.Len()))
}

func (q *queue) addVnetHeader(f *frame.Frame, frameLen int) {
	if q.vnet == 0 {
		return
	}
	virtio.Encode(q.vnetTx[:q.vnet], &f.Offload, frameLen)
	q.addIov(q.vnetTx[:q.vnet])
}

func (q *queue) addIov(b []byte) {
	if len(b) == 0 {
		return
	}
	q.iov = append(q.iov, unix.Iovec{Base: &b[0]})
	q.iov[len(q.iov)-1].SetLen(len(b))
}

// emit writes what is in iov, n frames with that many bytes, and counts it. It
// is kept where the device is full and the queueing discipline says so.
func (q *queue) emit(n, bytes uint64) verdict {
	q.iovHigh = max(q.iovHigh, len(q.iov))
	if q.kept.frames() > 0 {
		return q.keep(n, bytes)
	}
	switch q.write(q.fd, q.iov) {
	case 0:
		q.wrote.frames += n
		q.wrote.bytes += bytes
		return sent
	case unix.EAGAIN, unix.ENOBUFS, unix.EINTR, unix.ENOMEM:
		return q.keep(n, bytes)
	case unix.EINVAL:
		return refused
	case unix.EBADFD, unix.EBADF, unix.ENODEV, unix.ENXIO:
		return gone
	}
	// EIO, ENETDOWN: the interface is down. EMSGSIZE: a frame over the MTU.
	return q.drop(n)
}

func (q *queue) drop(n uint64) verdict {
	q.wrote.dropped += n
	return lost
}

// keep puts what is in iov behind the frames that wait, or drops it.
func (q *queue) keep(n, bytes uint64) verdict {
	if !q.kept.push(q.iov, n, bytes) {
		return q.drop(n)
	}
	return sent
}

// Flush implements [Queue].
func (q *queue) Flush() (pending bool, err error) {
	defer q.publish()
	for q.kept.frames() > 0 {
		k := q.kept.front()
		q.iov = q.iov[:0]
		q.addIov(k.bytes)
		switch errno := q.write(q.fd, q.iov); errno {
		case 0:
			q.wrote.frames += k.frames
			q.wrote.bytes += k.length
		case unix.EAGAIN, unix.ENOBUFS, unix.EINTR, unix.ENOMEM:
			return true, nil
		case unix.EBADFD, unix.EBADF, unix.ENODEV, unix.ENXIO:
			return false, fmt.Errorf("write link %s: %w", q.dev.info.Name, errno)
		default:
			// Down, or refused: too late to do it otherwise.
			q.drop(k.frames)
		}
		q.kept.pop()
	}
	return false, nil
}
