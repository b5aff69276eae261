package portfwd

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/internal/lab"
)

// ageSpliced is age for spliced connections.
func (w *world) ageSpliced(d time.Duration) {
	for _, s := range w.fwd.shards {
		s.call(func() {
			for c := range s.splices.all {
				c.used = c.used.Add(-d)
				c.lookIdle(s.loop.Now())
			}
		})
	}
}

// awaitSettled waits until all that was sent on spliced connections has arrived.
func (w *world) awaitSettled(t *testing.T) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		busy := false
		for _, s := range w.fwd.shards {
			s.call(func() {
				for c := range s.splices.all {
					busy = busy || c.underWay()
				}
			})
		}
		if !busy {
			return
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("something does not arrive")
		}
	}
}

func TestIdleSplicedConnectionEndsAfterFiveDays(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	a, b := w.publishedPair(t, w.listen("tcp4", ":80"))
	const limit = 5 * 24 * time.Hour
	exchange := func(from, to net.Conn) {
		from.Write([]byte{1})
		if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		w.awaitSettled(t)
	}
	exchange(a, b)
	for range 3 { // what moves payload is not idle, either way
		w.ageSpliced(limit - slack)
		exchange(a, b)
		w.ageSpliced(limit - slack)
		exchange(b, a)
	}
	w.ageSpliced(limit)
	wantReset(t, "client", a)
	wantReset(t, "server", b)
	if st := w.fwd.Stats().TCP; st.Idle != 1 || st.Open != 0 {
		t.Errorf("%+v, want none open and one ended for being idle", st)
	}
}

func TestHalfClosedSplicedConnectionEndsAfterAMinuteOfSilence(t *testing.T) {
	for i, name := range []string{"by the client", "by the server"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, spliced, publishing("127.0.0.1::80"))
			closer, other := w.publishedPair(t, w.listen("tcp4", ":80"))
			if i == 1 {
				closer, other = other, closer
			}
			endStream(t, closer)
			wantEOF(t, other)
			w.awaitSettled(t)
			w.ageSpliced(60*time.Second - slack)
			if st := w.fwd.Stats().TCP; st.Open != 1 {
				t.Fatalf("%+v, want it open a while before its time", st)
			}
			w.ageSpliced(60 * time.Second)
			wantReset(t, "that closed first", closer)
			if st := w.fwd.Stats().TCP; st.Idle != 1 || st.Open != 0 {
				t.Errorf("%+v, want none open and one ended for being idle", st)
			}
		})
	}
}

// fillSpliced writes until nothing is taken any more, and returns how much was.
func (w *world) fillSpliced(t *testing.T, from net.Conn, seed uint64) (sent int64) {
	t.Helper()
	in, chunk := stream(1<<30, seed), make([]byte, 64<<10)
	moved := func() uint64 { st := w.fwd.Stats().TCP; return st.ToHost + st.ToSandbox }
	last, rest := moved(), chunk[:0]
	for still := 0; still < 3; {
		if len(rest) == 0 {
			io.ReadFull(in, chunk)
			rest = chunk
		}
		from.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := from.Write(rest)
		if err != nil && !isTimeout(err) {
			t.Fatal(err)
		}
		rest, sent = rest[n:], sent+int64(n)
		if now := moved(); n == 0 && now == last {
			still++
		} else {
			last, still = now, 0
		}
	}
	from.SetWriteDeadline(time.Time{})
	return sent
}

func TestSplicedDataUnderWayIsNotIdle(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	client, server := w.publishedPair(t, w.listen("tcp4", ":80"))
	sent := w.fillSpliced(t, client, 5) // the server does not read
	endStream(t, client)
	w.ageSpliced(24 * time.Hour)
	w.ageSpliced(10 * 24 * time.Hour)
	if n := compare(t, server, stream(sent, 5)); n != sent {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
}

// What the server had sent before it ended arrives, however slow the client is, and
// when all is with the host's kernel nothing waits for who reads it.
func TestDrainWaitsForWhatSplicedClientsHaveToTake(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	client, server := w.publishedPair(t, w.listen("tcp4", ":80"))
	sent := w.fillSpliced(t, server, 7)
	server.Close() // as when the process ends: its kernel keeps what it sent
	done := w.drain(time.Hour, nil)
	select {
	case <-done:
		t.Error("Drain returned before the client had taken the stream")
	case <-time.After(100 * time.Millisecond):
	}
	result := make(chan int64)
	client.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { result <- compare(t, client, stream(sent, 7)) }()
	awaitDrain(t, done)
	w.fwd.Close() // what was handed over outlives the forwarder
	if n := <-result; n != sent {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
}

// Nor is what the server had sent before its reset any less in flight when the client
// has noticed.
func TestDrainWaitsForWhatASplicedServerSaidBeforeItsReset(t *testing.T) {
	w := newWorld(t, spliced, queues(1), publishing("127.0.0.1::80"))
	client, server := w.publishedPair(t, w.listen("tcp4", ":80"))
	w.fillSpliced(t, server, 7)
	client.Write([]byte("x")) // unread, so that the server's kernel resets the connection
	w.awaitTCP(t, "it arrives", func(st TCPStats) bool { return st.ToSandbox == 1 })
	server.Close()
	s := w.fwd.shards[0]
	for broken, start := false, time.Now(); !broken; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the client's end is taken")
		}
		client.Write([]byte("y"))
		s.call(func() {
			for c := range s.splices.all {
				broken = c.broken
			}
		})
	}
	done := w.drain(time.Hour, nil)
	select {
	case <-done:
		t.Error("Drain returned before the client had taken the stream")
	case <-time.After(100 * time.Millisecond):
	}
	client.SetDeadline(time.Now().Add(30 * time.Second))
	io.Copy(io.Discard, client)
	awaitDrain(t, done)
}

