package tapdev

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev/virtio"
)

// Work that the kernel does for frames that we write. Bits of device.kernel.
const (
	kernelTSO4 = 1 << iota
	kernelTSO6
	kernelUSO
	kernelChecksum
)

// maxDatagram is the longest IP packet: an IPv6 header and 65535 bytes.
const maxDatagram = 40 + 65535

const ethernetLen = 14

// device is a Link over descriptors that the kernel gave us, TAP or packet.
type device struct {
	info   Info
	queues []*queue
	// kernel holds the kernelXxx bits that are still good. Bits are only ever
	// cleared, by whichever queue finds out.
	kernel atomic.Uint32
	logger atomic.Pointer[slog.Logger]
}

// Attach takes ownership of the files that Open returned, in this process or in
// another, and makes a link of them. On an error it closes them. Descriptors
// are handed back to the caller only as [Queue.FD], to wait on: the link
// closes them.
func Attach(info Info, files []*os.File) (Link, error) {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(files) == 0 {
		return nil, fmt.Errorf("attach link %s: no descriptor was passed", info.Name)
	}
	if err := checkMTU(info.MTU); err != nil {
		return nil, fmt.Errorf("attach link %s: %w", info.Name, err)
	}
	d := &device{info: info}
	d.info.ReceiveBuffer = 0
	d.kernel.Store(kernelWork(info))
	for _, f := range files {
		q, err := d.attachQueue(f)
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("attach link %s: %w", info.Name, err)
		}
		d.queues = append(d.queues, q)
	}
	return d, nil
}

// kernelWork is what info leaves to the kernel for frames towards the sandbox.
func kernelWork(info Info) uint32 {
	if !info.VnetHeader || !info.TXChecksum {
		return 0 // the kernel cuts nothing whose checksums are complete
	}
	work := uint32(kernelChecksum)
	if info.GSO && info.KernelTSO {
		work |= kernelTSO4 | kernelTSO6
	}
	if info.GSO && info.KernelUSO {
		work |= kernelUSO
	}
	return work
}

// attachQueue makes a queue of a duplicate of f, so that closing f takes it out
// of the runtime's poller and leaves nothing there that could be woken.
func (d *device) attachQueue(f *os.File) (*queue, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", dupErr)
	}
	if err := d.configure(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newQueue(d, fd), nil
}

// configure sets what belongs to the descriptor rather than to the device.
func (d *device) configure(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("set descriptor non-blocking: %w", err)
	}
	switch d.info.Kind {
	case TAP:
		return configureTAP(fd, d.info)
	case Packet:
		if err := configurePacket(fd, d.info); err != nil {
			return err
		}
		d.info.ReceiveBuffer = receiveBuffer(fd) // the same for every queue
		return nil
	}
	return fmt.Errorf("link kind %q: want %q or %q", d.info.Kind, TAP, Packet)
}

// vnetLen is the length of the virtio header in front of each frame.
func (i Info) vnetLen() int {
	switch {
	case !i.VnetHeader:
		return 0
	case i.Kind == Packet:
		return virtio.LegacySize
	}
	return virtio.Size
}

// Queues implements [Link].
func (d *device) Queues() []Queue {
	qs := make([]Queue, len(d.queues))
	for i, q := range d.queues {
		qs[i] = q
	}
	return qs
}

// maxSuper is the longest super-segment that the kernel takes, in bytes with the
// Ethernet header. A veth device takes what is shorter than its gso_max_size of
// 65536, and a packet socket drops what would have to be cut before the device
// (gso_features_check, __dev_direct_xmit in net/core/dev.c). A TAP takes what IP
// can express.
func (i Info) maxSuper() int {
	if i.Kind == Packet {
		return 65535
	}
	return ethernetLen + 65535
}

// Capabilities implements [Link].
func (d *device) Capabilities() frame.Capabilities {
	if d.info.SoftwareGSO {
		return frame.Capabilities{TSO4: true, TSO6: true, USO: true, MaxFrame: d.info.maxSuper()}
	}
	k := d.kernel.Load()
	c := frame.Capabilities{
		TSO4: k&kernelTSO4 != 0, TSO6: k&kernelTSO6 != 0, USO: k&kernelUSO != 0,
		MaxFrame: ethernetLen + d.info.MTU,
	}
	if c.TSO4 || c.TSO6 || c.USO {
		c.MaxFrame = d.info.maxSuper()
	}
	return c
}

// Stats implements [Link].
func (d *device) Stats() Stats {
	var s Stats
	for _, q := range d.queues {
		s.RxFrames += q.rxFrames.Load()
		s.RxBytes += q.rxBytes.Load()
		s.RxMalformed += q.rxMalformed.Load()
		s.TxFrames += q.txFrames.Load()
		s.TxBytes += q.txBytes.Load()
		s.TxDropped += q.txDropped.Load()
	}
	return s
}

// Close implements [Link]. Whoever uses the queues must have stopped.
func (d *device) Close() error {
	var first error
	for _, q := range d.queues {
		if err := q.close(); err != nil && first == nil {
			first = fmt.Errorf("close link %s: %w", d.info.Name, err)
		}
	}
	return first
}

// Info is what the link was opened with, and the receive buffer it has now.
func (d *device) Info() Info { return d.info }

// setLogger implements what [SetLogger] looks for.
func (d *device) setLogger(l *slog.Logger) { d.logger.Store(l) }

// refused takes a kind of work away from the kernel for good.
func (d *device) refused(work uint32, what string) {
	if d.kernel.And(^work)&work == 0 {
		return // another queue was faster
	}
	log := d.logger.Load()
	if log == nil {
		log = slog.Default()
	}
	log.Warn("the kernel refuses "+what+": the link does it in software from now on", "link", d.info.Name)
}

// Wrapper is a link that passes frames on to another one. [SetLogger] and
// [ReceiveBuffer] look through it.
type Wrapper interface {
	Link
	Unwrap() Link
}

// SetLogger says where a link reports the loss of an offload, once each; without
// it that is slog.Default. Links with nothing to report ignore it.
func SetLogger(l Link, log *slog.Logger) {
	if d, ok := innermost(l).(interface{ setLogger(*slog.Logger) }); ok {
		d.setLogger(log)
	}
}

// ReceiveBuffer is [Info.ReceiveBuffer] of an attached link, in bytes; 0 means
// that no limit in bytes applies.
func ReceiveBuffer(l Link) int {
	if d, ok := innermost(l).(interface{ Info() Info }); ok {
		return d.Info().ReceiveBuffer
	}
	return 0
}

func innermost(l Link) Link {
	for {
		w, ok := l.(Wrapper)
		if !ok {
			return l
		}
		l = w.Unwrap()
	}
}
