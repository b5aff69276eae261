package hostsock

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// connected returns the descriptors of both ends of a TCP connection.
func connected(t *testing.T) (a, b int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var none Source
	a, errno := Connect(netip.MustParseAddrPort(l.Addr().String()), &none, 0)
	if errno != 0 && errno != unix.EINPROGRESS {
		t.Fatal(errno)
	}
	t.Cleanup(func() { Close(a) })
	waitFor(t, int(file.Fd()), unix.POLLIN)
	b, _, errno = Accept(int(file.Fd()))
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { Close(b) })
	return a, b
}

func waitFor(t *testing.T, fd int, events int16) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 5000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("nothing after 5 s: %v", err)
		}
		return
	}
}

func TestPipePassesBytesFromSocketToSocket(t *testing.T) {
	from, in := connected(t)
	out, to := connected(t)
	lab.NeedPipes(t, 4)
	p, errno := OpenPipe(256 << 10)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if _, errno := p.Fill(in, 100); errno != unix.EAGAIN {
		t.Errorf("from a socket that has nothing: %v", errno)
	}
	if _, errno := p.Drain(out, 100); errno != unix.EAGAIN {
		t.Errorf("from an empty pipe: %v", errno)
	}
	want := bytes.Repeat([]byte("splice"), 1000)
	Send(from, want)
	waitFor(t, in, unix.POLLIN)
	got, buf := 0, make([]byte, len(want))
	for got < len(want) {
		n, errno := p.Fill(in, 4000)
		if errno != 0 || n > 4000 {
			t.Fatalf("%d, %v", n, errno)
		}
		for held := n; held > 0; {
			k, errno := p.Drain(out, held)
			if errno != 0 {
				t.Fatal(errno)
			}
			held -= k
		}
		for end := got + n; got < end; {
			waitFor(t, to, unix.POLLIN)
			k, errno := Receive(to, buf[got:])
			if errno != 0 {
				t.Fatal(errno)
			}
			got += k
		}
	}
	if !bytes.Equal(buf, want) {
		t.Error("other bytes arrived")
	}
	ShutdownWrite(from)
	waitFor(t, in, unix.POLLIN)
	if n, errno := p.Fill(in, 100); n != 0 || errno != 0 {
		t.Errorf("%d, %v at the end of the stream", n, errno)
	}
}

// Writing to a connection that was reset is an error, and no signal that ends us.
func TestDrainingIntoAResetConnection(t *testing.T) {
	out, to := connected(t)
	lab.NeedPipes(t, 1)
	p, errno := OpenPipe(0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	Reset(to)
	waitFor(t, out, unix.POLLHUP)
	for _, want := range []unix.Errno{unix.ECONNRESET, unix.EPIPE} {
		p.Keep([]byte("x"))
		if _, errno := p.Drain(out, 1); errno != want {
			t.Errorf("%v, want %v", errno, want)
		}
	}
}

func TestPipeKeepsWhatAnOrdinaryOneHasRoomFor(t *testing.T) {
	lab.NeedPipes(t, 1)
	p, errno := OpenPipe(0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if n := p.Keep(make([]byte, 64<<10)); n != 64<<10 {
		t.Errorf("%d bytes kept", n)
	}
	if !p.Open() || (Pipe{}).Open() {
		t.Error("which of the pipes is one?")
	}
}

func TestPeekedBytesStayUntilTheyAreDiscarded(t *testing.T) {
	from, to := connected(t)
	Send(from, []byte("hello, world"))
	waitFor(t, to, unix.POLLIN)
	b := make([]byte, 100)
	for range 2 {
		if n, errno := Peek(to, b); errno != 0 || string(b[:n]) != "hello, world" {
			t.Errorf("%q, %v", b[:n], errno)
		}
	}
	if n, errno := Discard(to, 7); n != 7 || errno != 0 {
		t.Errorf("%d, %v", n, errno)
	}
	if n, errno := Receive(to, b); errno != 0 || string(b[:n]) != "world" {
		t.Errorf("%q, %v", b[:n], errno)
	}
	if _, errno := Peek(to, b); errno != unix.EAGAIN {
		t.Errorf("%v from a socket that has nothing", errno)
	}
	ShutdownWrite(from)
	waitFor(t, to, unix.POLLIN)
	if n, errno := Peek(to, b); n != 0 || errno != 0 {
		t.Errorf("%d, %v at the end of the stream", n, errno)
	}
}
