package tapdev

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/tapdev/gso"
)

var (
	ourMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	theirMAC = net.HardwareAddr{2, 0, 0, 0, 0, 100}
	our4     = netip.MustParseAddr("10.9.0.2")
	their4   = netip.MustParseAddr("10.9.0.100")
	our6     = netip.MustParseAddr("fd09::2")
	their6   = netip.MustParseAddr("fd09::100")
)

// world is a link to the kernel's stack in the test's own namespace.
type world struct {
	t    *testing.T
	info Info
	link Link
	v6   bool
	read []Received
}

// newWorld opens a link and gives the kernel's end addresses, and neighbour
// entries for ours.
func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if o.Kind == TAP {
		needTAP(t)
	}
	info, l := openLink(t, o)
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(o.Name); err == nil && o.Kind == Packet {
			netlink.LinkDel(l)
		}
	})
	setAddresses(t, o)
	w := &world{t: t, info: info, link: l}
	if o.MTU >= 1280 {
		w.awaitIPv6()
	}
	return w
}

// setAddresses brings the kernel's end up.
func setAddresses(t *testing.T, o Options) {
	t.Helper()
	dev, err := netlink.LinkByName(o.Name)
	check(t, err)
	for _, a := range []netip.Prefix{netip.PrefixFrom(their4, 24), netip.PrefixFrom(their6, 64)} {
		if a.Addr().Is6() && o.MTU < 1280 {
			continue
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		check(t, netlink.AddrAdd(dev, addr))
	}
	check(t, netlink.LinkSetUp(dev))
	for _, a := range []netip.Addr{our4, our6} {
		if a.Is6() && o.MTU < 1280 {
			continue
		}
		check(t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: dev.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: ourMAC,
		}))
	}
	if got := dev.Attrs(); got.MTU != o.MTU || got.HardwareAddr.String() != theirMAC.String() {
		t.Errorf("interface has MTU %d and address %s", got.MTU, got.HardwareAddr)
	}
}

// awaitIPv6 sends echo requests until the kernel answers: it puts an IPv6
// address to use some time after it was asked to, even without duplicate
// address detection (addrconf_dad_work).
func (w *world) awaitIPv6() {
	w.t.Helper()
	w.v6 = true
	defer func() { w.v6 = false }()
	f := w.headers(unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0x12, 0x34, 0, 1}, 0)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		w.send(f)
		for _, r := range w.receive(20 * time.Millisecond) {
			if b := w.transport(r, unix.IPPROTO_ICMPV6); len(b) == 8 && b[0] == 129 {
				return
			}
		}
	}
	w.t.Fatal("the kernel does not answer over IPv6")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) ours() netip.Addr {
	if w.v6 {
		return our6
	}
	return our4
}

func (w *world) theirs() netip.Addr {
	if w.v6 {
		return their6
	}
	return their4
}

// send writes to the first queue.
func (w *world) send(frames ...frame.Frame) {
	w.t.Helper()
	check(w.t, w.link.Queues()[0].Write(frames))
}

// expect reads until a frame matches, and returns it with its data copied.
func (w *world) expect(what string, match func(r Received) bool) Received {
	w.t.Helper()
	return w.ask(what, func() {}, match)
}

// ask is expect for an answer to what may be lost on the way: it is sent again.
func (w *world) ask(what string, send func(), match func(r Received) bool) Received {
	w.t.Helper()
	deadline, again := time.Now().Add(10*time.Second), time.Time{}
	for time.Now().Before(deadline) {
		if time.Now().After(again) {
			send()
			again = time.Now().Add(500 * time.Millisecond)
		}
		for i, r := range w.read {
			if match(r) {
				w.read = w.read[i+1:]
				return r
			}
		}
		w.read = w.receive(100 * time.Millisecond)
	}
	w.t.Fatalf("%s did not come", what)
	return Received{}
}

