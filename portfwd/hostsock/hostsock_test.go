package hostsock

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// await waits until poll(2) reports something of fd. Loopback delivers at once,
// but for when the processor has other things to do.
func await(t *testing.T, fd int, events int16) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds, 5000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("nothing happens: %v", err)
		}
		return
	}
}

func TestAddressSurvivesTheKernelsForm(t *testing.T) {
	for _, s := range []string{"127.0.0.1:80", "255.255.255.255:65535", "[::1]:80", "[2001:db8::7]:1", "0.0.0.0:0"} {
		want := netip.MustParseAddrPort(s)
		a := MakeAddress(want)
		if got := a.AddrPort(); got != want {
			t.Errorf("%s became %s", want, got)
		}
	}
	var none Address
	if none.AddrPort().IsValid() {
		t.Error("no address became one")
	}
	short := MakeAddress(netip.MustParseAddrPort("[::1]:80"))
	short.length = 10
	if short.AddrPort().IsValid() {
		t.Error("a truncated address was taken for one")
	}
}

// server is a UDP socket on loopback.
func server(t *testing.T, host string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		lab.Unavailable(t, "no %s here: %v", host, err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	return c.(*net.UDPConn), c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func dial(t *testing.T, to netip.AddrPort) int {
	t.Helper()
	fd, errno := DialUDP(to, &Source{})
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestSenderKeepsOrderAndLengths(t *testing.T) {
	for name, sizes := range map[string][]int{
		"one":            {10},
		"empty":          {0},
		"even":           {1200, 1200, 1200, 1200},
		"last shorter":   {1200, 1200, 7},
		"last longer":    {7, 1200},
		"short between":  {1200, 7, 1200},
		"empty between":  {5, 0, 5},
		"empty last":     {5, 5, 0},
		"more than path": {30000, 30000, 9}, // 64 KiB is loopback's MTU; the sum is not more
	} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			for _, noGSO := range []bool{false, true} {
				c, at := server(t, host)
				fd := dial(t, at)
				s := Sender{NoGSO: noGSO}
				var want [][]byte
				for i, n := range sizes {
					p := bytes.Repeat([]byte{byte(i + 1)}, n)
					want = append(want, p)
					if !s.Add(p) {
						t.Fatalf("%s: no room", name)
					}
				}
				if sent, errno := s.Send(fd); sent != len(sizes) || errno != 0 {
					t.Fatalf("%s: sent %d of %d: %v", name, sent, len(sizes), errno)
				}
				buf := make([]byte, 1<<16)
				for i, w := range want {
					n, err := c.Read(buf)
					if err != nil || !bytes.Equal(buf[:n], w) {
						t.Fatalf("%s to %s, noGSO %v: datagram %d has %d bytes, %v; want %d", name, host, noGSO, i, n, err, len(w))
					}
				}
			}
		}
	}
}

func TestSenderHoldsAsManyAsTheKernelCuts(t *testing.T) {
	var s Sender
	left := s.AddSegments(make([]byte, 1000), 10)
	if s.Len() != mostPieces || len(left) != 1000-10*mostPieces || s.Add(nil) {
		t.Errorf("%d pieces, %d bytes left", s.Len(), len(left))
	}
	if !s.Retry(mostPieces-1) || s.Len() != 1 || s.bytes != 10 || s.Retry(1) || s.bytes != 0 {
		t.Errorf("after retry: %d pieces of %d bytes", s.Len(), s.bytes)
	}
}

func TestReceiverReadsWhatCameAndSaysWhenThatIsAll(t *testing.T) {
	c, at := server(t, "127.0.0.1")
	fd := dial(t, at)
	client := LocalAddr(fd)
	r := NewReceiver(4)
	if _, _, drained, errno := r.Receive(fd, 4); !drained || errno != 0 {
		t.Fatalf("empty socket: drained %v, %v", drained, errno)
	}
	for i := range 6 {
		c.WriteToUDPAddrPort(bytes.Repeat([]byte{byte(i)}, 100*(i%3)), client)
	}
	var got [][]byte
	for rounds := 0; len(got) < 6 && rounds < 10; rounds++ {
		await(t, fd, unix.POLLIN)
		first, end, drained, errno := r.Receive(fd, 3)
		if errno != 0 {
			t.Fatal(errno)
		}
		for i := first; i < end; i++ {
			m := r.Message(i)
			if m.From.AddrPort() != at {
				t.Errorf("from %s, want %s", m.From.AddrPort(), at)
			}
			got = append(got, bytes.Clone(m.Payload))
		}
		if want := end-first < 3 && !r.Full(); drained != want && !r.Full() {
			t.Errorf("%d datagrams read of 3 asked for, drained %v", end-first, drained)
		}
		if r.Full() {
			r.Reset()
		}
	}
	for i, p := range got {
		if !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, 100*(i%3))) {
			t.Errorf("datagram %d has %d bytes", i, len(p))
		}
	}
	if len(got) != 6 {
		t.Errorf("%d datagrams, want 6", len(got))
	}
}

