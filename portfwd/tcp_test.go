package portfwd

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/tapdev"
)

// stream is n bytes that differ from place to place.
func stream(n int64, seed uint64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), n)
}

// compare reads r to its end, which should bring the bytes of want, and returns
// how many came. It says where they first differ.
func compare(t *testing.T, r, want io.Reader) (n int64) {
	t.Helper()
	got, expected := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		k, err := r.Read(got)
		if _, short := io.ReadFull(want, expected[:k]); short != nil {
			t.Errorf("more than the %d bytes that were sent", n)
			return n
		}
		if !bytes.Equal(got[:k], expected[:k]) {
			i := 0
			for got[i] == expected[i] {
				i++
			}
			t.Errorf("the stream differs from byte %d on", n+int64(i))
			return n
		}
		n += int64(k)
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Errorf("after %d bytes: %v", n, err)
			return n
		}
	}
}

// swap sends each end a stream of its own, both at once, ended by a half-close,
// and compares what arrives.
func swap(t *testing.T, a, b net.Conn, size int64) {
	t.Helper()
	var wg sync.WaitGroup
	for _, dir := range []struct {
		from, to net.Conn
		seed     uint64
	}{{a, b, 1}, {b, a, 2}} {
		wg.Go(func() {
			if _, err := io.CopyBuffer(struct{ io.Writer }{dir.from}, stream(size, dir.seed), make([]byte, 256<<10)); err != nil {
				t.Errorf("send: %v", err)
			}
			dir.from.(*net.TCPConn).CloseWrite()
		})
		wg.Go(func() {
			if n := compare(t, dir.to, stream(size, dir.seed)); n != size {
				t.Errorf("stream %d: %d bytes, want %d", dir.seed, n, size)
			}
		})
	}
	wg.Wait()
}

// echo copies by hand: io.Copy between sockets would splice through pipes that
// it keeps.
func echo(c net.Conn) { io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// connect returns both ends of an outbound connection.
func (w *world) connect(host string) (sandbox, outside net.Conn) {
	w.t.Helper()
	l := hostListen(w.t, host)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		accepted <- c
	}()
	sandbox = w.mustDial("tcp", l.Addr().String())
	select {
	case outside = <-accepted:
	case <-time.After(5 * time.Second):
		w.t.Fatal("the host has not accepted")
	}
	w.t.Cleanup(func() { outside.Close() })
	outside.SetDeadline(time.Now().Add(60 * time.Second))
	return sandbox, outside
}

func TestHundredMegabytesBothWaysWithHalfClose(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 10 << 20
	}
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		for _, host := range []string{outside4, outside6} {
			t.Run(string(kind)+" "+host, func(t *testing.T) {
				w := newWorld(t, linked(kind))
				a, b := w.connect(host)
				start := time.Now()
				swap(t, a, b, size)
				t.Logf("%.0f Mbit/s each way", float64(size)*8/1e6/time.Since(start).Seconds())
				if st := w.fwd.Stats().TCP; st.ToHost != uint64(size) || st.ToSandbox != uint64(size) {
					t.Errorf("%+v, want %d bytes each way", st, size)
				}
			})
		}
	}
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	w := newWorld(t)
	a, b := w.connect(outside4)
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		if ends[0] == b {
			a, b = w.connect(outside4)
			ends = [2]net.Conn{b, a}
		}
		near, far := ends[0], ends[1]
		near.(*net.TCPConn).CloseWrite()
		if n, err := far.Read(make([]byte, 10)); err != io.EOF {
			t.Fatalf("read %d, %v; want the end of the stream", n, err)
		}
		time.Sleep(50 * time.Millisecond)
		far.Write([]byte("still here"))
		far.Close()
		if got, err := io.ReadAll(near); err != nil || string(got) != "still here" {
			t.Errorf("read %q, %v after our half-close", got, err)
		}
	}
}

func TestRefusalsCrossAsThemselves(t *testing.T) {
	w := newWorld(t)
	closed := hostListen(t, outside4)
	closed.Close()
	closed6 := hostListen(t, outside6)
	closed6.Close()
	for address, want := range map[string]unix.Errno{
		closed.Addr().String():                unix.ECONNREFUSED,
		closed6.Addr().String():               unix.ECONNREFUSED,
		net.JoinHostPort(gateway4, "80"):      unix.ECONNREFUSED,
		net.JoinHostPort(gateway6, "80"):      unix.ECONNREFUSED,
		net.JoinHostPort(noRoute4, "80"):      unix.ENETUNREACH,
		net.JoinHostPort(noRoute6, "80"):      unix.ENETUNREACH,
		net.JoinHostPort(unreachable4_, "80"): unix.EHOSTUNREACH,
		net.JoinHostPort(prohibited4, "80"):   unix.EHOSTUNREACH, // what Linux makes of code 13
		net.JoinHostPort("169.254.1.1", "80"): unix.EHOSTUNREACH,
	} {
		start := time.Now()
		_, err := w.dial("tcp", address)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
		// An ICMP error that comes while connect(2) still has the socket is heard
		// with the second SYN, after a second (tcp_v4_err, net/ipv4/tcp_ipv4.c).
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", address, took)
		}
	}
}