func TestDrainDoesNotWaitForTheEndOfAStreamThatFitsTheClientsSocket(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	client, server := w.publishedPair(t, w.listen("tcp4", ":80"))
	io.WriteString(server, "that was all")
	server.Close()
	awaitDrain(t, w.drain(time.Hour, nil)) // the client has not read, nor ended its own
	w.fwd.Close()
	if b, err := io.ReadAll(client); err != nil || string(b) != "that was all" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSplicedConnectionsCountAgainstTheLimit(t *testing.T) {
	w := newWorld(t, spliced, queues(1), withConfig(func(c *Config) { c.Limits.TCP = 3 }), publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	outbound, far := w.connect(outside4)
	w.exchangeByte(t, outbound, far)
	for range 2 {
		w.publishedPair(t, l)
	}
	c, err := net.Dial("tcp", w.bound[0].Host.String())
	if err == nil { // else the reset was faster than Dial
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("published: %v, want connection reset", err)
	}
	other := hostListen(t, outside4)
	if _, err := w.dial("tcp", other.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("outbound: %v, want connection refused", err)
	}
	if st := w.fwd.Stats().TCP; st.Open != 3 || st.Spliced != 2 || st.OverLimit != 2 {
		t.Errorf("%+v, want 3 open, 2 of them spliced, and 2 over the limit", st)
	}
}

// Who gets no pipe is served all the same.
func TestBytesAreCopiedWhereThereAreNoPipes(t *testing.T) {
	w := newWorld(t, spliced, queues(1), publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	table := &w.fwd.shards[0].splices
	pipes := func(n int) { w.fwd.shards[0].call(func() { table.pipesMade += n }) }
	pipes(pipesMost)
	a, b := w.publishedPair(t, l)
	swap(t, a, b, 10<<20)
	pipes(-pipesMost)
	w.awaitNoConnections(t)
	w.wantSpliced(t, 1)
	if n := len(table.pipes); n != 0 {
		t.Errorf("%d pipes were made", n)
	}
}

// More connections than there are pipes wait for slow readers: pipes are bounded,
// others go on, and everything arrives.
func TestPipesOfSlowReadersAreBounded(t *testing.T) {
	w := newWorld(t, spliced, queues(1), publishing("127.0.0.1::80"))
	l := w.listen("tcp4", ":80")
	table, made := &w.fwd.shards[0].splices, 0
	pipes := func(more int) {
		w.fwd.shards[0].call(func() { table.pipesMade += more; made = table.pipesMade })
	}
	const few, n = 3, 8
	lab.NeedPipes(t, few)
	pipes(pipesMost - few)
	var clients, servers [n]net.Conn
	var sent [n]int64
	for i := range n {
		clients[i], servers[i] = w.publishedPair(t, l)
		sent[i] = w.fillSpliced(t, clients[i], uint64(i))
		endStream(t, clients[i])
	}
	if pipes(0); made != pipesMost {
		t.Errorf("%d pipes, want %d", made, pipesMost)
	}
	a, b := w.publishedPair(t, l)
	swap(t, a, b, 1<<20)
	for i := range n {
		if got := compare(t, servers[i], stream(sent[i], uint64(i))); got != sent[i] {
			t.Errorf("connection %d: %d bytes arrived of %d", i, got, sent[i])
		}
		servers[i].Close()
	}
	w.awaitNoConnections(t)
	if pipes(few - pipesMost); made > few {
		t.Errorf("%d pipes are left", made)
	}
}

func TestSplicingDoesNotAllocate(t *testing.T) {
	w := newWorld(t, spliced, publishing("127.0.0.1::80"))
	a, b := w.publishedPair(t, w.listen("tcp4", ":80"))
	for name, size := range map[string]int{"messages": 100, "bulk": 256 << 10} {
		buf, got := make([]byte, size), make([]byte, size)
		turn := func(n int) {
			for range n {
				for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
					if _, err := way[0].Write(buf); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(way[1], got); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		const n = 300
		turn(50)
		least := allocations(func() { turn(n) })
		for try := 1; try < 4 && least > n/20; try++ {
			least = min(least, allocations(func() { turn(n) }))
		}
		if least > n/20 {
			t.Errorf("%s: %d allocations in %d exchanges", name, least, n)
		}
	}
	w.wantSpliced(t, 1)
}

// What was received and cannot be kept is lost, and whose it is are to know.
func TestBytesThatAPipeDoesNotKeepEndTheConnection(t *testing.T) {
	w := newWorld(t, spliced, queues(1), publishing("127.0.0.1::80"))
	client, server := w.publishedPair(t, w.listen("tcp4", ":80"))
	lab.NeedPipes(t, 1)
	full, errno := hostsock.OpenPipe(0)
	if errno != 0 {
		t.Fatal(errno)
	}
	full.Keep(make([]byte, 1<<20))
	s := w.fwd.shards[0]
	s.call(func() {
		for c := range s.splices.all {
			for errno := unix.Errno(0); errno == 0; { // the server does not read
				_, errno = hostsock.Send(c.server.fd, make([]byte, 64<<10))
			}
			c.in.pipe, c.server.writable = full, true
			s.splices.pipesMade++
		}
	})
	if _, err := client.Write([]byte("that is lost")); err != nil {
		t.Fatal(err)
	}
	wantReset(t, "client", client)
	server.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, server); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("server: %v, want a reset", err)
	}
	w.awaitNoConnections(t)
}

// A pipe that holds something may not be given to the next connection.
func TestPipesAreGivenBackEmpty(t *testing.T) {
	lab.NeedPipes(t, pipesMost)
	var table spliceTable
	p := table.takePipe(0)
	if !p.Open() {
		t.Fatal("no pipe")
	}
	p.Keep([]byte("left over"))
	table.givePipe(p, false)
	if len(table.pipes) != 0 || table.pipesMade != 0 {
		t.Errorf("%d pipes kept of %d", len(table.pipes), table.pipesMade)
	}
	var pipes []hostsock.Pipe
	for range pipesMost {
		pipes = append(pipes, table.takePipe(0))
	}
	if table.takePipe(0).Open() {
		t.Errorf("more than %d pipes", pipesMost)
	}
	for _, p := range pipes {
		table.givePipe(p, true)
	}
	if len(table.pipes) != pipesKept || table.pipesMade != pipesKept {
		t.Errorf("%d pipes kept of %d, want %d", len(table.pipes), table.pipesMade, pipesKept)
	}
	table.close()
}

func TestPipesAreNotAskedForAgainSoonAfterARefusal(t *testing.T) {
	lab.NeedPipes(t, 1)
	var table spliceTable
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// By Prlimit, as Setrlimit would have the runtime change its children's.
	unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}, nil)
	refused := table.takePipe(0)
	unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil)
	if refused.Open() {
		t.Fatal("a pipe past the limit")
	}
	if p := table.takePipe(timer.Instant(pipeRest - 1)); p.Open() {
		t.Error("it was asked for again")
	}
	p := table.takePipe(timer.Instant(pipeRest))
	if !p.Open() || table.pipesMade != 1 {
		t.Errorf("no pipe afterwards, or %d", table.pipesMade)
	}
	table.givePipe(p, true)
	table.close()
}

func TestPortsLingerForAMinuteOrTwo(t *testing.T) {
	var l lingering
	now := time.Now()
	if l.has(7, now) {
		t.Error("one of none")
	}
	l.add(7, now)
	l.add(65535, now)
	for after, want := range map[time.Duration]bool{0: true, timeWait: true} {
		k := lingering{recent: &[1024]uint64{}, before: &[1024]uint64{}, since: l.since}
		*k.recent, *k.before = *l.recent, *l.before
		if k.has(7, now.Add(after)) != want || k.has(65535, now.Add(after)) != want || k.has(8, now.Add(after)) {
			t.Errorf("after %v it is not %v", after, want)
		}
	}
	l.turn(now.Add(timeWait))
	l.add(8, now.Add(timeWait))
	if !l.has(7, now.Add(2*timeWait-1)) || l.has(7, now.Add(2*timeWait)) || !l.has(8, now.Add(2*timeWait)) {
		t.Error("ports of the period before the last are remembered, or later ones are not")
	}
	if l.has(8, now.Add(10*timeWait)) {
		t.Error("it is remembered for ever")
	}
}
