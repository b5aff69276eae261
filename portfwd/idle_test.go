package portfwd

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack"
)

// age makes all that a forwarder holds look as if it had not been used for d
// more than is so, and has it look for what is idle.
func (w *world) age(d time.Duration) {
	for _, s := range w.fwd.shards {
		s.call(func() {
			for r := range s.relays {
				r.used = r.used.Add(-d)
				r.lookIdle(s.loop.Now())
			}
			for _, l := range []*idleList{&s.udp.unreplied, &s.udp.stream, &s.echo.idle} {
				for e := l.root.next; e != &l.root; e = e.next {
					e.last = e.last.Add(-d)
				}
				l.expire(s.loop.Now())
			}
		})
	}
}

// A real second or two passes between an event and age; this is more.
const slack = 15 * time.Second

func wantReset(t *testing.T, name string, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%s: %v, want a reset", name, err)
	}
}

// exchangeByte returns when what it sent is acknowledged everywhere.
func (w *world) exchangeByte(t *testing.T, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.awaitAcknowledged(t)
}

// awaitAcknowledged waits until no payload is under way.
func (w *world) awaitAcknowledged(t *testing.T) {
	t.Helper()
	for start := time.Now(); w.underWay(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("a byte is not acknowledged")
		}
	}
}

func (w *world) underWay() (some bool) {
	for _, s := range w.fwd.shards {
		s.call(func() {
			for r := range s.relays {
				some = some || r.underWay()
			}
		})
	}
	return some
}

func TestIdleConnectionEndsAfterFiveDays(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(outside4)
	const limit = 5 * 24 * time.Hour
	w.exchangeByte(t, a, b) // for the last ACK of the handshake to be behind us
	for range 3 {           // what moves payload is not idle, either way
		w.age(limit - slack)
		w.exchangeByte(t, a, b)
		w.age(limit - slack)
		w.exchangeByte(t, b, a)
	}
	w.age(limit)
	wantReset(t, "sandbox", a)
	wantReset(t, "outside", b)
	if st := w.fwd.Stats().TCP; st.Idle != 1 || st.Open != 0 {
		t.Errorf("%+v, want none open and one ended for being idle", st)
	}
}

func TestHalfClosedConnectionEndsAfterAMinuteOfSilence(t *testing.T) {
	for _, name := range []string{"by the sandbox", "by the host"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			closer, other := w.connect(outside4)
			if name == "by the host" {
				closer, other = other, closer
			}
			closer.(*net.TCPConn).CloseWrite()
			if _, err := other.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("%v, want the end of the stream", err)
			}
			for range 3 {
				w.age(60*time.Second - slack)
				w.exchangeByte(t, other, closer)
			}
			w.age(60 * time.Second)
			wantReset(t, "that closed first", closer)
			if st := w.fwd.Stats().TCP; st.Idle != 1 || st.Open != 0 {
				t.Errorf("%+v, want none open and one ended for being idle", st)
			}
		})
	}
}

func TestConnectionWithDataUnderWayIsNotIdle(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	sent := w.fill(t, near, 5) // far does not read
	near.(*net.TCPConn).CloseWrite()
	w.age(24 * time.Hour)
	w.age(10 * 24 * time.Hour)
	if n := compare(t, far, stream(sent, 5)); n != sent {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
}

func TestConnectWithoutAnswerEndsAfterTwoMinutes(t *testing.T) {
	w := newWorld(t)
	fd := w.rawSocket(t)
	unix.SetNonblock(fd, true)
	if err := connectRaw(fd, deafListener(t)); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v, want it in progress", err)
	}
	for w.fwd.Stats().TCP.Open == 0 {
		time.Sleep(time.Millisecond)
	}
	w.age(120*time.Second - slack)
	if st := w.fwd.Stats().TCP; st.Open != 1 {
		t.Fatalf("%+v, want it still in progress", st)
	}
	w.age(slack)
	held := w.inStacks(func(st *netstack.Stats) int { return st.TCP.Held })
	if st := w.fwd.Stats().TCP; st.Open != 0 || st.Idle != 1 || held != 0 {
		t.Errorf("%+v, %d held, want it given up", st, held)
	}
}

func TestIdleTimesAreAdjustable(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) {
		c.Timeouts = Timeouts{TCPEstablished: time.Second, UDPStream: time.Second}
	}))
	server := hostListenPacket(t, outside4)
	go echoUDP(server)
	exchange(t, w.mustDial("udp", server.LocalAddr().String()), 10)
	start := time.Now()
	a, _ := w.connect(outside4)
	wantReset(t, "sandbox", a) // by the timer, without anybody's doing
	if took := time.Since(start); took < time.Second {
		t.Errorf("ended after %v", took)
	}
	for start := time.Now(); w.fwd.Stats().UDP.Open > 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the datagram flow goes on")
		}
	}
}

func TestIdleDatagramFlowsEnd(t *testing.T) {
	w := newWorld(t)
	silent, talking := hostListenPacket(t, outside4), hostListenPacket(t, outside4)
	go echoUDP(talking)
	both := w.mustDial("udp", talking.LocalAddr().String())
	exchange(t, both, 10)
	w.mustDial("udp", silent.LocalAddr().String()).Write([]byte("?"))
	for w.fwd.Stats().UDP.Outbound < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := w.ping(outside4, 1); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		age       time.Duration
		udp, echo int
		use       bool
	}{
		{30*time.Second - slack, 2, 1, false},
		{slack, 1, 0, true}, // 30 s: the one without an answer, and the ping
		{120*time.Second - slack, 1, 0, true},
		{120*time.Second - slack, 1, 0, false},
		{slack, 0, 0, false},
	} {
		w.age(step.age)
		if st := w.fwd.Stats(); st.UDP.Open != step.udp || st.Echo.Open != step.echo {
			t.Errorf("after %v: %d datagram and %d echo flows, want %d and %d", step.age, st.UDP.Open, st.Echo.Open, step.udp, step.echo)
		}
		if step.use {
			exchange(t, both, 10)
		}
	}
}

func TestNewPingEvictsTheLongestIdle(t *testing.T) {
	w := newWorld(t, queues(1), withConfig(func(c *Config) { c.Limits.Echo = 2 })) // of a shard, as all limits
	to := netip.MustParseAddr(outside4).String()
	for seq := range uint16(5) { // each from a socket, and so an identifier, of its own
		if err := w.ping(to, seq); err != nil {
			t.Fatal(err)
		}
	}
	if st := w.fwd.Stats().Echo; st.Open != 2 || st.Requests != 5 || st.Evicted != 3 {
		t.Errorf("%+v, want 2 open of 5, and 3 evicted", st)
	}
}
