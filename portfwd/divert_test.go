package portfwd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/internal/lab"
)

// newDivertingWorld is one in which bulk leaves the link.
func newDivertingWorld(t testing.TB, options ...option) (*world, *lab.Diverter) {
	d := new(lab.Diverter)
	w := newWorld(t, append([]option{spliced, withConfig(func(c *Config) { c.Diverter = d; c.diverts = divertTimes{time.Minute, 20 * time.Second} })}, options...)...)
	d.Thread = w.sandbox
	return w, d
}

// awaitTCP waits until the statistics are as they should be.
func (w *world) awaitTCP(t testing.TB, what string, ok func(TCPStats) bool) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		st := w.fwd.Stats().TCP
		if ok(st) {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%s: %+v", what, st)
		}
	}
}

func (w *world) awaitNoRules(t testing.TB, d *lab.Diverter) {
	t.Helper()
	for start := time.Now(); d.Rules() > 0 || w.fwd.diverted.now.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d rules are left, %d counted", d.Rules(), w.fwd.diverted.now.Load())
		}
	}
}

// divertedPair returns both ends of a connection out of the sandbox that was
// diverted, after so much traffic to the host, all of which has arrived.
func (w *world) divertedPair(t testing.TB, host string) (sandbox, outside net.Conn) {
	t.Helper()
	sandbox, outside = w.connect(host)
	before := w.fwd.Stats().TCP.Diverted
	part := make([]byte, 1<<20)
	got := make(chan error, 1)
	for total := 0; w.fwd.Stats().TCP.Diverted == before; total += len(part) {
		if total > 1<<30 {
			t.Fatalf("not diverted after %d bytes: %+v", total, w.fwd.Stats().TCP)
		}
		go func() {
			_, err := io.CopyN(io.Discard, outside, int64(len(part)))
			got <- err
		}()
		if _, err := sandbox.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	return sandbox, outside
}

func TestBulkLeavesTheLinkAndNothingIsLost(t *testing.T) {
	for _, host := range []string{outside4, outside6} {
		w, d := newDivertingWorld(t)
		a, b := w.connect(host)
		swap(t, a, b, 200<<20)
		w.awaitTCP(t, "the connection is over", func(st TCPStats) bool {
			return st.Diverted == 1 && st.Outbound == 1 && st.Open == 0 && st.ToHost == 200<<20 && st.ToSandbox == 200<<20
		})
		w.awaitNoRules(t, d)
	}
}

func TestBulkOneWayLeavesTheLink(t *testing.T) {
	const size = 100 << 20
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			w, d := newDivertingWorld(t)
			from, to := w.connect(outside4)
			if !up {
				from, to = to, from
			}
			go func() {
				io.Copy(struct{ io.Writer }{from}, stream(size, 7))
				from.(*net.TCPConn).CloseWrite()
			}()
			if n := compare(t, to, stream(size, 7)); n != size {
				t.Errorf("%d bytes arrived", n)
			}
			if st := w.fwd.Stats().TCP; st.Diverted != 1 {
				t.Errorf("%+v, want one diverted", st)
			}
			from.Close()
			to.Close()
			w.awaitNoRules(t, d)
		})
	}
}

func TestDivertedConnectionDoesWithoutTheLink(t *testing.T) {
	w, _ := newDivertingWorld(t)
	a, b := w.divertedPair(t, outside4)
	frames := func() (n uint64) {
		for _, s := range w.fwd.Stats().Stacks {
			n += s.FramesIn
		}
		return n
	}
	before := frames()
	swap(t, a, b, 20<<20)
	if n := frames() - before; n > 20 {
		t.Errorf("%d frames came over the link", n)
	}
}

// The sandbox asks for a window by itself after 200 ms, so this is to be less. A
// busy machine may be late now and then.
func TestSandboxGoesOnAtOnce(t *testing.T) {
	for _, host := range []string{outside4, outside6} {
		best := time.Hour
		for range 5 {
			w, d := newDivertingWorld(t)
			a, b := w.connect(host)
			go io.Copy(io.Discard, b)
			go func() {
				for part := make([]byte, 1<<20); ; {
					if _, err := a.Write(part); err != nil {
						return
					}
				}
			}()
			w.awaitTCP(t, "diverted", func(st TCPStats) bool { return st.Diverted == 1 })
			before := w.fwd.Stats().TCP.ToHost
			w.awaitTCP(t, "goes on", func(st TCPStats) bool { return st.ToHost > before+4<<20 })
			best = min(best, time.Since(d.Last()))
			a.Close()
			b.Close()
			// Until then it may take a pipe, which the next world would count.
			w.awaitTCP(t, "over", func(st TCPStats) bool { return st.Open == 0 })
		}
		if best > 150*time.Millisecond {
			t.Errorf("%s: %v passed at least until there was more", host, best)
		}
	}
}

