package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tcpFrame is an ACK with payload from 10.0.2.2:80 to 10.0.2.100:1234 whose
// checksum is left to the link.
func tcpFrame(payload int, gsoSize uint16) frame.Frame {
	h := []byte{2, 0, 0, 0, 0, 100, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 100}
	binary.BigEndian.PutUint16(h[16:], uint16(40+payload))
	binary.BigEndian.PutUint16(h[24:], checksum.Of(h[14:]))
	h = append(h, 0, 80, 1234>>8, 1234&0xff, 0, 0, 0, 1, 0, 0, 0, 2, 5<<4, 0x18, 1, 0, 0, 0, 0, 0)
	sum := checksum.Sum(0).Add(h[26:34]).AddUint16(6).AddUint16(uint16(20 + payload))
	binary.BigEndian.PutUint16(h[50:], sum.Fold())
	f := frame.Frame{Header: h}
	f.Payload[0], f.Payload[1] = make([]byte, payload/2), bytes.Repeat([]byte{7}, payload-payload/2)
	f.Offload = frame.Offload{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, HeaderLen: 54}
	if gsoSize > 0 {
		f.GSOType, f.GSOSize = frame.GSOTCPv4, gsoSize
	}
	return f
}

type packet struct {
	data []byte
	info gopacket.CaptureInfo
	dir  pcapgo.NgEpbFlag
}

func readAll(t *testing.T, r io.Reader) (all []packet) {
	t.Helper()
	ng, err := pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
	check(t, err)
	if ng.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v", ng.LinkType())
	}
	for {
		data, ci, opts, err := ng.ReadPacketDataWithOptions()
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return all
		}
		check(t, err)
		all = append(all, packet{data, ci, opts.Flags.Direction})
	}
}

func TestCaptureHoldsBothDirectionsWithChecksums(t *testing.T) {
	a, b := tapdev.NewChannel(1500)
	var file bytes.Buffer
	at := time.Unix(1700000000, 123456789)
	l, err := Capture(a, &file, Options{Interface: "tap0", Now: func() time.Time { return at }})
	check(t, err)
	q := l.Queues()[0]
	out, in := tcpFrame(3000, 1448), tcpFrame(10, 0)
	before := out.AppendTo(nil)
	check(t, q.Write([]frame.Frame{out}))
	check(t, b.Write([]frame.Frame{in, in}))
	got := make([]tapdev.Received, 4)
	n, err := q.Read(got)
	if n != 2 || err != nil || !got[0].NeedsChecksum {
		t.Fatalf("%d, %v, %+v: the wrapper must not change what it sees", n, err, got[0].Offload)
	}
	if !bytes.Equal(out.AppendTo(nil), before) {
		t.Error("the frame was changed")
	}

	// Not closed yet: this is what a killed program leaves.
	all := readAll(t, bytes.NewReader(file.Bytes()))
	if len(all) != 3 {
		t.Fatalf("%d packets in the file, want 3", len(all))
	}
	for i, want := range []pcapgo.NgEpbFlag{pcapgo.NgEpbFlagDirectionOutbound, pcapgo.NgEpbFlagDirectionInbound, pcapgo.NgEpbFlagDirectionInbound} {
		p := all[i]
		if p.dir != want || !p.info.Timestamp.Equal(at) {
			t.Errorf("packet %d: direction %v at %v", i, p.dir, p.info.Timestamp)
		}
		sum := checksum.Sum(0).Add(p.data[26:34]).AddUint16(6).AddUint16(uint16(len(p.data) - 34)).Add(p.data[34:])
		if !sum.Valid() {
			t.Errorf("packet %d: bad checksum in the file", i)
		}
	}
	if len(all[0].data) != 3054 {
		t.Errorf("super-segment of %d bytes, want it whole", len(all[0].data))
	}
	check(t, l.Close())
	if _, err := b.Read(got); err == nil {
		// The frame written before is still there; then comes the end.
		if _, err = b.Read(got); err == nil {
			t.Error("the link was not closed")
		}
	}
}