func TestResetsCrossBothWays(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		a, b := w.connect(outside4)
		near, far := a, b
		if i == 1 {
			near, far = b, a
		}
		near.Write([]byte("x"))
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		near.(*net.TCPConn).SetLinger(0)
		near.Close()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("direction %d: %v, want connection reset", i, err)
		}
	}
}

// A peer that accepts and resets at once may have done so before the forwarder
// has looked whether connect is done. That is no refusal: the handshake was.
func TestResetRightAfterTheHandshakeIsNoRefusal(t *testing.T) {
	w := newWorld(t, queues(1))
	l := hostListen(t, outside4)
	reset := make(chan struct{}, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			reset <- struct{}{}
		}
	}()
	shard := w.fwd.shards[0]
	for i := range 20 {
		// The shard connects, and then sleeps until the reset is there; or it
		// sleeps too early, and has missed this chance.
		release := make(chan struct{})
		hold := time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() {
			shard.loop.Post(func() {
				select {
				case <-release:
				case <-time.After(20 * time.Millisecond):
				}
			})
		})
		go func() {
			<-reset
			time.Sleep(5 * time.Millisecond)
			close(release)
		}()
		c, err := w.dial("tcp", l.Addr().String())
		if err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		hold.Stop()
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%v, want connection reset", err)
		}
	}
}

func TestSlowReaderHoldsTheWriterBack(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		a, b := w.connect(outside4)
		near, far := a, b
		if i == 1 {
			near, far = b, a
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		near.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
		sent, err := io.CopyBuffer(struct{ io.Writer }{near}, stream(1<<30, 3), make([]byte, 64<<10))
		if err == nil {
			t.Fatalf("direction %d: nobody reads, and yet 1 GiB was taken", i)
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
			t.Errorf("direction %d: the heap grew by %d MiB", i, grown>>20)
		}
		near.SetWriteDeadline(time.Time{})
		near.(*net.TCPConn).CloseWrite()
		far.SetDeadline(time.Now().Add(30 * time.Second))
		if got := compare(t, far, stream(1<<30, 3)); got < sent {
			t.Errorf("direction %d: %d bytes arrived of at least %d sent", i, got, sent)
		}
	}
}

func TestThousandConnectionsAtOnce(t *testing.T) {
	lab.NeedFiles(t, 6000)
	w := newWorld(t)
	l := hostListen(t, outside4)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { echo(c); c.Close() }()
		}
	}()
	const n = 1000
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = w.mustDial("tcp", l.Addr().String())
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 5000)
			go func() {
				c.Write(want)
				c.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %d bytes, %v", i, len(got), err)
			}
			c.Close()
		})
	}
	wg.Wait()
	if st := w.fwd.Stats().TCP; st.Outbound != n {
		t.Errorf("%+v, want %d connections", st, n)
	}
}

func TestOutOfDescriptorsRefusesTheNewAndKeepsTheOld(t *testing.T) {
	w := newWorld(t, publishing("127.0.0.1::80"))
	server := w.listen("tcp4", sandbox4+":80")
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	a, b := w.connect(outside4)
	l := hostListen(t, outside4)

	// Sockets for the clients exist before descriptors run out.
	out := w.rawSocket(t)
	in, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	used := useUpFiles(t)
	outErr := connectRaw(out, l.Addr())
	inErr := connectRaw(in, addr(w.bound[0].Host.String()))
	var readErr error
	if inErr == nil {
		_, readErr = unix.Read(in, make([]byte, 1))
	}
	used()
	if !errors.Is(outErr, unix.ECONNREFUSED) {
		t.Errorf("outbound: %v, want connection refused", outErr)
	}
	if inErr == nil && !errors.Is(readErr, unix.ECONNRESET) {
		t.Errorf("published: %v, want connection reset", readErr)
	}
	swap(t, a, b, 1<<20)
	if c, err := w.dial("tcp", l.Addr().String()); err != nil {
		t.Errorf("with descriptors again: %v", err)
	} else {
		c.Close()
	}
}

// rawSocket makes a blocking TCP socket in the sandbox.
func (w *world) rawSocket(t *testing.T) (fd int) {
	t.Helper()
	var err error
	w.sandbox.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func connectRaw(fd int, to net.Addr) error {
	a, err := net.ResolveTCPAddr("tcp4", to.String())
	if err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: a.AddrPort().Addr().As4()})
}

// useUpFiles leaves no descriptor until the function that it returns is called.
func useUpFiles(t *testing.T) (release func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	return func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	}
}