func TestEndsOfADivertedConnectionCross(t *testing.T) {
	w, d := newDivertingWorld(t)
	for name, test := range map[string]func(sandbox, outside net.Conn){
		"sandbox resets": func(sandbox, outside net.Conn) {
			reset(sandbox)
			if _, err := outside.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("outside reads %v", err)
			}
		},
		"outside resets": func(sandbox, outside net.Conn) {
			reset(outside)
			if _, err := sandbox.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the sandbox reads %v", err)
			}
		},
		"sandbox ends first": func(sandbox, outside net.Conn) {
			sandbox.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(outside); len(b) > 0 || err != nil {
				t.Errorf("outside reads %q, %v", b, err)
			}
			outside.Write([]byte("still here"))
			outside.Close()
			if b, err := io.ReadAll(sandbox); string(b) != "still here" || err != nil {
				t.Errorf("the sandbox reads %q, %v", b, err)
			}
		},
		"outside ends first": func(sandbox, outside net.Conn) {
			outside.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(sandbox); len(b) > 0 || err != nil {
				t.Errorf("the sandbox reads %q, %v", b, err)
			}
			sandbox.Write([]byte("still here"))
			sandbox.Close()
			if b, err := io.ReadAll(outside); string(b) != "still here" || err != nil {
				t.Errorf("outside reads %q, %v", b, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, host := range []string{outside4, outside6} {
				test(w.divertedPair(t, host))
				w.awaitTCP(t, "over", func(st TCPStats) bool { return st.Open == 0 })
				w.awaitNoRules(t, d)
			}
		})
	}
}

// ageLeaving has diverted connections that both ends have ended look as if that were
// so long ago, and returns how many there are.
func (w *world) ageLeaving(d time.Duration) (n int) {
	for _, s := range w.fwd.shards {
		s.call(func() {
			n += len(s.leaving)
			for c := range s.leaving {
				c.since = c.since.Add(-d)
				c.lookOver()
			}
		})
	}
	return n
}

// The sandbox may end its stream, and take its time with what is on its way to it.
func TestSlowReaderOfADivertedConnectionLosesNothing(t *testing.T) {
	const size = 48 << 10 // more than the sandbox takes, and less than the kernel does
	w, d := newDivertingWorld(t)
	for _, host := range []string{outside4, outside6} {
		sandbox, outside := w.divertedPair(t, host)
		if err := sandbox.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { // the kernel inside is to hold most of it
			t.Fatal(err)
		}
		endStream(t, sandbox)
		wantEOF(t, outside)
		io.Copy(struct{ io.Writer }{outside}, stream(size, 9))
		outside.Close()
		w.awaitTCP(t, "both ends of stream have passed", func(st TCPStats) bool { return st.Open == 0 })
		for i := range 3 {
			if n := w.ageLeaving(time.Hour); n != 1 {
				t.Fatalf("%d connections are waited for after %d hours, want 1", n, i)
			}
		}
		if n := compare(t, sandbox, stream(size, 9)); n != size {
			t.Errorf("%d bytes arrived of %d", n, size)
		}
		w.awaitNoRules(t, d)
	}
}

func TestRuleThatWasTakenAwayIsMended(t *testing.T) {
	w, d := newDivertingWorld(t)
	a, b := w.divertedPair(t, outside4)
	time.Sleep(mendAfter) // as long it may be the switch's doing
	d.Lose()
	swap(t, a, b, 20<<20)
	w.awaitNoRules(t, d)
}

func TestDivertedConnectionWhoseRuleCannotBeMendedIsReset(t *testing.T) {
	w, d := newDivertingWorld(t)
	a, b := w.divertedPair(t, outside4)
	time.Sleep(mendAfter)
	d.Lose()
	d.SetRefusal(errors.New("no more rules"))
	if _, err := a.Write([]byte("hello")); err != nil { // brings it up
		t.Fatal(err)
	}
	for _, c := range []net.Conn{b, a} { // a write that fails would take the error away
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
	}
	w.awaitNoRules(t, d)
}

