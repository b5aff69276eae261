package tapdev

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/tapdev/virtio"
)

// recorder takes the place of the kernel behind a queue.
type recorder struct {
	writes [][]byte
	answer func(b []byte) unix.Errno // nil takes everything
}

func (r *recorder) write(_ int, iov []unix.Iovec) unix.Errno {
	var b []byte
	for _, v := range iov {
		b = append(b, unsafeBytes(v)...)
	}
	if r.answer != nil {
		if errno := r.answer(b); errno != 0 {
			return errno
		}
	}
	r.writes = append(r.writes, b)
	return 0
}

// newRecorded is a TAP queue with all offloads whose kernel is a recorder.
func newRecorded(t *testing.T, change func(i *Info)) (*device, *queue, *recorder) {
	t.Helper()
	info := Info{Options: testOptions(TAP), Kind: TAP, VnetHeader: true, KernelTSO: true, KernelUSO: true}
	if change != nil {
		change(&info)
	}
	d := &device{info: info}
	d.kernel.Store(kernelWork(info))
	q := newQueue(d, -1)
	r := &recorder{}
	q.write = r.write
	d.queues = []*queue{q}
	return d, q, r
}

// someFrames makes frames without a namespace.
func someFrames(t *testing.T) *tcpPeer {
	return &tcpPeer{world: &world{t: t}, port: 80, window: 1000}
}

func TestBatchOfSmallSegmentsIsOneWrite(t *testing.T) {
	_, q, r := newRecorded(t, nil)
	p := someFrames(t)
	data := pattern(10 * 100)
	var batch []frame.Frame
	for i := range 10 {
		batch = append(batch, p.frame(0x10, data[i*100:(i+1)*100], 0))
	}
	check(t, q.Write(batch))
	if len(r.writes) != 1 {
		t.Fatalf("%d writes, want 1", len(r.writes))
	}
	b := r.writes[0]
	o, err := virtio.Parse(b[:virtio.Size], b[virtio.Size:])
	if err != nil || o.GSOType != frame.GSOTCPv4 || o.GSOSize != 100 || !bytes.Equal(b[virtio.Size+54:], data) {
		t.Errorf("%+v, %v, %d bytes", o, err, len(b))
	}
	if s := q.dev.Stats(); s.TxFrames != 10 || s.TxBytes != 10*154 {
		t.Errorf("%+v", s)
	}

	_, q, r = newRecorded(t, func(i *Info) { i.GRO = false })
	check(t, q.Write(batch))
	if len(r.writes) != 10 {
		t.Errorf("%d writes without GRO, want 10", len(r.writes))
	}
}

func TestRefusedOffloadIsDoneInSoftwareForGood(t *testing.T) {
	for name, c := range map[string]struct {
		refuse func(o frame.Offload) bool
		logs   int
	}{
		"UDP segmentation":     {func(o frame.Offload) bool { return o.GSOType == frame.GSOUDP }, 1},
		"TCP segmentation":     {func(o frame.Offload) bool { return o.GSOType == frame.GSOTCPv4 }, 1},
		"all segmentation":     {func(o frame.Offload) bool { return o.GSOType != frame.GSONone }, 2},
		"checksums and so all": {func(o frame.Offload) bool { return o.NeedsChecksum }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d, q, r := newRecorded(t, nil)
			refusals := 0
			r.answer = func(b []byte) unix.Errno {
				o, err := virtio.Parse(b[:virtio.Size], b[virtio.Size:])
				if err != nil || c.refuse(o) {
					refusals++
					return unix.EINVAL
				}
				return 0
			}
			var log bytes.Buffer
			SetLogger(d, slog.New(slog.NewTextHandler(&log, nil)))
			for range 3 {
				p := someFrames(t)
				check(t, q.Write([]frame.Frame{
					p.udp(1, 2, pattern(3000), 1000), p.frame(0x10, pattern(3000), 1000),
					p.frame(0x10, pattern(100), 0), p.frame(0x10, pattern(100), 0),
				}))
			}
			if got := strings.Count(log.String(), "refuses"); got != c.logs || refusals != c.logs {
				t.Errorf("%d log lines, %d refusals, want %d:\n%s", got, refusals, c.logs, log.String())
			}
			checkDelivered(t, r.writes, 3*(3000+3000+200))
			if s := d.Stats(); s.TxDropped != 0 {
				t.Errorf("%+v", s)
			}
			if caps := d.Capabilities(); !caps.TSO4 || !caps.USO {
				t.Errorf("%+v: the link's software still segments", caps)
			}
			d.info.SoftwareGSO = false
			lost := c.refuse(frame.Offload{NeedsChecksum: true, GSOType: frame.GSOTCPv4})
			if caps := d.Capabilities(); caps.TSO4 == lost {
				t.Errorf("%+v without software GSO, TSO4 lost: %v", caps, lost)
			}
		})
	}
}

