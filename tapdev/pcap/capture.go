package pcap

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
	"sbxnet/tapdev/gso"
)

// MaxFrame is the longest frame that can pass, in bytes, and so the snap length
// that cuts nothing off.
const MaxFrame = 14 + 40 + 65535

// Options says how to capture.
type Options struct {
	// SnapLength is how many bytes of each frame are kept; 0 means all.
	SnapLength int
	// Interface names the interface in the file, such as tap0.
	Interface string
	// Logger is told the first error; nil means slog.Default.
	Logger *slog.Logger
	// Now is the clock that stamps frames; nil means time.Now.
	Now func() time.Time
}

// Capture returns a link that passes everything on to l and writes it to w as
// pcapng. It takes ownership of l, and of w if that is an io.Closer: closing the
// returned link closes both. On an error it takes neither.
//
// The file is flushed after every batch, so what was seen before the program is
// killed can be read.
func Capture(l tapdev.Link, w io.Writer, opts Options) (tapdev.Link, error) {
	if opts.SnapLength <= 0 || opts.SnapLength > MaxFrame {
		opts.SnapLength = MaxFrame
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	ng, err := pcapgo.NewNgWriterInterface(w, pcapgo.NgInterface{
		Name: opts.Interface, OS: "linux", LinkType: layers.LinkTypeEthernet, SnapLength: uint32(opts.SnapLength),
		TimestampResolution: 9,
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "sbxnet", OS: "linux"}})
	if err == nil {
		err = ng.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("start capture: %w", err)
	}
	return wrap(l, &capture{ng: ng, w: w, opts: opts}), nil
}

// capture is the observer that writes a file. Queues share it under a lock.
type capture struct {
	mu      sync.Mutex
	ng      *pcapgo.NgWriter
	w       io.Writer
	opts    Options
	scratch []byte
	err     error // the first one; nothing is written after it
}

func (c *capture) received(queue int, in []tapdev.Received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Now()
	for i := range in {
		c.scratch = append(c.scratch[:0], in[i].Data...)
		c.frame(queue, pcapgo.NgEpbFlagDirectionInbound, now, in[i].Offload)
	}
	c.flush()
}

func (c *capture) sending(queue int, out []frame.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Now()
	for i := range out {
		c.scratch = out[i].AppendTo(c.scratch[:0])
		c.frame(queue, pcapgo.NgEpbFlagDirectionOutbound, now, out[i].Offload)
	}
	c.flush()
}

// frame writes what is in scratch.
func (c *capture) frame(queue int, direction pcapgo.NgEpbFlag, now time.Time, o frame.Offload) {
	if c.err != nil {
		return
	}
	gso.FinishBytes(c.scratch, &o)
	kept := c.scratch[:min(len(c.scratch), c.opts.SnapLength)]
	id := uint32(queue)
	c.failed(c.ng.WritePacketWithOptions(
		gopacket.CaptureInfo{Timestamp: now, CaptureLength: len(kept), Length: len(c.scratch)}, kept,
		pcapgo.NgPacketOptions{Flags: &pcapgo.NgEpbFlags{Direction: direction}, Queue: &id},
	))
}

func (c *capture) flush() {
	if c.err == nil {
		c.failed(c.ng.Flush())
	}
}

func (c *capture) failed(err error) {
	if err == nil {
		return
	}
	c.err = err
	c.opts.Logger.Error("packet capture stopped, traffic goes on", "interface", c.opts.Interface, "error", err)
}

func (c *capture) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	err := c.err
	if closer, ok := c.w.(io.Closer); ok {
		if e := closer.Close(); err == nil {
			err = e
		}
	}
	if c.err == nil {
		c.err = io.ErrClosedPipe // whatever still comes is too late
	}
	if err != nil {
		return fmt.Errorf("finish capture: %w", err)
	}
	return nil
}
