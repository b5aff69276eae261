package portfwd

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
)

// ping sends an echo request from inside the sandbox and waits for its answer.
func (w *world) ping(to string, seq uint16) error {
	var p *hostsock.Ping
	var errno unix.Errno
	w.sandbox.Do(func() { p, errno = hostsock.OpenPing(netip.MustParseAddr(to), &hostsock.Source{}) })
	if errno != 0 {
		return errno
	}
	defer unix.Close(p.FD)
	if errno := p.Send(make([]byte, 100), seq, []byte("0123456789")); errno != 0 {
		return errno
	}
	unix.SetsockoptTimeval(p.FD, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
	buf := make([]byte, 200)
	n, err := 0, error(unix.EAGAIN)
	for err == unix.EAGAIN { // poll(2) may wake for what read(2) then drops
		if err := awaitReadable(p.FD, 10*time.Second); err != nil {
			return err
		}
		n, err = unix.Read(p.FD, buf)
	}
	if err != nil {
		return err
	}
	got, payload, ok := p.Reply(buf[:n])
	if !ok || got != seq || string(payload) != "0123456789" {
		return &net.AddrError{Err: "wrong answer", Addr: to}
	}
	return nil
}

// awaitReadable is poll(2), which returns early for any signal of the runtime's.
func awaitReadable(fd int, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return err
		case left == 0:
			return os.ErrDeadlineExceeded
		}
	}
}

func TestPingReachesTheOutside(t *testing.T) {
	w := newWorld(t)
	for _, to := range []string{gateway4, gateway6, outside4, outside6} {
		for seq := range uint16(3) {
			if err := w.ping(to, binary.BigEndian.Uint16([]byte{7, byte(seq)})); err != nil {
				t.Errorf("ping %s: %v", to, err)
			}
		}
	}
	for to, want := range map[string]unix.Errno{noRoute4: unix.ENETUNREACH, "127.0.0.9": 0, noRoute6: unix.ENETUNREACH} {
		if err := w.ping(to, 1); want != 0 && err != want {
			t.Errorf("ping %s: %v, want %v", to, err, want)
		}
	}
}

func TestForbiddenPingIsExplainedOnce(t *testing.T) {
	var log logLines
	w := newWorld(t, queues(4), withConfig(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	// A new network namespace allows nobody ping sockets. The tests are root;
	// without CAP_NET_RAW a shard is as an ordinary user's.
	for _, s := range w.fwd.shards {
		s.call(func() {
			runtime.LockOSThread() // once more than it is unlocked: the thread ends with the shard
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Error(err)
			}
			dropRaw(t)
		})
	}
	const pings = 6
	for range pings {
		if err := w.pingOnly(outside4); err == nil {
			t.Error("an answer came although the host allows no ping")
		}
	}
	for start := time.Now(); w.fwd.Stats().Echo.Denied < pings; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%+v, want %d denied", w.fwd.Stats().Echo, pings)
		}
	}
	if n := strings.Count(log.String(), "net.ipv4.ping_group_range"); n != 1 {
		t.Errorf("%d lines name the sysctl, want 1:\n%s", n, log.String())
	}
}

// pingOnly is ping with less patience.
func (w *world) pingOnly(to string) error {
	var p *hostsock.Ping
	var errno unix.Errno
	w.sandbox.Do(func() { p, errno = hostsock.OpenPing(netip.MustParseAddr(to), &hostsock.Source{}) })
	if errno != 0 {
		return errno
	}
	defer unix.Close(p.FD)
	if errno := p.Send(make([]byte, 100), 1, nil); errno != 0 {
		return errno
	}
	return awaitReadable(p.FD, 100*time.Millisecond)
}

// dropRaw takes CAP_NET_RAW from the calling thread.
func dropRaw(t *testing.T) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		t.Error(err)
		return
	}
	d[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&h, &d[0]); err != nil {
		t.Error(err)
	}
}

// logLines is a log that tests may read while it is written.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
