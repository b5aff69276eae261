package portfwd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
	"sbxnet/portfwd/spec"
)

// bothWays runs a test over the link and spliced.
func bothWays(t *testing.T, test func(t *testing.T, way option)) {
	for name, way := range map[string]option{"over the link": func(*worldOptions) {}, "spliced": spliced} {
		t.Run(name, func(t *testing.T) { test(t, way) })
	}
}

// awaitInside waits until there are sockets inside to connect with, if there are
// to be any.
func (w *world) awaitInside(t testing.TB) {
	t.Helper()
	p := w.fwd.ports.sockets
	if p == nil || !slices.ContainsFunc(w.fwd.Published(), func(b spec.Bound) bool { return b.Protocol == spec.TCP }) {
		return
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		full := true
		for _, f := range p.families {
			full = full && (!f.on || len(f.free) >= socketsKept/2)
		}
		p.mu.Unlock()
		if full {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("no sockets inside")
		}
	}
}

// restInside says whether sockets inside are done without.
func (w *world) restInside(rest bool) {
	p := w.fwd.ports.sockets
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resting = (time.Time{}); rest {
		p.resting = time.Now().Add(time.Hour)
	}
}

// wantSpliced says how many connections did without the link.
func (w *world) wantSpliced(t *testing.T, n uint64) {
	t.Helper()
	if st := w.fwd.Stats().TCP; st.Spliced != n || st.Published != n {
		t.Errorf("%+v, want %d published and spliced", st, n)
	}
}

// publishedPair returns both ends of a connection to port 80 inside.
func (w *world) publishedPair(t *testing.T, l net.Listener) (client, server net.Conn) {
	t.Helper()
	return pairOver(t, l, w.bound[0].Host.String())
}

func TestSplicedServerSeesTheClientAsItWouldOverTheLink(t *testing.T) {
	w := newWorld(t, spliced, publishing("0.0.0.0:7001:80", "[::]:7001:80"))
	n := uint64(0)
	for _, bind := range []string{sandbox4, sandbox6, "127.0.0.1", "::"} {
		l := w.listen("tcp", net.JoinHostPort(bind, "80"))
		go whoTCP(l)
		for _, host := range []string{outside4, outside6, "127.0.0.1", "::1"} {
			for range 2 { // the second time it is remembered
				answer, local := askTCP(t, host, net.JoinHostPort(host, "7001"))
				if want := w.seen(bind, local); answer != want {
					t.Errorf("server at %s sees client %s as %s, want %s", bind, local, answer, want)
				}
				n++
				w.awaitInside(t)
			}
		}
		l.Close()
		for _, p := range w.fwd.ports.list { // a new server is looked for anew
			p.shard.call(func() { p.serve.(*listenPort).spliced = lastTargets{} })
		}
	}
	w.wantSpliced(t, n)
}

// seen is how a server bound to an address sees a client.
func (w *world) seen(bind, client string) string {
	server, from := netip.MustParseAddr(bind), netip.MustParseAddrPort(client)
	if server.IsUnspecified() { // the first target of the client's family
		server = w.fwd.policy.family(from.Addr()).Sandbox
	}
	return netip.AddrPortFrom(w.fwd.policy.source(from.Addr(), server), from.Port()).String()
}

func TestSplicedWayLeadsToIPv6Loopback(t *testing.T) {
	w := newWorld(t, spliced, publishing("0.0.0.0:7001:80", "[::]:7001:80"))
	go whoTCP(w.listen("tcp6", "[::1]:80"))
	for host, want := range map[string]string{"127.0.0.1": gateway6, "::1": gateway6, outside4: gateway6, outside6: outside6} {
		answer, local := askTCP(t, host, net.JoinHostPort(host, "7001"))
		if want = net.JoinHostPort(want, portOf(addr(local))); answer != want {
			t.Errorf("client %s is seen as %s, want %s", local, answer, want)
		}
		w.awaitInside(t)
	}
	w.wantSpliced(t, 4)
}

