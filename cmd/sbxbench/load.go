package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// bufferBytes is what both ends read and write at once: enough that system
// calls do not show, little enough to stay in a core's cache.
const bufferBytes = 128 << 10

// patience is how long a load may go on after its time: one that has stalled is
// a failure to report, not to wait for.
const patience = 10 * time.Second

// An order is one load for a client to run. It crosses to a worker as JSON.
type order struct {
	Load     string        `json:"load"`
	Addr     string        `json:"addr"`
	Streams  int           `json:"streams,omitempty"`
	Size     int           `json:"size,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
}

// An outcome is what came of an order. Bytes or Count happened in Elapsed.
type outcome struct {
	Error   string        `json:"error,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Count   int64         `json:"count,omitempty"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	P50     time.Duration `json:"p50,omitempty"`
	P99     time.Duration `json:"p99,omitempty"`
}

var loads = map[string]func(order) (outcome, error){
	"up":       func(o order) (outcome, error) { return streams(o, upload) },
	"down":     func(o order) (outcome, error) { return streams(o, download) },
	"both":     bothWays,
	"rtt":      roundTrips,
	"requests": requests,
	"udp":      flood,
	"udp-rtt":  datagramRoundTrips,
	"ping":     func(order) (outcome, error) { return outcome{}, nil },
}

// perform runs an order and folds its error into the outcome.
func perform(o order) outcome {
	f := loads[o.Load]
	if f == nil {
		return outcome{Error: fmt.Sprintf("no such load: %s", o.Load)}
	}
	r, err := f(o)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func open(addr string, op byte, parameter uint64) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint64([]byte{op}, parameter)
	if _, err := c.Write(head); err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// streams runs one function in o.Streams connections at once and adds up what
// they moved until the last one ended.
func streams(o order, f func(order) (int64, error)) (outcome, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int64
		errs  []error
	)
	began := time.Now()
	for range max(o.Streams, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n, err := f(o)
			mu.Lock()
			defer mu.Unlock()
			total += n
			if err != nil {
				errs = append(errs, err)
			}
		}()
	}
	wg.Wait()
	return outcome{Bytes: total, Elapsed: time.Since(began)}, errors.Join(errs...)
}

// upload counts what the server says it received, not what was written.
func upload(o order) (int64, error) {
	c, err := open(o.Addr, opUpload, 0)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(o.Duration + patience))
	if err := send(c, make([]byte, bufferBytes), o.Duration); err != nil {
		return 0, err
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(c, count[:]); err != nil {
		return 0, fmt.Errorf("wait for the server's count: %w", err)
	}
	return int64(binary.BigEndian.Uint64(count[:])), nil
}

func download(o order) (int64, error) {
	c, err := open(o.Addr, opDownload, uint64(o.Duration))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(o.Duration + patience))
	return discard(c, make([]byte, bufferBytes))
}

func bothWays(o order) (outcome, error) {
	var down outcome
	var downErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		down, downErr = streams(o, download)
	}()
	up, upErr := streams(o, upload)
	<-done
	return outcome{Bytes: up.Bytes + down.Bytes, Elapsed: max(up.Elapsed, down.Elapsed)}, errors.Join(upErr, downErr)
}

// send writes for the given time.
func send(c net.Conn, buffer []byte, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := c.Write(buffer); err != nil {
			return err
		}
	}
	return nil
}

// discard reads to EOF and counts. It does not use io.Copy, which would splice
// on one end and not on the other.
func discard(c net.Conn, buffer []byte) (int64, error) {
	var total int64
	for {
		n, err := c.Read(buffer)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// roundTrips bounces one byte on one connection.
func roundTrips(o order) (outcome, error) {
	c, err := open(o.Addr, opEcho, 0)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()
	var r outcome
	err = onCore(true, func() error {
		return block(c, func(b blockingConn) (err error) {
			r, err = bounce(b, []byte{0}, o.Duration)
			return err
		})
	})
	return r, err
}

func datagramRoundTrips(o order) (outcome, error) {
	c, err := net.Dial("udp", o.Addr)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()
	return bounce(c, []byte{datagramEcho}, o.Duration)
}

type bouncer interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

func bounce(c bouncer, b []byte, d time.Duration) (outcome, error) {
	c.SetDeadline(time.Now().Add(d + patience))
	var took []time.Duration
	began := time.Now()
	for now := began; now.Sub(began) < d; {
		if _, err := c.Write(b); err != nil {
			return outcome{}, err
		}
		if _, err := c.Read(b); err != nil {
			return outcome{}, err
		}
		t := time.Now()
		took = append(took, t.Sub(now))
		now = t
	}
	slices.Sort(took)
	return outcome{
		Count: int64(len(took)), Elapsed: time.Since(began),
		P50: took[len(took)/2], P99: took[len(took)*99/100],
	}, nil
}

// requests connects, asks, reads the answer and closes, one after another.
func requests(o order) (outcome, error) {
	var n int64
	b := make([]byte, 1)
	began := time.Now()
	for time.Since(began) < o.Duration {
		c, err := open(o.Addr, opRequest, 0)
		if err != nil {
			return outcome{}, err
		}
		c.SetDeadline(time.Now().Add(patience))
		_, err = io.ReadFull(c, b)
		c.Close()
		if err != nil {
			return outcome{}, err
		}
		n++
	}
	return outcome{Count: n, Elapsed: time.Since(began)}, nil
}

// flood sends datagrams of o.Size bytes as fast as it can, and counts those
// that the server received.
func flood(o order) (outcome, error) {
	if _, err := count(o.Addr); err != nil { // and start from zero
		return outcome{}, err
	}
	c, err := net.Dial("udp", o.Addr)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()
	b := make([]byte, o.Size)
	b[0] = datagramCount
	began := time.Now()
	for time.Since(began) < o.Duration {
		c.Write(b) // a full buffer is part of the load
	}
	elapsed := time.Since(began)
	time.Sleep(100 * time.Millisecond)
	n, err := count(o.Addr)
	return outcome{Count: n, Bytes: n * int64(o.Size), Elapsed: elapsed}, err
}

func count(addr string) (int64, error) {
	c, err := open(addr, opCount, 0)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	var n [8]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return 0, fmt.Errorf("ask for the count of datagrams: %w", err)
	}
	return int64(binary.BigEndian.Uint64(n[:])), nil
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