// leavingPair has a diverted connection leave: both ends of stream have passed, and the
// sandbox has not read what was sent to it before, of which the kernel inside holds most.
func (w *world) leavingPair(t *testing.T, sent int64) (sandbox net.Conn) {
	t.Helper()
	sandbox, outside := w.divertedPair(t, outside4)
	if err := sandbox.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	endStream(t, sandbox)
	wantEOF(t, outside)
	io.Copy(struct{ io.Writer }{outside}, stream(sent, 9))
	outside.Close()
	w.awaitTCP(t, "both ends of stream have passed", func(st TCPStats) bool { return st.Open == 0 })
	if n := w.ageLeaving(0); n != 1 {
		t.Fatalf("%d connections leave, want 1", n)
	}
	return sandbox
}

func TestRuleOfALeavingConnectionIsMended(t *testing.T) {
	const size = 64 << 10
	w, d := newDivertingWorld(t)
	sandbox := w.leavingPair(t, size)
	time.Sleep(mendAfter)
	d.Lose()
	sandbox.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n := compare(t, sandbox, stream(size, 9)); n != size {
		t.Errorf("%d bytes arrived of %d", n, size)
	}
	w.awaitNoRules(t, d)
}

// Of what was sent the kernel inside may hold some back, or all may be on its way and
// the sandbox's drop what its reader has no room for: then no
// reset of that kernel's says where the sandbox is.
func TestLeavingConnectionWhoseRuleCannotBeMendedIsReset(t *testing.T) {
	for _, sent := range []int64{16 << 10, 64 << 10} {
		t.Run(fmt.Sprintf("%d KiB", sent>>10), func(t *testing.T) {
			w, d := newDivertingWorld(t)
			sandbox := w.leavingPair(t, sent)
			time.Sleep(mendAfter)
			d.Lose()
			d.SetRefusal(errors.New("no more rules"))
			wantResetBehind(t, sandbox)
			w.awaitNoRules(t, d)
			for _, s := range w.fwd.shards {
				s.call(func() {
					if s.away != 0 || len(s.leaving) > 0 {
						t.Errorf("%d are away, %d leave", s.away, len(s.leaving))
					}
				})
			}
			if n := w.fwd.diverted.now.Load(); n != 0 {
				t.Errorf("%d counted", n)
			}
		})
	}
}

// wantResetBehind reads what comes until the connection is reset, which it is to be soon.
func wantResetBehind(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, c); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v after %d bytes, want a reset", err, n)
	}
}

// A sandbox that has dropped segments takes no reset for what comes after them
// (RFC 5961 §3), and asks on the way on which it is reset.
func TestResetReachesASandboxThatHasDroppedSegments(t *testing.T) {
	for _, host := range []string{outside4, outside6} {
		w, d := newDivertingWorld(t)
		sandbox, outside := w.divertedPair(t, host)
		if err := sandbox.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		outside.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		outside.Write(make([]byte, 1<<20))
		reset(outside)
		wantResetBehind(t, sandbox)
		w.awaitNoRules(t, d)
	}
}

// Who ends while its rule is being mended leaves none.
func TestRuleIsNotMendedBehindTheEnd(t *testing.T) {
	w, d := newDivertingWorld(t, queues(1))
	sandbox, outside := w.divertedPair(t, outside4)
	var conn *divertedConn
	s := w.fwd.shards[0]
	s.call(func() {
		for c := range s.splices.all {
			conn = c.diverted
		}
	})
	reset(sandbox)
	reset(outside)
	w.awaitNoRules(t, d)
	conn.mendRule()
	if n := d.Rules(); n != 0 {
		t.Errorf("%d rules are left", n)
	}
}

func TestManyConnectionsLeaveTheLinkAtOnce(t *testing.T) {
	w, d := newDivertingWorld(t, queues(2))
	var running sync.WaitGroup
	for i := range 8 {
		a, b := w.connect([]string{outside4, outside6}[i%2])
		running.Go(func() { swap(t, a, b, int64(10+5*i)<<20+int64(i)) })
	}
	running.Wait()
	if st := w.fwd.Stats().TCP; st.Diverted == 0 {
		t.Errorf("%+v, want some diverted", st)
	}
	w.awaitNoRules(t, d)
}

func TestConnectionThatCannotBeDivertedGoesOnOverTheLink(t *testing.T) {
	w, d := newDivertingWorld(t)
	d.SetRefusal(errors.New("a container's"))
	a, b := w.connect(outside4)
	swap(t, a, b, 100<<20)
	if st := w.fwd.Stats(); st.TCP.Diverted != 0 || st.TCP.ToHost != 100<<20 || w.fwd.diverted.now.Load() != 0 {
		t.Errorf("%+v, %d counted", st.TCP, w.fwd.diverted.now.Load())
	}
}

