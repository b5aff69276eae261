package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// A transfer is one connection on which each end sends a stream of its own and
// half-closes, while it receives and compares the other's. How much, in what
// pieces, and where an end pauses: all of that follows from the seed, which the
// client tells the server first, so that a transfer can be run again alone.
type transfer struct {
	seed uint64
	// pausing ends stop now and then, so that buffers fill up and run dry.
	pausing bool
	ends    [2]transferEnd // the client, the server
}

// A transferEnd is what one end does.
type transferEnd struct {
	bytes         int64   // to send
	send, receive []pause // in the order of at
}

// A pause is a time in which an end does nothing, once it has moved that many
// bytes of a stream.
type pause struct {
	at       int64
	duration time.Duration
}

const (
	transferMost = 8 << 20 // bytes each way
	pieceMost    = 128 << 10
	pauseMost    = 40 * time.Millisecond
	pausesMost   = 4 // for each end and direction
)

func newTransfer(seed uint64, pausing bool) transfer {
	x := transfer{seed: seed, pausing: pausing}
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range x.ends {
		x.ends[i].bytes = spanning(r, transferMost+1) - 1 // also none at all
	}
	if !pausing {
		return x
	}
	for i := range x.ends {
		x.ends[i].send = pauses(r, x.ends[i].bytes)
		x.ends[i].receive = pauses(r, x.ends[1-i].bytes)
	}
	return x
}

// spanning is a number from 1 to most, each order of magnitude as likely as any
// other.
func spanning(r *rand.Rand, most int64) int64 {
	return min(int64(math.Exp(r.Float64()*math.Log(float64(most)))), most)
}

func pauses(r *rand.Rand, within int64) []pause {
	p := make([]pause, r.IntN(pausesMost+1))
	for i := range p {
		p[i] = pause{at: r.Int64N(within + 1), duration: time.Duration(r.Int64N(int64(pauseMost)))}
	}
	slices.SortFunc(p, func(a, b pause) int { return int(a.at - b.at) })
	return p
}

// paused is what the pauses of the direction that has more of them take
// together: for so long a transfer may be at rest and nothing be wrong with it.
func (x transfer) paused() time.Duration {
	var most time.Duration
	for i, e := range x.ends {
		var total time.Duration
		for _, p := range slices.Concat(e.send, x.ends[1-i].receive) {
			total += p.duration
		}
		most = max(most, total)
	}
	return most
}

// content is what an end sends. Streams of different ends and seeds have
// nothing in common: bytes of another connection are seen at once.
func (x transfer) content(end int) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], x.seed)
	key[8] = byte(end)
	return io.LimitReader(rand.NewChaCha8(key), x.ends[end].bytes)
}

// transferHead opens a connection: the seed, and whether to pause.
const transferHead = 9

// transferPatience is when an end gives up. Long before, the transfer is too slow.
const transferPatience = 45 * time.Second

// ask is the client's end. The connection is closed when it returns.
func (x transfer) ask(c *net.TCPConn) error {
	head := binary.BigEndian.AppendUint64(nil, x.seed)
	head = append(head, 0)
	if x.pausing {
		head[8] = 1
	}
	if _, err := c.Write(head); err != nil {
		c.Close()
		return err
	}
	return x.do(c, 0)
}

// answerTransfer is the server's end, whatever the client wants.
func answerTransfer(c *net.TCPConn) error {
	c.SetDeadline(time.Now().Add(transferPatience))
	var head [transferHead]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		c.Close()
		return fmt.Errorf("read which transfer: %w", err)
	}
	x := newTransfer(binary.BigEndian.Uint64(head[:]), head[8] == 1)
	if err := x.do(c, 1); err != nil {
		return fmt.Errorf("seed %d, server: %w", x.seed, err)
	}
	return nil
}