func TestCaptureSnapLengthKeepsTrueLength(t *testing.T) {
	a, b := tapdev.NewChannel(1500)
	defer b.Close()
	var file bytes.Buffer
	l, err := Capture(a, &file, Options{SnapLength: 64})
	check(t, err)
	check(t, l.Queues()[0].Write([]frame.Frame{tcpFrame(1000, 0)}))
	p := readAll(t, &file)[0]
	if len(p.data) != 64 || p.info.Length != 1054 {
		t.Errorf("%d bytes kept of %d", len(p.data), p.info.Length)
	}
}

// brokenFile takes so many bytes.
type brokenFile struct{ left int }

func (f *brokenFile) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(b), nil
}

func TestFileErrorIsReportedOnceAndTrafficGoesOn(t *testing.T) {
	a, b := tapdev.NewChannel(1500)
	var log bytes.Buffer
	l, err := Capture(a, &brokenFile{left: 2000}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	check(t, err)
	for range 10 {
		check(t, l.Queues()[0].Write([]frame.Frame{tcpFrame(500, 0)}))
	}
	in := make([]tapdev.Received, 20)
	if n, err := b.Read(in); n != 10 || err != nil {
		t.Errorf("%d frames arrived, %v; want 10", n, err)
	}
	if n := strings.Count(log.String(), "no space left"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, log.String())
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("close: %v", err)
	}
	if _, err := Capture(a, &brokenFile{}, Options{}); err == nil {
		t.Error("capture into a full disk started")
	}
}

func TestWiresharkReadsCapture(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("tshark is not installed; the other tests read captures with gopacket")
	}
	path := filepath.Join(t.TempDir(), "link.pcapng")
	f, err := os.Create(path)
	check(t, err)
	a, b := tapdev.NewChannel(1500)
	defer b.Close()
	l, err := Capture(a, f, Options{Interface: "tap0"})
	check(t, err)
	check(t, l.Queues()[0].Write([]frame.Frame{tcpFrame(3000, 1448), tcpFrame(1, 0)}))
	check(t, l.Close())
	out, err := exec.Command(tshark, "-n", "-r", path, "-o", "tcp.check_checksum:TRUE", "-T", "fields",
		"-e", "frame.interface_name", "-e", "tcp.len", "-e", "tcp.checksum.status", "-e", "frame.packet_flags_direction").Output()
	check(t, err)
	if got, want := string(out), "tap0\t3000\t1\t0x00000002\ntap0\t1\t1\t0x00000002\n"; got != want {
		t.Errorf("tshark says\n%q, want\n%q (good checksums, outbound)", got, want)
	}
}

func TestLogPacketsPrintsALineForEachFrame(t *testing.T) {
	a, b := tapdev.NewChannel(1500)
	var log bytes.Buffer
	handler := slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	l := LogPackets(a, slog.New(handler))
	defer l.Close()
	check(t, l.Queues()[0].Write([]frame.Frame{tcpFrame(3000, 1448)}))
	check(t, b.Write([]frame.Frame{tcpFrame(5, 0)}))
	if _, err := l.Queues()[0].Read(make([]tapdev.Received, 1)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"> IP 10.0.2.2:80 > 10.0.2.100:1234: Flags [P.], seq 1, ack 2, win 256, length 3000, frame 3054 (3 segments of 1448)",
		"< IP 10.0.2.2:80 > 10.0.2.100:1234: Flags [P.], seq 1, ack 2, win 256, length 5, frame 59",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two frames", n)
	}
	log.Reset()
	quiet := LogPackets(b, slog.New(slog.NewTextHandler(&log, nil)))
	check(t, quiet.Queues()[0].Write([]frame.Frame{tcpFrame(5, 0)}))
	if log.Len() != 0 {
		t.Errorf("printed above debug level: %s", log.String())
	}
}

func TestWrappersStack(t *testing.T) {
	a, _ := tapdev.NewChannel(1500)
	var file bytes.Buffer
	c, err := Capture(a, &file, Options{})
	check(t, err)
	l := LogPackets(c, slog.Default())
	if u := l.(tapdev.Wrapper).Unwrap().(tapdev.Wrapper).Unwrap(); u != tapdev.Link(a) {
		t.Errorf("unwrapped to %T", u)
	}
	check(t, l.Close())
	if err := a.Write([]frame.Frame{tcpFrame(1, 0)}); err == nil {
		t.Error("the innermost link is still open")
	}
}