// checkDelivered counts payload and checks what claims to be complete.
func checkDelivered(t *testing.T, writes [][]byte, want int) {
	t.Helper()
	got := 0
	for _, b := range writes {
		data := b[virtio.Size:]
		o, err := virtio.Parse(b[:virtio.Size], data)
		check(t, err)
		headers := 42
		if data[23] == 6 {
			headers = 54
		}
		got += len(data) - headers
		if o.NeedsChecksum {
			continue
		}
		if !checksum.PseudoHeader(our4, their4, data[23], uint32(len(data)-34)).Add(data[34:]).Valid() {
			t.Errorf("incomplete checksum: % x", data[:headers])
		}
	}
	if got != want {
		t.Errorf("%d bytes of payload, want %d", got, want)
	}
}

func TestOwnMalformedSuperSegmentDoesNotCostTheOffload(t *testing.T) {
	d, q, r := newRecorded(t, nil)
	r.answer = func([]byte) unix.Errno { return unix.EINVAL }
	p := someFrames(t)
	f := p.frame(0x10, pattern(3000), 1000)
	f.ChecksumOffset = 4
	check(t, q.Write([]frame.Frame{f}))
	if d.kernel.Load()&kernelTSO4 == 0 || d.Stats().TxDropped != 1 {
		t.Errorf("offload %#x, %+v", d.kernel.Load(), d.Stats())
	}
}

func TestHeadersInOnePieceWithPayloadAreCutToo(t *testing.T) {
	_, q, r := newRecorded(t, func(i *Info) { i.VnetHeader, i.TXChecksum, i.GSO = true, false, false })
	p := someFrames(t)
	f := p.frame(0x10, pattern(3000), 1000)
	whole := frame.Frame{Header: f.AppendTo(nil), Offload: f.Offload}
	check(t, q.Write([]frame.Frame{whole}))
	if len(r.writes) != 3 {
		t.Errorf("%d writes, want 3", len(r.writes))
	}
	checkDelivered(t, r.writes, 3000)
}

func TestWriteLeavesFramesAsTheyWere(t *testing.T) {
	_, q, _ := newRecorded(t, func(i *Info) { i.TXChecksum = false })
	p := someFrames(t)
	out := []frame.Frame{p.frame(0x10, pattern(3000), 1000), p.frame(0x10, pattern(30), 0), p.udp(1, 2, pattern(7), 0)}
	var before [][]byte
	for i := range out {
		before = append(before, out[i].AppendTo(nil))
	}
	check(t, q.Write(out))
	for i := range out {
		if !bytes.Equal(out[i].AppendTo(nil), before[i]) {
			t.Errorf("frame %d was changed", i)
		}
	}
}

// tinySocket is a queue over a socket that takes few frames, for real EAGAINs.
func tinySocket(t *testing.T, qdisc string) (q *queue, other int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	o := testOptions(TAP)
	o.QDisc = qdisc
	q = newQueue(&device{info: Info{Options: o, Kind: TAP}}, fds[0])
	q.dev.queues = []*queue{q}
	t.Cleanup(func() { q.dev.Close(); unix.Close(fds[1]) })
	return q, fds[1]
}

