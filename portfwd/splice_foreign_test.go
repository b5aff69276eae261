package portfwd

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreignWorld is a sandbox where somebody gets hold of sockets inside, as root there
// may (pidfd_getfd(2)). once is called with each before it is handed over.
func foreignWorld(t *testing.T, once func(fd int)) (w *world, l net.Listener) {
	w = newWorld(t, spliced, queues(1))
	p := w.fwd.ports.sockets
	sound := p.make
	p.make = func(v6 bool, n int) ([]*os.File, error) {
		files, err := sound(v6, n)
		for _, f := range files {
			raw, e := f.SyscallConn()
			if e != nil {
				return files, e
			}
			raw.Control(func(fd uintptr) { once(int(fd)) })
		}
		return files, err
	}
	w.bound = w.publish(t, "127.0.0.1:7001:80")
	w.awaitInside(t)
	return w, w.listen("tcp4", ":80")
}

// sharedSockets are somebody's descriptors of sockets inside.
type sharedSockets struct {
	mu  sync.Mutex
	fds []int
}

// sharingWorld is a foreignWorld where somebody keeps a descriptor of each.
func sharingWorld(t *testing.T) (w *world, l net.Listener, shared *sharedSockets) {
	shared = &sharedSockets{}
	w, l = foreignWorld(t, func(fd int) {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			shared.fds = append(shared.fds, fd)
		}
	})
	return w, l, shared
}

// block says whether the sockets block.
func (s *sharedSockets) block(does bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		unix.SetNonblock(fd, !does)
	}
}

func (s *sharedSockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeSockets(s.fds)
	s.fds = nil
}

// Who shares a socket inside may have it block. That stops nobody but its network.
func TestSocketsInsideThatAreMadeToBlockStopNotTheProcess(t *testing.T) {
	w, l, shared := sharingWorld(t)
	client, server := w.publishedPair(t, l)
	shared.block(true)
	const size = 4 << 20
	go server.Write(make([]byte, size))
	if _, err := io.ReadFull(client, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	collected := make(chan struct{})
	go func() {
		runtime.GC()
		close(collected)
	}()
	select {
	case <-collected:
	case <-time.After(10 * time.Second):
		t.Error("all goroutines wait for the one that splices")
	}
	shared.block(false)
	server.Close() // which it waits for
	client.Close()
	w.awaitNoConnections(t)
	<-collected
	shared.close()
}

// Who shares a socket inside may have close wait for its peer, who need not read.
func TestSocketsInsideThatLingerStopNobody(t *testing.T) {
	w, l := foreignWorld(t, func(fd int) {
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 20})
	})
	client, server := w.publishedPair(t, l)
	w.fillSpliced(t, client, 1)
	fill := w.fwd.Stats().TCP.ToSandbox
	endStream(t, server)
	wantEOF(t, client)
	client.Close() // with what nobody has read under way
	start := time.Now()
	for w.fwd.Stats().TCP.Open > 0 && time.Since(start) < 5*time.Second {
		server.SetReadDeadline(time.Now().Add(time.Millisecond))
		server.Read(make([]byte, 4096))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("with %d bytes inside, close has taken %v", fill, took)
	}
}