func TestDiverterWithoutSocketsDivertsNothing(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.Diverter, c.diverts.bulk = new(lab.Diverter), time.Minute }))
	a, b := w.connect(outside4)
	swap(t, a, b, 20<<20)
	if st := w.fwd.Stats().TCP; st.Diverted != 0 {
		t.Errorf("%+v, want nothing diverted", st)
	}
}

func TestSlowConnectionsStayOnTheLink(t *testing.T) {
	w, _ := newDivertingWorld(t, withConfig(func(c *Config) { c.diverts.bulk = bulkTime }))
	a, b := w.connect(outside4)
	go io.Copy(io.Discard, b)
	part := make([]byte, 1<<20)
	for range 16 { // 16 MiB, but not in bulkTime
		if _, err := a.Write(part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(bulkTime / 4)
	}
	if st := w.fwd.Stats().TCP; st.Diverted != 0 {
		t.Errorf("%+v, want nothing diverted", st)
	}
}

func TestDivertedConnectionsAreCounted(t *testing.T) {
	var d diverted
	for range divertedMost {
		if !d.enter() {
			t.Fatal("no room")
		}
	}
	if d.enter() {
		t.Fatalf("room for more than %d", divertedMost)
	}
	if d.leave(); !d.enter() {
		t.Error("who left still counts")
	}
}

func TestForwarderThatEndsEndsDivertedConnections(t *testing.T) {
	w, _ := newDivertingWorld(t)
	a, b := w.divertedPair(t, outside4)
	w.fwd.Close()
	for name, c := range map[string]net.Conn{"sandbox": a, "outside": b} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("%s reads %v", name, err)
		}
	}
}

// reset resets a connection.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// What both have moved since says where the two are.
func TestMovedCountsFromWhenAConnectionWasTakenUp(t *testing.T) {
	w, _ := newDivertingWorld(t, queues(1))
	sandbox, outside := w.divertedPair(t, outside4)
	moved := func() (acknowledged, received uint64) {
		s := w.fwd.shards[0]
		s.call(func() {
			for c := range s.splices.all {
				acknowledged, received = hostsock.Moved(c.server.fd)
			}
		})
		return acknowledged, received
	}
	down, up := moved()
	if down != 0 || up >= 64<<20 {
		t.Errorf("%d bytes acknowledged though nothing was sent, %d received", down, up)
	}
	for _, d := range []struct {
		from, to net.Conn
		n        int
	}{{outside, sandbox, 10_000}, {sandbox, outside, 20_000}} { // the answer acknowledges
		d.from.Write(make([]byte, d.n))
		if _, err := io.ReadFull(d.to, make([]byte, d.n)); err != nil {
			t.Fatal(err)
		}
	}
	if d, u := moved(); d != 10_000 || u != up+20_000 {
		t.Errorf("%d bytes acknowledged, %d received, want %d and %d", d, u, 10_000, up+20_000)
	}
}

// Whatever the stack's clock shows, that of the socket inside goes on from there, in
// milliseconds.
func TestClockOfASocketInsideCountsMilliseconds(t *testing.T) {
	w := newWorld(t)
	for i, at := range []uint32{1000, 1001, 1<<32 - 1} {
		e := hostsock.Established{
			Local: netip.MustParseAddrPort(outside4 + ":80"), Remote: netip.AddrPortFrom(netip.MustParseAddr(sandbox4), uint16(1000+i)),
			SendWindow: 1, MaxSendWindow: 1, ReceiveWindow: 1, MSS: 1460, Timestamps: true, Timestamp: at,
		}
		files, err := w.sandbox.Inside(false, 1)
		if err != nil {
			t.Fatal(err)
		}
		fd := int(files[0].Fd())
		if errno := hostsock.TakeUp(fd, &e); errno != 0 {
			t.Fatal(errno)
		}
		clock := func() uint32 {
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
			if err != nil {
				t.Fatal(err)
			}
			return uint32(v)
		}
		began, first := time.Now(), clock()
		time.Sleep(20 * time.Millisecond)
		on := clock() - first
		if most := time.Since(began).Milliseconds() + 2; first-at > 1000 || int64(on) > most {
			t.Errorf("it went on from %d at %d, and by %d in %d ms", at, first, on, most)
		}
		files[0].Close()
	}
}
