package tapdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

// modes are all ways to open a link that move frames differently: every
// combination of offloads, with one queue and with four, and other MTUs.
func modes() map[string]Options {
	all := map[string]Options{}
	for _, kind := range []Kind{TAP, Packet} {
		for _, queues := range []int{1, 4} {
			for on := range 1 << 5 {
				o := testOptions(kind)
				o.Queues = queues
				name := fmt.Sprintf("%s, queues: %d", kind, queues)
				for i, offload := range []struct {
					name string
					on   *bool
				}{{"GSO", &o.GSO}, {"software GSO", &o.SoftwareGSO}, {"GRO", &o.GRO}, {"TX checksum", &o.TXChecksum}, {"RX checksum", &o.RXChecksum}} {
					if *offload.on = on>>i&1 != 0; *offload.on {
						name += ", " + offload.name
					}
				}
				all[name] = o
			}
		}
		for _, mtu := range []int{576, 65520} {
			o := testOptions(kind)
			o.MTU = mtu
			all[fmt.Sprintf("%s, MTU %d", kind, mtu)] = o
		}
		o := testOptions(kind)
		o.QDisc = "fifo"
		all[string(kind)+", fifo"] = o
	}
	return all
}

// TestEveryModeTalksToTheKernel runs the same conversation in every mode.
func TestEveryModeTalksToTheKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, o := range modes() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o)
			if w.info.VnetHeader == o.plain() {
				t.Errorf("virtio header: %v", w.info.VnetHeader)
			}
			w.pings()
			for _, v6 := range []bool{false, true} {
				if w.v6 = v6; v6 && o.MTU < 1280 {
					continue
				}
				w.datagramsOut()
				w.datagramsIn()
				w.tcp()
			}
			s := w.link.Stats()
			if s.TxDropped != 0 || s.RxMalformed != 0 || s.RxFrames == 0 || s.TxFrames == 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// pings answers the kernel's ARP request by hand and has an echo request
// answered by it.
func (w *world) pings() {
	stranger := netip.MustParseAddr("10.9.0.7")
	h := append(append(append([]byte(nil), theirMAC...), ourMAC...), 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 20 + 8 + 16, 0, 0, 0, 0, 64, 1, 0, 0}
	ip = append(append(ip, stranger.AsSlice()...), their4.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum.Of(ip))
	icmp := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, pattern(16)...)
	binary.BigEndian.PutUint16(icmp[2:], checksum.Of(icmp))
	// An interface that has just come up drops what comes until the kernel's
	// link watch has seen it.
	request := func() { w.send(frame.Frame{Header: append(bytes.Clone(h), ip...), Payload: [2][]byte{icmp}}) }
	arp := w.ask("ARP request", request, func(r Received) bool {
		d := r.Data
		return len(d) >= 42 && d[12] == 8 && d[13] == 6 && d[21] == 1 && bytes.Equal(d[38:42], stranger.AsSlice())
	})
	reply := append(append([]byte(nil), theirMAC...), ourMAC...)
	reply = append(reply, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	reply = append(append(reply, ourMAC...), stranger.AsSlice()...)
	reply = append(reply, arp.Data[22:32]...)
	w.send(frame.Frame{Header: reply})

	w.expect("echo reply", func(r Received) bool {
		d := r.Data
		return len(d) >= 34+24 && d[12] == 8 && d[13] == 0 && d[23] == 1 && d[34] == 0 &&
			bytes.Equal(d[38:58], icmp[4:]) && checksum.Of(d[34:58]) == 0
	})
}

// datagramsOut sends UDP to a socket of the kernel: a super-segment, and a
// batch that the link may join.
func (w *world) datagramsOut() {
	w.t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.theirs(), 0)))
	check(w.t, err)
	defer conn.Close()
	port := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	const size, n = 500, 20
	payload := pattern(size*n + 123)
	if w.link.Capabilities().USO {
		w.send(w.udp(5000, port, payload, size))
		w.receiveDatagrams(conn, payload, size)
	}
	var batch []frame.Frame
	for off := 0; off < len(payload); off += size {
		batch = append(batch, w.udp(5000, port, payload[off:min(off+size, len(payload))], 0))
	}
	before := w.link.Stats()
	w.send(batch...)
	w.receiveDatagrams(conn, payload, size)
	if got := w.link.Stats().TxFrames - before.TxFrames; got != n+1 {
		w.t.Errorf("%d frames counted, want %d whether or not they were joined", got, n+1)
	}
}

func (w *world) receiveDatagrams(conn *net.UDPConn, payload []byte, size int) {
	w.t.Helper()
	buf := make([]byte, 65536)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for i := 0; len(payload) > 0; i++ {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			w.t.Fatalf("datagram %d: %v", i, err)
		}
		want := payload[:min(size, len(payload))]
		if !bytes.Equal(buf[:n], want) || from.Addr().Unmap() != w.ours() {
			w.t.Fatalf("datagram %d: %d bytes from %s, want %d", i, n, from, len(want))
		}
		payload = payload[len(want):]
	}
}

