package portfwd

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
)

// described is a link of which only the description is known.
type described struct {
	tapdev.Link
	info tapdev.Info
}

func (d described) Info() tapdev.Info { return d.info }

// TestWindowsFitThePacketLink: frames that a packet socket has no memory for are
// lost, so no window is wider than half of its buffer, however long the path.
func TestWindowsFitThePacketLink(t *testing.T) {
	for _, tt := range []struct{ buffer, set, setMax, start, most int }{
		{0, 0, 0, 512 << 10, 16 << 20}, // a TAP
		{8 << 20, 0, 0, 512 << 10, 4 << 20},
		{208 << 10, 0, 0, 104 << 10, 104 << 10},
		{4 << 10, 0, 0, 64 << 10, 64 << 10},
		{0, 0, 2 << 20, 512 << 10, 2 << 20},
		{0, 0, 256 << 10, 256 << 10, 256 << 10},
		{208 << 10, 0, 16 << 20, 104 << 10, 104 << 10},
		{208 << 10, 1 << 20, 0, 1 << 20, 0}, // who sets it knows why; tcp.Config makes it fixed
	} {
		l := described{info: tapdev.Info{Options: allOffloads(tapdev.Packet), KernelTSO: true, ReceiveBuffer: tt.buffer}}
		c := Config{Link: l, ReceiveBuffer: tt.set, ReceiveBufferMax: tt.setMax}
		c.setDefaults()
		if c.ReceiveBuffer != tt.start || c.ReceiveBufferMax != tt.most {
			t.Errorf("%+v: window of %d, at most %d", tt, c.ReceiveBuffer, c.ReceiveBufferMax)
		}
	}
}