func (x transfer) do(c *net.TCPConn, end int) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(transferPatience))
	sent := make(chan error, 1)
	go func() {
		err := x.send(c, end)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	in := &pieces{
		from: c, rand: rand.New(rand.NewPCG(x.seed, uint64(3+end))), pauses: x.ends[end].receive,
	}
	if err := compare(in, x.content(1-end)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// send writes an end's stream, each piece with one call.
func (x transfer) send(c *net.TCPConn, end int) error {
	out := &pieces{
		from: x.content(end), rand: rand.New(rand.NewPCG(x.seed, uint64(1+end))), pauses: x.ends[end].send,
	}
	b := make([]byte, pieceMost)
	for {
		n, err := out.Read(b)
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
	}
}

// pieces reads a stream in pieces of random sizes, with pauses between.
type pieces struct {
	from   io.Reader
	rand   *rand.Rand
	pauses []pause
	at     int64
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.pauses) > 0 && p.at >= p.pauses[0].at {
		time.Sleep(p.pauses[0].duration)
		p.pauses = p.pauses[1:]
	}
	n, err := p.from.Read(b[:min(int64(len(b)), spanning(p.rand, pieceMost))])
	p.at += int64(n)
	return n, err
}

// A load is many transfers, some at once.
type load struct {
	seed     uint64 // of the first; the others count on
	count    int
	at       int // once
	pausing  bool
	slowest  time.Duration // beyond its pauses that a transfer may take; zero: any
	dial     func(i int) (*net.TCPConn, error)
	measured []time.Duration // what each took beyond its pauses
}

// run carries all transfers and says which of them failed or were too slow.
func (l *load) run() error {
	l.measured = make([]time.Duration, l.count)
	errs := make([]error, l.count)
	next := make(chan int)
	var wg sync.WaitGroup
	for range l.at {
		wg.Go(func() {
			for i := range next {
				errs[i] = l.one(i)
			}
		})
	}
	for i := range l.count {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

func (l *load) one(i int) error {
	x := newTransfer(l.seed+uint64(i), l.pausing)
	began := time.Now()
	c, err := l.dial(i)
	if err == nil {
		err = x.ask(c)
	}
	l.measured[i] = time.Since(began) - x.paused()
	if err == nil && l.slowest != 0 && l.measured[i] > l.slowest {
		err = fmt.Errorf("took %v more than its pauses, %v at most", l.measured[i].Round(time.Millisecond), l.slowest)
	}
	if err != nil {
		return fmt.Errorf("seed %d, %d bytes out and %d back: %w", x.seed, x.ends[0].bytes, x.ends[1].bytes, err)
	}
	return nil
}

// serveTransfers answers as many transfers as come until l is closed. The
// returned function closes it and says what went wrong, when all have ended.
func serveTransfers(l net.Listener) (stop func() error) {
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
	)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := answerTransfer(c.(*net.TCPConn)); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
	})
	return func() error {
		l.Close()
		wg.Wait()
		return errors.Join(errs...)
	}
}

// The two ends must agree on a transfer, and a run again must be the same one.
func TestSpeedTransfersFollowFromTheirSeed(t *testing.T) {
	sizes := map[int]int{} // by order of magnitude
	for seed := range uint64(300) {
		a, b := newTransfer(seed, true), newTransfer(seed, true)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d: %v and %v", seed, a, b)
		}
		if a.paused() > 2*pausesMost*pauseMost {
			t.Errorf("seed %d pauses for %v", seed, a.paused())
		}
		for end, e := range a.ends {
			sizes[len(fmt.Sprint(e.bytes))]++
			if e.bytes < 0 || e.bytes > transferMost {
				t.Errorf("seed %d: %d bytes", seed, e.bytes)
			}
			if seed < 10 {
				if n, _ := io.Copy(io.Discard, a.content(end)); n != e.bytes {
					t.Errorf("seed %d: %d bytes of %d", seed, n, e.bytes)
				}
				if compare(a.content(end), a.content(1-end)) == nil && e.bytes > 0 {
					t.Errorf("seed %d: both ends send the same", seed)
				}
			}
		}
	}
	for digits := 1; digits <= 7; digits++ {
		if sizes[digits] == 0 {
			t.Errorf("no stream of %d digits' bytes in 300 transfers", digits)
		}
	}
}

// What the stall test looks for must be seen where it is: a slow transfer, a
// byte that differs, a stream that ends early.
func TestSpeedTransfersFindWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		seed    uint64
		slowest time.Duration
		serve   func(*net.TCPConn)
		want    string
	}{
		"nothing": {1, 10 * time.Second, func(c *net.TCPConn) { answerTransfer(c) }, ""},
		"slow":    {2, time.Nanosecond, func(c *net.TCPConn) { answerTransfer(c) }, "more than its pauses"},
		"another connection's bytes": {3, 0, func(c *net.TCPConn) {
			io.Copy(c, newTransfer(4, false).content(1))
			io.Copy(io.Discard, c) // no reset may overtake it
			c.Close()
		}, "byte 0 of the stream differs"},
		"cut short": {3, 0, func(c *net.TCPConn) {
			c.CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}, "too early"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				c.serve(conn.(*net.TCPConn))
			}
		}()
		err = (&load{seed: c.seed, count: 1, at: 1, slowest: c.slowest, dial: func(int) (*net.TCPConn, error) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return nil, err
			}
			return conn.(*net.TCPConn), nil
		}}).run()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !contains(err, c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
