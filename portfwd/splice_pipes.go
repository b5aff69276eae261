package portfwd

import (
	"time"

	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
)

// spliceTable is what a shard has of spliced connections.
type spliceTable struct {
	all     map[*splice]struct{}
	waiting map[*splice]struct{} // for sockets inside
	// pipes are empty, and those of pipesMade that no connection has.
	pipes     []hostsock.Pipe
	pipesMade int
	pipesRest timer.Instant // until when none is made
	buffer    []byte        // see room
}

// A connection has a pipe while bulk is moved, or waits in it for who is to take
// it: pipes count against the user's limit (pipe-user-pages-soft, pipe(7)), where
// other programs want some, too. Who gets none copies.
const (
	pipesMost  = 64 // of a shard
	pipesLarge = 8  // the first of them
	pipesKept  = 4  // when nothing moves
	// pipeSize is 64 pages, each of which holds a fragment of one of the kernel's
	// buffers: 32 KiB from loopback, and 1.4 from an Ethernet.
	pipeSize = 256 << 10
	// pipeRest is how long none is asked for after one was refused: to ask takes half
	// as long as to copy a message.
	pipeRest = time.Second
)

// takePipe returns an empty pipe, or none where there are enough.
func (t *spliceTable) takePipe(now timer.Instant) hostsock.Pipe {
	if n := len(t.pipes); n > 0 {
		p := t.pipes[n-1]
		t.pipes = t.pipes[:n-1]
		return p
	}
	if t.pipesMade >= pipesMost || now < t.pipesRest {
		return hostsock.Pipe{}
	}
	size := 0 // an ordinary one
	if t.pipesMade < pipesLarge {
		size = pipeSize
	}
	p, errno := hostsock.OpenPipe(size)
	if errno != 0 {
		t.pipesRest = now.Add(pipeRest)
		return hostsock.Pipe{}
	}
	t.pipesMade++
	return p
}

// givePipe takes a pipe back.
func (t *spliceTable) givePipe(p hostsock.Pipe, empty bool) {
	if empty && len(t.pipes) < pipesKept {
		t.pipes = append(t.pipes, p)
		return
	}
	p.Close()
	t.pipesMade--
}

// room is memory of n bytes, until the next call.
func (t *spliceTable) room(n int) []byte {
	if len(t.buffer) < n {
		t.buffer = make([]byte, n)
	}
	return t.buffer[:n]
}
