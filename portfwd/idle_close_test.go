package portfwd

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack"
	"sbxnet/netstack/tcp"
)

// silence takes the sandbox's end of the link down: nothing that we send arrives
// any more, and no acknowledgement comes.
func (w *world) silence(t *testing.T) {
	t.Helper()
	err := w.sandbox.Try(func() error {
		tap, err := netlink.LinkByName("tap0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(tap)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitState waits until the one connection is in the state.
func (w *world) awaitState(t *testing.T, want tcp.State) {
	t.Helper()
	var got tcp.State
	for start := time.Now(); got != want; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("in %v, want %v", got, want)
		}
		for _, s := range w.fwd.shards {
			s.call(func() {
				for r := range s.relays {
					got = r.conn.State()
				}
			})
		}
	}
}

func endStream(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// Each time begins when its state does, is the one that Config.Timeouts says, and
// ends the connection on both sides.
func TestIdleTimesOfClosingConnections(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state tcp.State
		limit func(*Timeouts) *time.Duration
		def   time.Duration
		enter func(t *testing.T, w *world, sandbox, host net.Conn)
		left  func(sandbox, host net.Conn) net.Conn // that has a stream open still, and learns of the end
	}{
		{
			"FIN_WAIT: the sandbox does not acknowledge the host's end of stream", tcp.FinWait1,
			func(t *Timeouts) *time.Duration { return &t.TCPFinWait }, 120 * time.Second,
			func(t *testing.T, w *world, _, host net.Conn) {
				w.silence(t)
				endStream(t, host)
			},
			func(_, host net.Conn) net.Conn { return host },
		}, {
			"LAST_ACK: the sandbox has ended its stream, and does not acknowledge the host's end", tcp.LastAck,
			func(t *Timeouts) *time.Duration { return &t.TCPLastAck }, 30 * time.Second,
			func(t *testing.T, w *world, sandbox, host net.Conn) {
				endStream(t, sandbox)
				wantEOF(t, host)
				w.silence(t)
				endStream(t, host)
			},
			nil, // the host's socket is closed in good order before
		}, {
			"CLOSE_WAIT: the sandbox has ended its stream, and the host is silent", tcp.CloseWait,
			func(t *Timeouts) *time.Duration { return &t.TCPCloseWait }, 60 * time.Second,
			func(t *testing.T, w *world, sandbox, host net.Conn) {
				endStream(t, sandbox)
				wantEOF(t, host)
			},
			func(sandbox, _ net.Conn) net.Conn { return sandbox },
		}, {
			"FIN_WAIT_2: the host has ended its stream, and the sandbox is silent", tcp.FinWait2,
			func(t *Timeouts) *time.Duration { return &t.TCPCloseWait }, 60 * time.Second,
			func(t *testing.T, w *world, sandbox, host net.Conn) {
				endStream(t, host)
				wantEOF(t, sandbox)
			},
			func(_, host net.Conn) net.Conn { return host },
		},
	} {
		for _, own := range []bool{false, true} {
			name, limit := tt.name, tt.def
			var timeouts Timeouts
			if own {
				name, limit = name+", with a time of its own", 10*time.Minute
				*tt.limit(&timeouts) = limit
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, withConfig(func(c *Config) { c.Timeouts = timeouts }))
				sandbox, host := w.connect(outside4)
				w.exchangeByte(t, sandbox, host)
				w.age(limit) // of the state before, which allows five days
				tt.enter(t, w, sandbox, host)
				w.awaitState(t, tt.state)
				w.awaitAcknowledged(t) // the end of stream by the host's peer too
				w.age(limit - slack)
				if st := w.fwd.Stats().TCP; st.Open != 1 || st.Idle != 0 {
					t.Fatalf("%+v, want it open a while before its time", st)
				}
				w.age(slack)
				if tt.left != nil {
					wantReset(t, "whose stream is open", tt.left(sandbox, host))
				}
				w.awaitEnd(t)
			})
		}
	}
}

func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%v, want the end of the stream", err)
	}
}

// awaitEnd waits until the connection is off all books, ended for being idle.
func (w *world) awaitEnd(t *testing.T) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		st := w.fwd.Stats().TCP
		left := w.inStacks(func(st *netstack.Stats) int { return st.TCP.Connections + st.TCP.TimeWait })
		if st.Open == 0 && st.Idle == 1 && left == 0 {
			return
		}
		if time.Since(start) > 5*time.Second {
			t.Fatalf("%+v, %d connections in the stack; want none, and one ended for being idle", st, left)
		}
	}
}

// By the timers alone, nobody doing anything: the reset reaches both ends.
func TestSilentHalfClosedConnectionIsReset(t *testing.T) {
	const limit = 300 * time.Millisecond
	w := newWorld(t, withConfig(func(c *Config) { c.Timeouts.TCPCloseWait = limit }))
	closer, other := w.connect(outside4)
	start := time.Now()
	endStream(t, closer)
	wantEOF(t, other)
	wantReset(t, "that closed first", closer)
	if took := time.Since(start); took < limit {
		t.Errorf("reset after %v, want %v", took, limit)
	}
	// Whose peer had closed before the reset gets EPIPE (tcp_reset,
	// net/ipv4/tcp_input.c).
	var err error
	for start := time.Now(); err == nil && time.Since(start) < 5*time.Second; time.Sleep(time.Millisecond) {
		_, err = other.Write([]byte{1})
	}
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the other end writes on: %v", err)
	}
	w.awaitEnd(t)
}