func TestDescribe(t *testing.T) {
	eth := func(ethertype uint16, b ...byte) []byte {
		h := binary.BigEndian.AppendUint16([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, ethertype)
		return append(h, b...)
	}
	v4 := func(proto byte, frag byte, b ...byte) []byte {
		h := []byte{0x45, 0, 0, byte(20 + len(b)), 0, 9, frag, 0, 64, proto, 0, 0, 10, 0, 2, 100, 10, 0, 2, 3}
		return eth(0x0800, append(h, b...)...)
	}
	v6 := func(next byte, b ...byte) []byte {
		h := []byte{0x60, 0, 0, 0, 0, byte(len(b)), next, 64}
		h = append(append(h, []byte{0xfd, 15: 1}...), []byte{0xff, 2, 15: 2}...)
		return eth(0x86dd, append(h, b...)...)
	}
	dns := append([]byte{0x30, 0x39, 0, 53, 0, 25, 0, 0}, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 'g', 'o', 3, 'd', '\n', 'v', 0)
	for _, c := range []struct {
		head []byte
		want string
	}{
		{nil, "[truncated Ethernet, length 0]"},
		{eth(0x88cc), "07:08:09:0a:0b:0c > 01:02:03:04:05:06, ethertype 0x88cc, frame 14"},
		{eth(0x0806), "ARP [truncated], frame 14"},
		{eth(0x0806, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 100), "ARP who-has 10.0.2.100 tell 10.0.2.2, frame 42"},
		{eth(0x0806, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 100), "ARP 10.0.2.2 is-at 02:00:00:00:00:02, frame 42"},
		{eth(0x0800, 0x4f), "IP [bad header], frame 15"},
		{v4(17, 0, dns...), "IP 10.0.2.100:12345 > 10.0.2.3:53: UDP DNS go.d?v., length 20, frame 62"},
		{v4(1, 0, 8, 0, 0, 0, 0, 7, 0, 1), "IP 10.0.2.100 > 10.0.2.3: ICMP echo request id 7 seq 1, length 8, frame 42"},
		{v4(1, 0, 3, 1, 0, 0), "IP 10.0.2.100 > 10.0.2.3: ICMP unreachable code 1, length 4, frame 38"},
		{v4(17, 1), "IP 10.0.2.100 > 10.0.2.3: fragment at 2048 of ID 9, protocol 17, frame 34"},
		{v4(6, 0x20, 1, 2), "IP 10.0.2.100 > 10.0.2.3: protocol 6, length 2, first fragment, frame 36"},
		{v6(58, 135, 0, 0, 0), "IP6 fd00::1 > ff02::2: ICMP6 neighbor solicitation, length 4, frame 58"},
		{v6(0, 58, 0, 5, 2, 0, 0, 0, 0, 143, 0, 0, 0), "IP6 fd00::1 > ff02::2: ICMP6 multicast listener report, length 4, frame 66"},
		{v6(60, 58, 9), "IP6 fd00::1 > ff02::2: [truncated extension header], frame 56"},
	} {
		if got := Describe(c.head, len(c.head), frame.Offload{}); got != c.want {
			t.Errorf("% x:\n got %q\nwant %q", c.head, got, c.want)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	g := tcpFrame(10, 0)
	f.Add(g.AppendTo(nil), 64, uint16(54), uint16(5))
	f.Add(append([]byte{12: 0x86, 13: 0xdd, 14: 0x60}, make([]byte, 60)...), 100, uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, head []byte, length int, headerLen, size uint16) {
		s := Describe(head, length, frame.Offload{GSOType: frame.GSOUDP, HeaderLen: headerLen, GSOSize: size})
		if strings.ContainsAny(s, "\n\r\x1b") {
			t.Errorf("control characters in %q", s)
		}
	})
}