// TestReceiverGrowsAndMovesNothing: what was read lies where it is until Reset,
// also when slots get memory after it.
func TestReceiverGrowsAndMovesNothing(t *testing.T) {
	c, at := server(t, "127.0.0.1")
	fd := dial(t, at)
	client := LocalAddr(fd)
	const slots = 3*firstSlots - 1
	r := NewReceiver(slots)
	if len(r.slots) != 0 {
		t.Errorf("%d slots have memory before anything came", len(r.slots))
	}
	for i := range slots + 1 {
		c.WriteToUDPAddrPort([]byte{byte(i)}, client)
	}
	for !r.Full() {
		await(t, fd, unix.POLLIN)
		first, end, drained, errno := r.Receive(fd, slots)
		if errno != 0 || first == end || drained {
			t.Fatalf("%d to %d, drained %v, %v", first, end, drained, errno)
		}
	}
	for i := range slots {
		if p := r.Message(i).Payload; !bytes.Equal(p, []byte{byte(i)}) {
			t.Errorf("datagram %d: %v", i, p)
		}
	}
	if first, end, drained, errno := r.Receive(fd, slots); first != end || drained || errno != 0 {
		t.Errorf("a full receiver read %d, drained %v, %v", end-first, drained, errno)
	}
	r.Reset()
	if n := testing.AllocsPerRun(10, func() { r.Receive(fd, slots); r.Reset() }); n != 0 {
		t.Errorf("%v allocations with all slots there", n)
	}
}

func TestPacketInfoLetsAnswersLeaveFromWhereTheQuestionWent(t *testing.T) {
	c, at := server(t, "0.0.0.0")
	raw, _ := c.SyscallConn()
	var fd int
	raw.Control(func(f uintptr) { fd = int(f) })
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	const asked = "127.0.0.53"
	client := dial(t, netip.AddrPortFrom(netip.MustParseAddr(asked), at.Port()))
	Send(client, []byte("?"))
	await(t, fd, unix.POLLIN)
	r := NewReceiver(1)
	first, end, _, errno := r.Receive(fd, 1)
	if errno != 0 || end != first+1 {
		t.Fatalf("received %d: %v", end-first, errno)
	}
	m := r.Message(first)
	if m.Local.Addr.String() != asked {
		t.Fatalf("arrived at %s, want %s", m.Local.Addr, asked)
	}
	from := *m.From                     // the receiver is used again
	for _, count := range []int{1, 3} { // one by one, and as a train
		var s Sender
		s.To(&from, m.Local)
		for range count {
			s.Add([]byte("!"))
		}
		if n, errno := s.Send(fd); n != count || errno != 0 {
			t.Fatalf("sent %d of %d: %v", n, count, errno)
		}
		got := 0
		for got < count {
			await(t, client, unix.POLLIN)
			r.Reset() // the client is connected: only what is from there arrives
			first, end, _, errno := r.Receive(client, 1)
			if errno != 0 || end == first {
				break
			}
			m := r.Message(first)
			got += len(m.Payload)
		}
		if got != count {
			t.Errorf("%d answers of %d", got, count)
		}
	}
}