// datagramsIn has the kernel send UDP, several datagrams in one call.
func (w *world) datagramsIn() {
	w.t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.ours(), 6000)))
	check(w.t, err)
	defer conn.Close()
	const size, n = 400, 12
	payload := pattern(size * n)
	raw, err := conn.SyscallConn()
	check(w.t, err)
	var optErr error
	check(w.t, raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	}))
	check(w.t, optErr)
	if !w.info.RXChecksum {
		// UDP_SEGMENT is EIO on an interface without checksum offload.
		check(w.t, raw.Control(func(fd uintptr) {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0)
		}))
		for off := 0; off < len(payload); off += size {
			_, err = conn.Write(payload[off : off+size])
			check(w.t, err)
		}
	} else {
		_, err = conn.Write(payload)
		check(w.t, err)
	}
	var got []byte
	super := false
	for len(got) < len(payload) {
		w.expect("datagram from the kernel", func(r Received) bool {
			b := w.transport(r, unix.IPPROTO_UDP)
			if b == nil || binary.BigEndian.Uint16(b[2:]) != 6000 {
				return false
			}
			got = append(got, b[8:]...)
			super = super || r.GSOType == frame.GSOUDP && r.GSOSize == size
			return true
		})
	}
	if !bytes.Equal(got, payload) {
		w.t.Error("payload differs")
	}
	if want := w.info.GSO && w.info.KernelUSO && w.info.RXChecksum; super != want {
		w.t.Errorf("UDP super-segment received: %v, want %v", super, want)
	}
}

// tcpPeer is one end of a connection, kept by hand.
type tcpPeer struct {
	*world
	port     uint16 // the kernel's
	seq, ack uint32
	window   uint16
}

const ourPort = 7000

// frame makes a segment, or with size not 0 a super-segment.
func (p *tcpPeer) frame(flags byte, payload []byte, size int) frame.Frame {
	h := binary.BigEndian.AppendUint16(nil, ourPort)
	h = binary.BigEndian.AppendUint16(h, p.port)
	h = binary.BigEndian.AppendUint32(h, p.seq)
	h = binary.BigEndian.AppendUint32(h, p.ack)
	h = append(h, 5<<4, flags)
	h = binary.BigEndian.AppendUint16(h, p.window)
	f := p.headers(unix.IPPROTO_TCP, append(h, 0, 0, 0, 0), len(payload))
	f.Payload[0], f.Payload[1] = payload[:len(payload)/2], payload[len(payload)/2:]
	if size > 0 {
		f.GSOType, f.GSOSize = frame.GSOTCPv4, uint16(size)
		if p.v6 {
			f.GSOType = frame.GSOTCPv6
		}
	}
	p.seq += uint32(len(payload)) + uint32(flags&1) + uint32(flags>>1&1)
	return f
}

// segment waits for a segment of the connection.
func (p *tcpPeer) segment(what string) (Received, []byte) {
	p.t.Helper()
	var b []byte
	r := p.expect(what, func(r Received) bool {
		b = p.transport(r, unix.IPPROTO_TCP)
		return b != nil && binary.BigEndian.Uint16(b[2:]) == ourPort && binary.BigEndian.Uint16(b) == p.port
	})
	return r, b
}

// tcp connects to a listener of the kernel, sends it data in super-segments and
// in a batch of small ones, and has it sent back.
func (w *world) tcp() {
	w.t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.theirs(), 0)))
	check(w.t, err)
	defer l.Close()
	size := w.info.MTU - 40
	if w.v6 {
		size -= 20
	}
	size = min(size, 16000)
	super := pattern(30000)
	batch := pattern(20 * 300)
	total := append(append([]byte(nil), super...), batch...)
	served := make(chan error, 1)
	go func() { served <- echoOnce(l, total) }()

	p := &tcpPeer{world: w, port: uint16(l.Addr().(*net.TCPAddr).Port), seq: 0xffffe000, window: 0xffff}
	w.send(p.frame(2, nil, 0))
	_, synAck := p.segment("SYN-ACK")
	p.ack = binary.BigEndian.Uint32(synAck[4:]) + 1
	w.send(p.frame(0x10, nil, 0))
	p.sendAll(super, size)
	var frames []frame.Frame
	for off := 0; off < len(batch); off += 300 {
		frames = append(frames, p.frame(0x10, batch[off:off+300], 0))
	}
	w.send(frames...)
	if got := p.receiveAll(len(total)); !bytes.Equal(got, total) {
		w.t.Error("what came back differs")
	}
	w.send(p.frame(0x14, nil, 0)) // RST, so that nothing lingers
	if err := <-served; err != nil {
		w.t.Error(err)
	}
}

// echoOnce reads what it expects from one connection and sends it back.
func echoOnce(l *net.TCPListener, want []byte) error {
	l.SetDeadline(time.Now().Add(5 * time.Second))
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("server read %d of %d bytes: %w", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("server read something else than was sent")
	}
	_, err = conn.Write(got)
	return err
}

// sendAll sends payload the way the link says it can take it.
func (p *tcpPeer) sendAll(payload []byte, size int) {
	p.t.Helper()
	if c := p.link.Capabilities(); c.TSO4 && !p.v6 || c.TSO6 && p.v6 {
		p.send(p.frame(0x18, payload, size))
		return
	}
	for off := 0; off < len(payload); off += size {
		p.send(p.frame(0x18, payload[off:min(off+size, len(payload))], 0))
	}
}

// receiveAll acknowledges and returns n bytes of the stream.
func (p *tcpPeer) receiveAll(n int) (stream []byte) {
	p.t.Helper()
	super, partial := false, false
	for len(stream) < n {
		r, b := p.segment("data")
		data := b[b[12]>>4*4:]
		if binary.BigEndian.Uint32(b[4:]) != p.ack {
			data = nil // sent again
		}
		super = super || len(r.Data) > ethernetLen+p.info.MTU && int(r.GSOSize) < len(data)
		partial = partial || r.NeedsChecksum
		stream = append(stream, data...)
		p.ack += uint32(len(data))
		p.send(p.frame(0x10, nil, 0))
	}
	if want := p.info.GSO && p.info.RXChecksum && p.info.MTU < 20000; super != want {
		p.t.Errorf("TCP super-segment received: %v, want %v", super, want)
	}
	if partial != p.info.RXChecksum {
		p.t.Errorf("checksum left to us: %v, want %v", partial, p.info.RXChecksum)
	}
	return stream
}