func numbered(n int) []frame.Frame {
	var all []frame.Frame
	for i := range n {
		f := ethernet(1000)
		f.Header[0], f.Header[1] = byte(i>>8), byte(i)
		all = append(all, f)
	}
	return all
}

func drain(fd int) (numbers []int) {
	b := make([]byte, 2000)
	for {
		n, err := unix.Read(fd, b)
		if err != nil || n < 2 {
			return numbers
		}
		numbers = append(numbers, int(b[0])<<8|int(b[1]))
	}
}

func TestFullDeviceDropsAndCountsWithoutQueueing(t *testing.T) {
	q, other := tinySocket(t, "none")
	const n = 2000
	check(t, q.Write(numbered(n)))
	got := drain(other)
	s := q.dev.Stats()
	if s.TxDropped == 0 || int(s.TxFrames) != len(got) || s.TxFrames+s.TxDropped != n {
		t.Errorf("%d frames arrived, %+v", len(got), s)
	}
	if pending, err := q.Flush(); pending || err != nil {
		t.Error(pending, err)
	}
}

func TestFifoKeepsOrderAndIsBounded(t *testing.T) {
	q, other := tinySocket(t, "fifo")
	const n = 3000
	check(t, q.Write(numbered(n)))
	if s := q.dev.Stats(); s.TxDropped == 0 || s.TxDropped > n-fifoFrames {
		t.Errorf("%+v: want about %d kept", s, fifoFrames)
	}
	if got := q.kept.frames(); got != fifoFrames {
		t.Errorf("%d frames kept, want %d", got, fifoFrames)
	}
	var arrived []int
	for range n {
		arrived = append(arrived, drain(other)...)
		pending, err := q.Flush()
		check(t, err)
		if !pending {
			break
		}
	}
	check(t, q.Write(numbered(1)))
	arrived = append(arrived, drain(other)...)
	for i, v := range arrived[:len(arrived)-1] {
		if v != i {
			t.Fatalf("frame %d arrived as number %d", v, i)
		}
	}
	if s := q.dev.Stats(); int(s.TxFrames) != len(arrived) || q.kept.size != 0 || arrived[len(arrived)-1] != 0 {
		t.Errorf("%d arrived, %+v, %d bytes kept", len(arrived), s, q.kept.size)
	}
}

func TestBacklogIsBoundedInBytes(t *testing.T) {
	b := backlog{limitFrames: 100, limitBytes: 2500}
	c := make([]byte, 1000)
	iov := []unix.Iovec{{Base: &c[0]}}
	iov[0].SetLen(len(c))
	for i := range 3 {
		if took := b.push(iov, 1, 1000); took != (i < 2) {
			t.Errorf("write %d of 1000 bytes taken: %v; want two in 2500", i, took)
		}
	}
	b.pop()
	if !b.push(iov, 1, 1000) || b.frames() != 2 || b.size != 2000 {
		t.Errorf("%d frames, %d bytes", b.frames(), b.size)
	}
}