// receive returns what all queues have, waiting for the first.
func (w *world) receive(wait time.Duration) (all []Received) {
	w.t.Helper()
	var fds []unix.PollFd
	for _, q := range w.link.Queues() {
		fds = append(fds, unix.PollFd{Fd: int32(q.FD()), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(fds, int(wait.Milliseconds())); err != nil && err != unix.EINTR {
		w.t.Fatal(err)
	}
	in := make([]Received, 8)
	for _, q := range w.link.Queues() {
		n, err := q.Read(in)
		check(w.t, err)
		for _, r := range in[:n] {
			r.Data = append([]byte(nil), r.Data...)
			all = append(all, r)
		}
	}
	return all
}

// headers makes Ethernet and IP headers in front of a transport header, and the
// offload metadata that says so.
func (w *world) headers(proto byte, transport []byte, payload int) frame.Frame {
	h := append(append(append([]byte(nil), theirMAC...), ourMAC...), 0x08, 0x00)
	n := len(transport) + payload
	var sum checksum.Sum
	if w.v6 {
		h[12], h[13] = 0x86, 0xdd
		h = append(h, 0x60, 0, 0, 0)
		h = binary.BigEndian.AppendUint16(h, uint16(n))
		h = append(h, proto, 64)
		h = append(append(h, our6.AsSlice()...), their6.AsSlice()...)
		sum = checksum.PseudoHeaderIPv6(our6, their6, proto, uint32(n))
	} else {
		h = append(h, 0x45, 0)
		h = binary.BigEndian.AppendUint16(h, uint16(20+n))
		h = append(h, 0, 0, 0x40, 0, 64, proto, 0, 0)
		h = append(append(h, our4.AsSlice()...), their4.AsSlice()...)
		binary.BigEndian.PutUint16(h[24:], checksum.Of(h[14:34]))
		sum = checksum.PseudoHeaderIPv4(our4, their4, proto, uint32(n))
	}
	f := frame.Frame{}
	f.ChecksumStart = uint16(len(h))
	f.Header = append(h, transport...)
	f.HeaderLen = uint16(len(f.Header))
	f.ChecksumOffset = 16
	if proto == unix.IPPROTO_UDP {
		f.ChecksumOffset = 6
	}
	if proto == unix.IPPROTO_ICMPV6 {
		f.ChecksumOffset = 2
	}
	binary.BigEndian.PutUint16(f.Header[f.ChecksumStart+f.ChecksumOffset:], sum.Fold())
	f.NeedsChecksum = true
	return f
}

// udp makes a datagram, or with size not 0 a super-segment of datagrams.
func (w *world) udp(from, to uint16, payload []byte, size int) frame.Frame {
	h := binary.BigEndian.AppendUint16(nil, from)
	h = binary.BigEndian.AppendUint16(h, to)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	f := w.headers(unix.IPPROTO_UDP, append(h, 0, 0), len(payload))
	f.Payload[0], f.Payload[1] = payload[:len(payload)/3], payload[len(payload)/3:]
	if size > 0 {
		f.GSOType, f.GSOSize = frame.GSOUDP, uint16(size)
	}
	return f
}

// transport is the transport header and payload of a received frame of a
// protocol between the two of us, nil if it is something else. It fails the
// test if a checksum is not what the frame's offload says.
func (w *world) transport(r Received, proto byte) []byte {
	w.t.Helper()
	d := r.Data
	start, got := 34, byte(0)
	if len(d) > 54 && d[12] == 0x86 && d[13] == 0xdd {
		start, got = 54, d[20]
	} else if d[12] == 0x08 && d[13] == 0 && len(d) > 34 {
		got = d[23]
	}
	if got != proto {
		return nil
	}
	if !w.info.RXChecksum && r.NeedsChecksum {
		w.t.Errorf("the sandbox left a checksum out against RXChecksum=false: %+v", r.Offload)
	}
	if len(d) > ethernetLen+w.info.MTU && r.GSOType == frame.GSONone {
		w.t.Errorf("frame of %d bytes is no super-segment", len(d))
	}
	if r.NeedsChecksum && int(r.ChecksumStart) != start {
		w.t.Errorf("checksum starts at %d, want %d", r.ChecksumStart, start)
	}
	finished := append([]byte(nil), d...)
	o := r.Offload
	gso.FinishBytes(finished, &o)
	src, dst := netip.AddrFrom4([4]byte(d[26:30])), netip.AddrFrom4([4]byte(d[30:34]))
	if start == 54 {
		src, dst = netip.AddrFrom16([16]byte(d[22:38])), netip.AddrFrom16([16]byte(d[38:54]))
	}
	if !checksum.PseudoHeader(src, dst, proto, uint32(len(d)-start)).Add(finished[start:]).Valid() {
		w.t.Errorf("bad checksum in frame with %+v", r.Offload)
	}
	return d[start:]
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return b
}

func TestMain(m *testing.M) {
	// Bring loopback up where this is a namespace of our own: nothing but the
	// first process of one has it down.
	if os.Getenv("TAPDEV_TEST_IN_NAMESPACE") != "" {
		if lo, err := netlink.LinkByName("lo"); err == nil {
			netlink.LinkSetUp(lo)
		}
	}
	os.Exit(m.Run())
}
