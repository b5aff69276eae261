package portfwd

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sendUrgent sends one byte as urgent (MSG_OOB, tcp(7)).
func sendUrgent(t *testing.T, c net.Conn, b byte) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sent := error(unix.EBADF)
	raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil)
		return sent != unix.EAGAIN
	})
	if sent != nil {
		t.Error(sent)
	}
}

// sendMarked sends b, of which the byte at mark is urgent.
func sendMarked(t *testing.T, c net.Conn, b []byte, mark int) {
	t.Helper()
	if _, err := c.Write(b[:mark]); err != nil {
		t.Error(err)
	}
	sendUrgent(t, c, b[mark])
	if _, err := c.Write(b[mark+1:]); err != nil {
		t.Error(err)
	}
}

// The kernel ends a read at an urgent byte, leaves it out unless it is told not to,
// and does not splice beyond it.
func TestUrgentBytesAreOrdinaryOnes(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T) (w *world, a, b net.Conn){
		"over the link": func(t *testing.T) (*world, net.Conn, net.Conn) {
			w := newWorld(t, queues(1))
			a, b := w.connect(outside4)
			return w, a, b
		},
		"spliced": func(t *testing.T) (*world, net.Conn, net.Conn) {
			w := newWorld(t, spliced, queues(1), publishing("127.0.0.1::80"))
			a, b := w.publishedPair(t, w.listen("tcp4", ":80"))
			return w, a, b
		},
		"diverted": func(t *testing.T) (*world, net.Conn, net.Conn) {
			w, _ := newDivertingWorld(t, queues(1))
			a, b := w.divertedPair(t, outside4)
			return w, a, b
		},
	} {
		for way, turned := range map[string]bool{"there": false, "back": true} {
			t.Run(name+" and "+way, func(t *testing.T) {
				w, from, to := connect(t)
				if turned {
					from, to = to, from
				}
				to.SetReadDeadline(time.Now().Add(10 * time.Second))
				// All of it waits when it is read.
				w.fwd.shards[0].call(func() { sendMarked(t, from, []byte("abc!def"), 3) })
				got := make([]byte, 7)
				if n, err := io.ReadFull(to, got); string(got[:n]) != "abc!def" {
					t.Fatalf("%q arrived, %v", got[:n], err)
				}
				const size = 8 << 20
				all, err := io.ReadAll(stream(size, 9))
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					sendMarked(t, from, all, size/2)
					from.(*net.TCPConn).CloseWrite()
				}()
				if n := compare(t, to, stream(size, 9)); n != size {
					t.Errorf("%d bytes arrived of %d", n, size)
				}
			})
		}
	}
}
