package portfwd

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// blockedWorld has a shard stand in splice(2), with a socket that was made to block,
// until free is called.
func blockedWorld(t *testing.T) (w *world, free func()) {
	w, l, shared := sharingWorld(t)
	client, server := w.publishedPair(t, l)
	shared.block(true)
	// What comes last may be a message, which is copied, and no splice waits for more.
	const size = 4 << 20
	for tries := 0; !w.fwd.shards[0].standsStill(); tries++ {
		if tries == 100 {
			t.Fatal("the shard does not stand still")
		}
		go server.Write(make([]byte, size))
		if _, err := io.ReadFull(client, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	return w, func() {
		shared.block(false)
		shared.close()
		server.Close() // which it waits for
	}
}

// standsStill reports whether the shard does nothing, for far longer than it takes.
func (s *shard) standsStill() bool {
	did := make(chan struct{})
	s.loop.Post(func() { close(did) })
	select {
	case <-did:
		return false
	case <-time.After(time.Second):
		return true
	}
}

// within fails the test if f takes long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Errorf("%s has not returned", what)
	}
}

// Who shares a socket inside may have a shard stand still. The process is to end all
// the same, and the host's ports to be free.
func TestCloseDoesNotWaitForeverForAShardThatStandsStill(t *testing.T) {
	defer func(d time.Duration) { closeMost = d }(closeMost)
	closeMost = 500 * time.Millisecond
	w, free := blockedWorld(t)
	defer func() {
		free()
		for _, s := range w.fwd.shards {
			<-s.ended
		}
	}()
	within(t, "Drain", func() { w.fwd.Drain(50*time.Millisecond, nil) })
	unpublished := make(chan error, 1)
	go func() { unpublished <- w.fwd.Unpublish(w.fwd.Published()) }() // has the lock by then, or comes too late
	var errs [2]error
	for i := range errs {
		within(t, "Close", func() { errs[i] = w.fwd.Close() })
	}
	for _, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "1 of 1") || strings.Contains(err.Error(), "\n") {
			t.Errorf("Close: %v", err)
		}
	}
	within(t, "Unpublish", func() { <-unpublished })
	l, err := net.Listen("tcp4", "127.0.0.1:7001")
	if err != nil {
		t.Errorf("the host's port is still taken: %v", err)
		return
	}
	l.Close()
	select {
	case <-w.fwd.Done():
	default:
		t.Error("it is not done")
	}
}
