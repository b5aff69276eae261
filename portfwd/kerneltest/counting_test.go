package kerneltest

import (
	"encoding/binary"
	"sync/atomic"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

// counting is a link that counts the TCP payload in passing, in bytes.
type counting struct {
	tapdev.Link
	in, out       atomic.Int64 // from the sandbox, to it
	inEnd, outEnd atomic.Bool  // a FIN has passed
	// resets are segments with RST before both FINs. One after them is how either
	// side answers what arrives too late.
	inResets, outResets atomic.Int64
}

func count(l tapdev.Link) *counting { return &counting{Link: l} }

func (c *counting) Unwrap() tapdev.Link { return c.Link }

func (c *counting) Queues() []tapdev.Queue {
	var qs []tapdev.Queue
	for _, q := range c.Link.Queues() {
		qs = append(qs, countingQueue{q, c})
	}
	return qs
}

type countingQueue struct {
	tapdev.Queue
	counts *counting
}

func (q countingQueue) Read(in []tapdev.Received) (int, error) {
	n, err := q.Queue.Read(in)
	for i := range in[:n] {
		q.counts.add(&q.counts.in, &q.counts.inResets, &q.counts.inEnd, in[i].Data, len(in[i].Data))
	}
	return n, err
}

func (q countingQueue) Write(out []frame.Frame) error {
	for i := range out {
		q.counts.add(&q.counts.out, &q.counts.outResets, &q.counts.outEnd, out[i].Header, out[i].Len())
	}
	return q.Queue.Write(out)
}

const (
	flagFIN = 0x01
	flagRST = 0x04
)

// add takes a frame's headers and length. Frames with extension headers are
// not for us.
func (c *counting) add(to, resets *atomic.Int64, end *atomic.Bool, h []byte, length int) {
	if len(h) < 14+20+20 {
		return
	}
	tcp := 0
	switch binary.BigEndian.Uint16(h[12:]) {
	case 0x0800:
		if h[23] != 6 {
			return
		}
		tcp = 14 + int(h[14]&15)*4
		length = min(length, 14+int(binary.BigEndian.Uint16(h[16:])))
	case 0x86dd:
		if h[20] != 6 {
			return
		}
		tcp = 14 + 40
	default:
		return
	}
	if tcp+20 > len(h) {
		return
	}
	if h[tcp+13]&flagFIN != 0 {
		end.Store(true)
	}
	if h[tcp+13]&flagRST != 0 && !(c.inEnd.Load() && c.outEnd.Load()) {
		resets.Add(1)
	}
	to.Add(int64(length - tcp - int(h[tcp+12]>>4)*4))
}
