package portfwd

import (
	"io"
	"net"
	"testing"
	"time"
)

// drain runs Drain, and returns a channel that is closed when it is done.
func (w *world) drain(stall time.Duration, stop <-chan struct{}) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.fwd.Drain(stall, stop)
	}()
	return done
}

func awaitDrain(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Drain goes on")
	}
}

// fill writes from near until all buffers on the way are full, the sandbox's
// kernel's too, and returns how much that was. That the relay holds something is
// not enough: a busy machine may only be late to take it.
func (w *world) fill(t *testing.T, near net.Conn, seed uint64) (sent int64) {
	t.Helper()
	in, chunk := stream(1<<30, seed), make([]byte, 64<<10)
	held, rest := 0, chunk[:0]
	for stuck := 0; stuck < 2; {
		if len(rest) == 0 {
			io.ReadFull(in, chunk)
			rest = chunk
		}
		near.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := near.Write(rest)
		if err != nil && !isTimeout(err) {
			t.Fatal(err)
		}
		rest = rest[n:]
		sent += int64(n)
		if now := w.held(); n == 0 && now == held && held > 0 {
			stuck++
		} else {
			held, stuck = now, 0
		}
	}
	near.SetWriteDeadline(time.Time{})
	return sent
}

func TestDrainWithNothingInFlightReturnsAtOnce(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	near.(*net.TCPConn).CloseWrite()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%v, want the end of the stream", err)
	}
	// The host may still speak: nobody is left in the sandbox to hear it.
	awaitDrain(t, w.drain(time.Hour, nil))
}

func TestDrainWaitsForWhatASlowReaderHasToTake(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	sent := w.fill(t, near, 7)
	near.Close() // as when the process ends: its kernel keeps what it sent
	done := w.drain(time.Hour, nil)
	select {
	case <-done:
		t.Error("Drain returned before the host had taken the stream")
	case <-time.After(100 * time.Millisecond):
	}
	result := make(chan int64)
	go func() { result <- compare(t, far, stream(sent, 7)) }()
	awaitDrain(t, done)
	w.fwd.Close() // what was handed over outlives the forwarder
	if n := <-result; n != sent {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
}

func TestDrainGivesUpWhenNothingMoves(t *testing.T) {
	w := newWorld(t)
	near, _ := w.connect(outside4)
	w.fill(t, near, 8)
	near.Close()
	const stall = 300 * time.Millisecond
	start := time.Now()
	awaitDrain(t, w.drain(stall, nil))
	if took := time.Since(start); took < stall {
		t.Errorf("gave up after %v", took)
	}
}

func TestDrainEndsWhenTold(t *testing.T) {
	w := newWorld(t)
	near, far := w.connect(outside4)
	w.exchangeByte(t, near, far)
	stop := make(chan struct{})
	done := w.drain(time.Hour, stop)
	select {
	case <-done:
		t.Error("Drain returned while a stream was open")
	case <-time.After(50 * time.Millisecond):
	}
	close(stop)
	awaitDrain(t, done)
}

func TestDrainOfAnEndedForwarderReturns(t *testing.T) {
	w := newWorld(t)
	near, _ := w.connect(outside4)
	w.fill(t, near, 9)
	done := w.drain(time.Hour, nil)
	w.fwd.Close()
	awaitDrain(t, done)
	awaitDrain(t, w.drain(time.Hour, nil))
}