func TestSplicedHundredMegabytesBothWaysWithHalfClose(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 10 << 20
	}
	for _, host := range []string{"127.0.0.1", outside6} {
		t.Run(host, func(t *testing.T) {
			w := newWorld(t, spliced, publishing(net.JoinHostPort(host, "")+":80"))
			a, b := w.publishedPair(t, w.listen("tcp", ":80"))
			start := time.Now()
			swap(t, a, b, size)
			t.Logf("%.0f Mbit/s each way", float64(size)*8/1e6/time.Since(start).Seconds())
			w.awaitNoConnections(t)
			w.wantSpliced(t, 1)
			if st := w.fwd.Stats().TCP; st.ToHost != uint64(size) || st.ToSandbox != uint64(size) {
				t.Errorf("%+v, want %d bytes each way", st, size)
			}
		})
	}
}

func TestSplicedHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	for i := range 2 {
		near, far := w.publishedPair(t, l)
		if i == 1 {
			near, far = far, near
		}
		endStream(t, near)
		wantEOF(t, far)
		far.Write([]byte("still here"))
		far.Close()
		if got, err := io.ReadAll(near); err != nil || string(got) != "still here" {
			t.Errorf("direction %d: read %q, %v after our half-close", i, got, err)
		}
	}
	w.awaitNoConnections(t)
	w.wantSpliced(t, 2)
}

func TestSplicedResetsCrossBothWays(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	for i := range 2 {
		near, far := w.publishedPair(t, l)
		if i == 1 {
			near, far = far, near
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
	w.awaitNoConnections(t)
	w.wantSpliced(t, 2)
}

// A server that refuses an upload says why, and closes with the rest unread: its
// kernel resets the connection behind the answer.
func TestSplicedAnswerBeforeAResetArrives(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	for range 20 {
		client, server := w.publishedPair(t, l)
		uploaded := make(chan struct{})
		go func() {
			io.CopyBuffer(struct{ io.Writer }{client}, stream(64<<20, 1), make([]byte, 64<<10))
			close(uploaded)
		}()
		io.ReadFull(server, make([]byte, 1000))
		io.WriteString(server, "too large")
		server.Close()
		got := make([]byte, 9)
		if n, err := io.ReadFull(client, got); err != nil || string(got) != "too large" {
			t.Errorf("read %q, %v", got[:n], err)
		}
		select {
		case <-uploaded:
		case <-time.After(10 * time.Second):
			t.Fatal("the client is not told that nobody reads")
		}
		client.Close()
	}
	w.awaitNoConnections(t)
}

func TestSplicedSlowReaderHoldsTheWriterBack(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	for i := range 2 {
		near, far := w.publishedPair(t, l)
		if i == 1 {
			near, far = far, near
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		near.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
		sent, err := io.CopyBuffer(struct{ io.Writer }{near}, stream(1<<30, 3), make([]byte, 64<<10))
		if err == nil {
			t.Fatalf("direction %d: nobody reads, and yet 1 GiB was taken", i)
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 16<<20 {
			t.Errorf("direction %d: the heap grew by %d MiB", i, grown>>20)
		}
		w.fwd.shards[0].call(func() {
			for c := range w.fwd.shards[0].splices.all {
				if held := c.in.held + c.out.held; held > bytesPerFlow {
					t.Errorf("direction %d: %d bytes in pipes", i, held)
				}
			}
		})
		near.SetWriteDeadline(time.Time{})
		endStream(t, near)
		far.SetDeadline(time.Now().Add(30 * time.Second))
		if got := compare(t, far, stream(1<<30, 3)); got < sent {
			t.Errorf("direction %d: %d bytes arrived of at least %d sent", i, got, sent)
		}
	}
}

func TestThousandSplicedConnectionsAtOnce(t *testing.T) {
	lab.NeedFiles(t, 8000)
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
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
		c, err := net.Dial("tcp", w.bound[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(60 * time.Second))
		conns[i] = c
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 50000)
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
	w.awaitNoConnections(t)
	// All of them, unless the machine is so busy that some have waited for too long.
	st := w.fwd.Stats().TCP
	if st.Published != n || st.Spliced == 0 {
		t.Errorf("%+v, want %d published, and some of them spliced", st, n)
	}
	t.Logf("%d spliced", st.Spliced)
}