// TestWindowsBeginSmallWhereTheSandboxCutsItsSegments: each of them takes a place
// in the link's queue.
func TestWindowsBeginSmallWhereTheSandboxCutsItsSegments(t *testing.T) {
	for name, cut := range map[string]func(*tapdev.Info){
		"no GSO":                 func(i *tapdev.Info) { i.GSO = false },
		"no checksum offload":    func(i *tapdev.Info) { i.RXChecksum = false },
		"the kernel has no TSO":  func(i *tapdev.Info) { i.KernelTSO = false },
		"all offloads are there": func(*tapdev.Info) {},
	} {
		info := tapdev.Info{Options: allOffloads(tapdev.TAP), KernelTSO: true}
		cut(&info)
		want := 128 << 10
		if name == "all offloads are there" {
			want = 512 << 10
		}
		l, err := impair.Wrap(described{info: info, Link: noQueues{}}, impair.Spec{Delay: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c := Config{Link: l}
		c.setDefaults()
		if c.ReceiveBuffer != want || c.ReceiveBufferMax != 16<<20 {
			t.Errorf("%s: window of %d, at most %d", name, c.ReceiveBuffer, c.ReceiveBufferMax)
		}
	}
}

type noQueues struct{ tapdev.Link }

func (noQueues) Queues() []tapdev.Queue { return nil }

// worldOn is a sandbox behind a link with the given options, impaired. The
// sandbox's kernel has buffers that fill any path.
func worldOn(t *testing.T, o tapdev.Options, impairment string) *world {
	t.Helper()
	lab.NeedHost(t)
	if o.Kind == tapdev.TAP {
		lab.NeedTAP(t)
	}
	spec, err := impair.Parse(impairment)
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.MTU, o.Queues, o.HardwareAddr = "tap0", 1500, 1, guestMAC[:]
	w := &world{t: t, sandbox: lab.NewThread(t)}
	w.sandbox.Do(func() { w.link, err = attach(o) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.link.Close() })
	if w.link, err = impair.Wrap(w.link, spec); err != nil {
		t.Fatal(err)
	}
	w.fwd, err = New(Config{
		Link: w.link, HardwareAddr: ourMAC, SandboxHardwareAddr: guestMAC,
		IPv4: Addresses{Gateway: netip.MustParseAddr(gateway4), Sandbox: netip.MustParseAddr(sandbox4), Prefix: netip.MustParsePrefix("10.0.2.0/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.fwd.Close() })
	if err := w.fwd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// attach is called inside the sandbox.
func attach(o tapdev.Options) (tapdev.Link, error) {
	info, files, err := tapdev.Open(o)
	if err != nil {
		return nil, err
	}
	l, err := tapdev.Attach(info, files)
	if err != nil {
		return nil, err
	}
	// The kernel's receive window may stay at its first 60 KB for seconds: it
	// begins with more.
	const large = "4096 8388608 67108864"
	err = lab.Configure(map[string]string{
		"net/ipv4/tcp_congestion_control": "cubic", "net/ipv4/tcp_no_metrics_save": "1",
		"net/ipv4/tcp_rmem": large, "net/ipv4/tcp_wmem": large,
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func allOffloads(kind tapdev.Kind) tapdev.Options {
	return tapdev.Options{Kind: kind, GSO: true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "fifo"}
}

// move sends n bytes of nothing and returns when all have been read.
func move(t *testing.T, from, to net.Conn, n int64) {
	t.Helper()
	go func() {
		buf := make([]byte, 256<<10)
		for left := n; left > 0; {
			m, err := from.Write(buf[:min(left, int64(len(buf)))])
			if err != nil {
				return
			}
			left -= int64(m)
		}
	}()
	if got, err := io.CopyN(io.Discard, to, n); err != nil {
		t.Errorf("%d of %d bytes: %v", got, n, err)
	}
}

// TestLongPathCarriesMoreThanAMebibyteInARoundTrip: 100 ms there and back, where
// a window of 1 MiB brings 10.5 MB/s at most. Other load on
// the machine can only make it slower, so it may try three times.
func TestLongPathCarriesMoreThanAMebibyteInARoundTrip(t *testing.T) {
	const (
		trip = 100 * time.Millisecond
		n    = 80 << 20
	)
	fixed := time.Duration(n>>20) * trip // not counting slow start
	enough := fixed * 3 / 4
	for _, way := range []string{"up", "down"} {
		t.Run(way, func(t *testing.T) {
			best := time.Hour
			for try := 0; try < 3 && best > enough; try++ {
				w := worldOn(t, allOffloads(tapdev.TAP), "delay=50ms,limit=20000")
				from, to := w.connect(outside4)
				if way == "down" {
					from, to = to, from
				} else {
					withoutHyStart(t, from)
				}
				start := time.Now()
				move(t, from, to, n)
				best = min(best, time.Since(start))
				t.Logf("%d MiB in %v, %.0f Mbit/s; a window of 1 MiB would take %v", n>>20, time.Since(start), n*8/time.Since(start).Seconds()/1e6, fixed)
			}
			if best > enough {
				t.Errorf("%d MiB took %v, want %v", n>>20, best, enough)
			}
		})
	}
}

// withoutHyStart: cubic's slow start ends when the round trip grows, which on a
// busy machine may be at once.
func withoutHyStart(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
	if err != nil {
		t.Fatal(err)
	}
}

// lossesInside is what the sandbox's kernel knows of frames lost on the link: its
// device's drops, and what TCP has sent again.
func (w *world) lossesInside() (dropped, resent uint64) {
	w.t.Helper()
	err := w.sandbox.Try(func() error {
		l, err := netlink.LinkByName("tap0")
		if err != nil {
			return err
		}
		dropped = l.Attrs().Statistics.TxDropped + w.socketDrops()
		resent, err = tcpRetransmissions()
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return dropped, resent
}

// socketDrops is what a packet link's socket had no memory for.
func (w *world) socketDrops() (n uint64) {
	for _, q := range w.link.Queues() {
		if s, err := unix.GetsockoptTpacketStats(q.FD(), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n += uint64(s.Drops)
		}
	}
	return n
}

// tcpRetransmissions is RetransSegs of the thread's namespace.
func tcpRetransmissions() (uint64, error) {
	b, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RetransSegs" {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("no RetransSegs in %q", b)
}

// TestFastLinkIsNotOverrun: what a window may bring has to find room in the
// link's queue, which counts frames or their memory, and where the sandbox cuts
// its segments itself there are forty times as many. So windows stay about what
// they begin with: a round trip is short. It is the link's own drops that count: on
// a busy machine TCP sends this and that again for nothing.
func TestFastLinkIsNotOverrun(t *testing.T) {
	size := int64(128 << 20)
	if testing.Short() {
		size = 32 << 20
	}
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		for _, gso := range []bool{true, false} {
			for _, streams := range []int{1, 8} {
				if kind == tapdev.Packet && streams > 1 {
					continue // net.core.rmem_max may leave room for one only
				}
				t.Run(fmt.Sprintf("%s/gso=%v/%d", kind, gso, streams), func(t *testing.T) {
					o := allOffloads(kind)
					o.GSO = gso
					w := worldOn(t, o, "none")
					start := time.Now()
					var all sync.WaitGroup
					var senders []net.Conn
					for range streams {
						from, to := w.connect(outside4)
						senders = append(senders, from)
						all.Go(func() { move(t, from, to, size/int64(streams)) })
					}
					all.Wait()
					dropped, resent := w.lossesInside()
					rate := float64(size) * 8 / time.Since(start).Seconds() / 1e9
					window := 0
					for _, c := range senders {
						window = max(window, windowTold(t, c))
					}
					t.Logf("%.2f Gbit/s, window of %d, %d frames dropped, %d segments sent again", rate, window, dropped, resent)
					if window > 1<<20 {
						t.Errorf("window of %d", window)
					}
					if dropped != 0 {
						t.Errorf("the link dropped %d frames from the sandbox", dropped)
					}
				})
			}
		}
	}
}

// windowTold is the window that our stack has told the other end of c, a socket in
// the sandbox, last. It never narrows while everything is read.
func windowTold(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Snd_wnd) // 0 before Linux 6.2
}