// The kernel queues a report, and makes it the socket's error after that. Whoever
// reads the report takes the error with it, unless it reads in between: once in a
// while an error stays, on one try of several.
func TestErrorQueueNamesTheClosedPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		pending := unix.ECONNREFUSED
		for try := 0; try < 10 && pending != 0; try++ {
			pending = reportOfClosedPort(t, host)
			if pending != 0 && pending != unix.ECONNREFUSED {
				t.Errorf("%s: %v is pending", host, pending)
			}
		}
		if pending != 0 {
			t.Errorf("%s: still pending: %v", host, pending)
		}
	}
}

// reportOfClosedPort reads the one report, and returns what is pending then.
func reportOfClosedPort(t *testing.T, host string) unix.Errno {
	c, at := server(t, host)
	c.Close()
	fd := dial(t, at)
	Send(fd, []byte("anybody?"))
	await(t, fd, 0) // POLLERR is always waited for
	var q ErrorQueue
	r, ok := q.Next(fd)
	if !ok || r.Errno != unix.ECONNREFUSED || r.PayloadLen != 8 || string(r.Payload) != "anybody?" || r.To != at || r.Offender != at.Addr() {
		t.Errorf("%s: %v %+v", host, ok, r)
	}
	if _, ok := q.Next(fd); ok {
		t.Error("a second report")
	}
	return PendingError(fd)
}

func TestV6SocketReachesNoIPv4(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	mapped := netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
	if fd, errno := Connect(mapped, &Source{}, 0); errno == 0 || errno == unix.EINPROGRESS {
		unix.Close(fd)
		t.Errorf("%s was connected to", mapped)
	}
	if fd, errno := DialUDP(mapped, &Source{}); errno == 0 {
		unix.Close(fd)
		t.Errorf("%s was connected to", mapped)
	}
}

func TestStreamCallsDoNotAllocate(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var v Vector
	a, b := []byte("hello, "), []byte("world")
	x, y := make([]byte, 3), make([]byte, 100)
	bufs, into := [][]byte{a, nil, b}, [][]byte{x, y}
	n := testing.AllocsPerRun(100, func() {
		if n, errno := v.Write(fds[0], bufs); n != 12 || errno != 0 {
			t.Fatal(n, errno)
		}
		if n, errno := v.Read(fds[1], into); n != 12 || errno != 0 {
			t.Fatal(n, errno)
		}
		Send(fds[0], a)
		v.Read(fds[1], into[1:])
	})
	if n != 0 || string(x)+string(y[:7]) != "helhello, " {
		t.Errorf("%v allocations; read %q", n, string(x)+string(y[:7]))
	}
	if n, errno := v.Read(fds[1], into); n != 0 || errno != unix.EAGAIN {
		t.Errorf("empty: %d, %v", n, errno)
	}
	unix.Shutdown(fds[0], unix.SHUT_WR)
	if n, errno := v.Read(fds[1], into); n != 0 || errno != 0 {
		t.Errorf("at the end: %d, %v", n, errno)
	}
	unix.Shutdown(fds[0], unix.SHUT_RDWR)
	unix.Close(fds[0])
	if _, errno := v.Write(fds[1], bufs); errno != unix.EPIPE {
		t.Errorf("to a closed peer: %v, want EPIPE and no signal", errno)
	}
}

func TestDatagramCallsDoNotAllocate(t *testing.T) {
	c, at := server(t, "127.0.0.1")
	raw, _ := c.SyscallConn()
	var fd int
	raw.Control(func(f uintptr) { fd = int(f) })
	client := dial(t, at)
	r := NewReceiver(8)
	var s Sender
	p := make([]byte, 500)
	if n := testing.AllocsPerRun(100, func() {
		for range 4 {
			s.Add(p)
		}
		s.Send(client)
		s.Drop()
		first, end, _, _ := r.Receive(fd, 8)
		for i := first; i < end; i++ {
			_ = r.Message(i)
		}
		r.Reset()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
