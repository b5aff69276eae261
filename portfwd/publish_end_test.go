package portfwd

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
)

// Whoever connected before the port went is served or reset, and does not wait.
func TestNoClientIsLeftHangingWhenAPortIsRemoved(t *testing.T) {
	bothWays(t, func(t *testing.T, way option) {
		w := newWorld(t, way)
		go whoTCP(w.listen("tcp4", sandbox4+":80"))
		served, reset := 0, 0
		for range 10 {
			bound := w.publish(t, "127.0.0.1:7001:80")
			var clients []net.Conn
			for range 20 {
				c, err := net.Dial("tcp", "127.0.0.1:7001")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				clients = append(clients, c)
			}
			if err := w.fwd.Unpublish(bound); err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				c.SetDeadline(time.Now().Add(10 * time.Second))
				b, err := io.ReadAll(c)
				switch {
				case err == nil && strings.HasPrefix(string(b), gateway4):
					served++
				case errors.Is(err, unix.ECONNRESET):
					reset++
				default:
					t.Errorf("client: %q, %v", b, err)
				}
			}
		}
		if served == 0 || served+reset != 200 {
			t.Errorf("%d served, %d reset", served, reset)
		}
	})
}

// The packet link is different: its interface goes with the sandbox's namespace
// while the host still takes what the sandbox sent, so that is no end to who only
// reads.
func TestPublishingWhenTheLinkIsGone(t *testing.T) {
	w := newWorld(t, linked(tapdev.TAP), publishing("127.0.0.1:7001:80"))
	w.sandbox.Do(func() {
		if err := deleteLink("tap0"); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-w.fwd.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the forwarder goes on without a link")
	}
	bound := bind(t, tcp4(7002))
	if err := w.fwd.Publish(bound); err == nil || !errors.Is(err, w.fwd.Err()) {
		t.Errorf("publish: %v, want %v", err, w.fwd.Err())
	}
	if err := w.fwd.Unpublish(w.bound); err != nil {
		t.Error(err)
	}
	for _, b := range bind(t, tcp4(7001), tcp4(7002)) { // both are free
		b.Close()
	}
}

func TestPublishingWhileClosingLeavesNoSocket(t *testing.T) {
	w := newWorld(t, queues(2))
	var wg sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for i := range uint16(4) {
		wg.Go(func() {
			for {
				bound, err := spec.Bind([]spec.Spec{tcp4(7100 + i)})
				if err == nil {
					err = w.fwd.Publish(bound)
				}
				once.Do(func() { close(first) })
				if errors.Is(err, errClosed) {
					return
				}
				if err == nil {
					err = w.fwd.Unpublish(bound)
				}
				if err != nil && !strings.Contains(err.Error(), "not published") { // Close was faster
					t.Errorf("port %d: %v", 7100+i, err)
					return
				}
			}
		})
	}
	<-first
	w.fwd.Close()
	wg.Wait()
	for _, b := range bind(t, tcp4(7100), tcp4(7101), tcp4(7102), tcp4(7103)) {
		b.Close()
	}
}

// A range of ports is one visit to each shard, so that it costs no more than its
// sockets do.
func TestRangeOfPortsIsPublishedAndRemovedTogether(t *testing.T) {
	w := newWorld(t, queues(2))
	go whoTCP(w.listen("tcp4", sandbox4+":500"))
	for range 3 {
		before := w.turns()
		bound := w.publish(t, "127.0.0.1:20000-20499:1-500")
		if n := len(w.fwd.Published()); n != 500 {
			t.Fatalf("%d ports", n)
		}
		if turns := w.turns() - before; turns > 50 {
			t.Errorf("%d turns of the shards for 500 ports", turns)
		}
		askTCP(t, "127.0.0.1", "127.0.0.1:20499")
		if err := w.fwd.Unpublish(bound); err != nil {
			t.Fatal(err)
		}
	}
}

// turns is how often the shards' loops have gone round.
func (w *world) turns() (n uint64) {
	for _, s := range w.fwd.shards {
		s.call(func() { n += s.counters.turns })
	}
	return n
}
