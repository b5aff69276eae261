package portfwd

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/tapdev"
)

// allocations runs f and returns how many objects the whole process has
// allocated meanwhile.
func allocations(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

func TestPacketWayDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(outside4)
	buf, got := make([]byte, 64<<10), make([]byte, 64<<10)
	move := func(from, to net.Conn, n int) {
		for range n {
			if _, err := from.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(to, got); err != nil {
				t.Fatal(err)
			}
		}
	}
	server := hostListenPacket(t, outside4)
	go echoUDP(server)
	u := w.mustDial("udp", server.LocalAddr().String())
	ask := func(n int) {
		for range n {
			if _, err := u.Write(buf[:1000]); err != nil {
				t.Fatal(err)
			}
			if _, err := u.Read(got); err != nil {
				t.Fatal(err)
			}
		}
	}
	const n = 1000
	for name, f := range map[string]func(int){
		"to the host":    func(n int) { move(a, b, n) },
		"to the sandbox": func(n int) { move(b, a, n) },
		"datagrams":      ask,
	} {
		f(200) // until pools and windows have their size
		// Timers, the collector and the test's own end allocate now and then, and
		// an inbox when more frames wait in it than ever before. An allocation for
		// each packet shows every time: the least of several counts.
		got := allocations(func() { f(n) })
		for try := 1; try < 4 && got > n/20; try++ {
			got = min(got, allocations(func() { f(n) }))
		}
		if got > n/20 {
			t.Errorf("%s: %d allocations in %d exchanges", name, got, n)
		}
	}
}

func TestNothingWakesWhenNothingFlows(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(outside4) // an open connection that is idle
	a.Write([]byte("x"))
	b.Read(make([]byte, 1))
	// What Linux sends when an interface comes up (MLD, router solicitations)
	// is over sooner or later.
	turned := func() (sum uint64) {
		for _, s := range w.fwd.shards {
			s.call(func() { sum += s.counters.turns })
		}
		return sum
	}
	quiet := func() uint64 {
		before := turned()
		time.Sleep(300 * time.Millisecond)
		return turned() - before - uint64(len(w.fwd.shards)) // the calls themselves
	}
	var turns uint64
	for range 20 {
		if turns = quiet(); turns == 0 {
			return
		}
	}
	t.Errorf("%d turns of the loop in 300 ms without traffic", turns)
}

func TestCloseEndsLiveFlows(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way, queues(2), publishing("127.0.0.1::80", "127.0.0.1::53/udp"))
		go whoUDP(w.listenPacket("udp4", sandbox4+":53"))
		l := w.listen("tcp4", sandbox4+":80")
		in, err := net.Dial("tcp", w.bound[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		askUDP(t, "127.0.0.1", w.bound[1].Host.String())
		a, b := w.connect(outside4)
		w.fwd.Close()
		for name, c := range map[string]net.Conn{"sandbox": a, "outside": b, "client": in, "server": served} {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("%s: %v after Close, want a reset", name, err)
			}
		}
		if _, err := net.DialTimeout("tcp", w.bound[0].Host.String(), time.Second); err == nil {
			t.Error("the published port still answers")
		}
		select {
		case <-w.fwd.Done():
		default:
			t.Error("Done is not closed")
		}
		w.fwd.Close()
		if st := w.fwd.Stats(); st.TCP.Open != 0 {
			t.Errorf("%+v after Close", st.TCP)
		}
	})
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func TestForwardingEndsWithTheLink(t *testing.T) {
	lab.NeedHost(t)
	near, far := tapdev.NewChannel(1500)
	f, err := New(Config{Link: near, HardwareAddr: ourMAC, SandboxHardwareAddr: guestMAC, IPv4: testPolicy.ipv4})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer f.Close()
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	select {
	case <-f.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("it goes on without a link")
	}
	if f.Err() == nil {
		t.Error("no reason given")
	}
}
