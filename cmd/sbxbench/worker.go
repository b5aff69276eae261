package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"
)

// workerPort is where a worker's own server listens inside its network, for
// loads on published ports.
const workerPort = 7000

// work is the worker's whole life: a line when it is ready, then an outcome for
// each order until standard input ends.
func work(port int) error {
	s, err := serve("", port)
	if err != nil {
		return err
	}
	defer s.close()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(outcome{Count: int64(os.Getpid())}); err != nil {
		return err
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	held := []net.Conn{}
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if o.Load == "hold" {
			r := outcome{}
			for len(held) < o.Streams {
				c, err := open(o.Addr, opHold, 0)
				if err != nil {
					r.Error = err.Error()
					break
				}
				c.SetLinger(0) // ends with a reset: no port waits in TIME_WAIT
				held = append(held, c)
			}
			r.Count = int64(len(held))
			out.Encode(r)
			continue
		}
		if err := out.Encode(perform(o)); err != nil {
			return err
		}
	}
}

// errNoAnswer: the worker hangs, and cannot be asked again.
var errNoAnswer = errors.New("no answer")

// worker is the bench's end of a worker process.
type worker struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	pid int
	end io.Closer
}

// startWorker runs cmd, which must end up running sbxbench as a worker with
// cmd's standard input and output, and waits until it is ready.
func startWorker(cmd *exec.Cmd) (*worker, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// What a tool left behind may hold its standard error open.
	cmd.WaitDelay = time.Second
	tail := &tailWriter{}
	cmd.Stderr = tail
	if err := launch(cmd); err != nil {
		return nil, err
	}
	w := &worker{cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out)), end: in}
	ready, err := w.read(20 * time.Second)
	if err != nil {
		w.stop()
		return nil, fmt.Errorf("%s: %w %s", cmd.Args[0], err, tail)
	}
	w.pid = int(ready.Count)
	return w, nil
}

func (w *worker) do(o order) (outcome, error) {
	if err := w.in.Encode(o); err != nil {
		return outcome{}, err
	}
	r, err := w.read(o.Duration + patience + 5*time.Second) // after the worker itself
	if err == nil && r.Error != "" {
		err = fmt.Errorf("%s", r.Error)
	}
	return r, err
}

func (w *worker) read(limit time.Duration) (outcome, error) {
	type answer struct {
		o   outcome
		err error
	}
	c := make(chan answer, 1)
	go func() {
		var a answer
		a.err = w.out.Decode(&a.o)
		c <- a
	}()
	select {
	case a := <-c:
		return a.o, a.err
	case <-time.After(limit):
		return outcome{}, fmt.Errorf("%w within %v", errNoAnswer, limit)
	}
}

// stop ends the worker and with it its network.
func (w *worker) stop() {
	w.end.Close()
	kill := time.AfterFunc(3*time.Second, func() { w.cmd.Process.Kill() })
	defer kill.Stop()
	finish(w.cmd)
	killOrphans()
}

// tailWriter keeps the end of what a program says, for its error message.
type tailWriter struct{ b []byte }

func (t *tailWriter) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 400 {
		t.b = t.b[len(t.b)-400:]
	}
	return len(p), nil
}

func (t *tailWriter) String() string { return string(t.b) }