func TestReadCountsMalformedFramesAndLeavesThemOut(t *testing.T) {
	q, other := tinySocket(t, "none")
	for _, n := range []int{3, 14, 13, 1514, 5000, 60} {
		if _, err := unix.Write(other, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	in := make([]Received, 10)
	n, err := q.Read(in)
	if n != 3 || err != nil || len(in[0].Data) != 14 || len(in[1].Data) != 1514 || len(in[2].Data) != 60 {
		t.Errorf("%d, %v", n, err)
	}
	if s := q.dev.Stats(); s.RxFrames != 3 || s.RxBytes != 14+1514+60 || s.RxMalformed != 3 {
		t.Errorf("%+v", s)
	}
	if n, err := q.Read(in); n != 0 || err != nil {
		t.Errorf("nothing there: %d, %v", n, err)
	}
}

func TestReadAndWriteDoNotAllocate(t *testing.T) {
	q, other := tinySocket(t, "none")
	back := newQueue(q.dev, other)
	in := make([]Received, ringSize)
	out := numbered(3)
	p := someFrames(t)
	// Cut and checksummed in software, as this queue has no virtio header.
	out = append(out, p.frame(0x10, pattern(3000), 1000), p.udp(1, 2, pattern(50), 0))
	if n := testing.AllocsPerRun(200, func() {
		if err := q.Write(out); err != nil {
			t.Fatal(err)
		}
		for n := 1; n > 0; {
			var err error
			if n, err = back.Read(in); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}

	_, q, _ = newRecorded(t, nil)
	q.write = func(int, []unix.Iovec) unix.Errno { return 0 }
	batch := []frame.Frame{
		p.frame(0x10, pattern(60000), 1448), p.frame(0x10, pattern(100), 0), p.frame(0x10, pattern(100), 0),
		p.udp(1, 2, pattern(50), 0), p.udp(1, 2, pattern(50), 0),
	}
	if n := testing.AllocsPerRun(200, func() { q.Write(batch) }); n != 0 {
		t.Errorf("%v allocations with offload", n)
	}
}

func BenchmarkWriteSuperSegment(b *testing.B) {
	q, p := benchQueue(b)
	out := []frame.Frame{p.frame(0x10, pattern(64000), 1448)}
	b.SetBytes(64000)
	b.ReportAllocs()
	for b.Loop() {
		q.Write(out)
	}
}

func BenchmarkWriteSmallBatch(b *testing.B) {
	q, p := benchQueue(b)
	var out []frame.Frame
	for range 32 {
		out = append(out, p.frame(0x10, pattern(1000), 0))
	}
	b.SetBytes(32000)
	b.ReportAllocs()
	for b.Loop() {
		q.Write(out)
	}
}

// benchQueue is a queue without a kernel, to see what the rest costs.
func benchQueue(b *testing.B) (*queue, *tcpPeer) {
	info := Info{Options: testOptions(TAP), Kind: TAP, VnetHeader: true, KernelTSO: true, KernelUSO: true}
	d := &device{info: info}
	d.kernel.Store(kernelWork(info))
	q := newQueue(d, -1)
	q.write = func(int, []unix.Iovec) unix.Errno { return 0 }
	return q, &tcpPeer{world: &world{}, port: 80, window: 1000}
}

func FuzzWrite(f *testing.F) {
	p := &tcpPeer{world: &world{}, port: 80, window: 1000}
	for _, g := range []frame.Frame{p.frame(0x10, pattern(300), 100), p.udp(1, 2, pattern(300), 0), ethernet(60)} {
		f.Add(g.Header, uint16(len(g.Payload[1])), g.NeedsChecksum, byte(g.GSOType), g.GSOSize, g.ChecksumStart, g.ChecksumOffset, g.HeaderLen, true, byte(0))
	}
	f.Fuzz(func(t *testing.T, header []byte, n uint16, sum bool, kind byte, size, start, field, headerLen uint16, vnet bool, errno byte) {
		d, q, r := newRecorded(t, func(i *Info) {
			i.VnetHeader, i.QDisc = vnet, "fifo"
		})
		r.answer = func([]byte) unix.Errno { return unix.Errno(errno) }
		g := frame.Frame{Header: bytes.Clone(header)}
		g.Payload[0], g.Payload[1] = pattern(5), pattern(int(n))
		g.Offload = frame.Offload{
			NeedsChecksum: sum, GSOType: frame.GSOType(kind), GSOSize: size,
			ChecksumStart: start, ChecksumOffset: field, HeaderLen: headerLen,
		}
		err := q.Write([]frame.Frame{g, g, g})
		if s := d.Stats(); err == nil && s.TxFrames == 0 && s.TxDropped == 0 && q.kept.frames() == 0 {
			t.Errorf("three frames vanished: %+v", s)
		}
	})
}
