package portfwd

import (
	"fmt"
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/timer"
	"sbxnet/portfwd/hostsock"
	"sbxnet/portfwd/reactor"
	"sbxnet/tapdev"
	"sbxnet/tapdev/stackroom"
)

// What one turn of the loop does at most, so that no source of work makes the
// others, or acknowledgements, wait long.
const (
	framesPerTurn = 64
	bytesPerTurn  = 1 << 20   // of host sockets
	bytesPerFlow  = 512 << 10 // that one flow moves, each way
	datagramSlots = 32        // datagrams, or trains of them, read from the host
)

// shard is one goroutine's share of the forwarder. See the package comment.
type shard struct {
	*Forwarder
	index int
	log   *slog.Logger

	loop   *reactor.Loop
	timers timer.Queue
	queue  tapdev.Queue
	stack  *netstack.Stack
	batch  frame.Batch
	in     [framesPerTurn]tapdev.Received

	owned        map[flowKey]struct{} // the shard's flows, where there are other shards
	lastOwned    flowKey              // one of them
	inbox        inbox
	linkToken    reactor.Token
	linkReadable bool
	linkPending  bool // the queue keeps frames until it is writable

	ready   []worker // told to work since working was begun
	working []worker // a round of the ready list, done up to next
	next    int
	moved   int // bytes from and to host sockets in this turn, but for those of frames

	vector  hostsock.Vector
	errors  hostsock.ErrorQueue
	rx      *hostsock.Receiver
	pieces  [4][]byte // for Peek and Reserve
	reserve reserve
	memory  memory

	relays map[*relay]struct{}
	udp    udpTable
	echo   echoTable

	splices   spliceTable
	diverting []*diversion               // held, to be looked at after this turn
	leaving   map[*divertedConn]struct{} // diverted, and closed on our side
	away      int                        // connections that are diverted
	strays    uint64                     // segments of theirs that were seen on the link
	mend      timer.Instant              // from when on strays are looked after

	counters counters
	stop     bool
	ended    chan struct{} // closed when run returns
}

// worker is a flow that has been told to do something. work is called once a
// turn until it returns false.
type worker interface{ work() (again bool) }

func newShard(f *Forwarder, index int, queue tapdev.Queue, seed [32]byte) (*shard, error) {
	loop, err := reactor.New(f.epoch)
	if err != nil {
		return nil, err
	}
	s := &shard{
		Forwarder: f, index: index, log: f.cfg.Logger, loop: loop, queue: queue,
		rx: hostsock.NewReceiver(datagramSlots), relays: make(map[*relay]struct{}), ended: make(chan struct{}),
		leaving: make(map[*divertedConn]struct{}),
	}
	s.inbox.limits = &f.cfg.Limits
	s.memory.timer.Expire = s.trimMemory
	s.udp.init(s)
	s.echo.init(s)
	sc := f.cfg.stack(seed)
	sc.AddressConflict = s.addressConflict
	sc.Output = &s.batch
	sc.Handler = s
	sc.TCP.Memory = &s.memory.slabs
	if s.stack, err = netstack.New(sc); err == nil {
		err = s.serveDHCP()
	}
	if err == nil {
		s.linkToken, err = loop.Add(queue.FD(), reactor.Level, linkEvents{s})
	}
	if err != nil {
		loop.Close()
		return nil, err
	}
	s.reserve.open()
	return s, nil
}

// run is the shard's goroutine. It returns the error that ended it, nil after
// a closure has set stop.
func (s *shard) run() error {
	stackroom.Take()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.ended)
	defer s.close()
	for !s.stop {
		if err := s.turn(); err != nil {
			return err
		}
	}
	return nil
}

// turn is one turn of the loop.
func (s *shard) turn() error {
	now, err := s.loop.Wait(s.deadline())
	if err != nil {
		return err
	}
	s.counters.turns++
	s.stack.Tick(now)
	s.timers.Run(now)
	s.loop.Dispatch()
	s.readInbox(now)
	if err := s.readLink(now); err != nil {
		return err
	}
	s.workReady()
	if err := s.flush(); err != nil {
		return err
	}
	s.workDiversions()
	return nil
}

// deadline is how long to sleep, if nothing happens.
func (s *shard) deadline() timer.Instant {
	if len(s.ready) > 0 || s.next < len(s.working) {
		return 0
	}
	return min(s.stack.NextDeadline(), s.timers.Next())
}

// linkEvents is the link queue's handler.
type linkEvents struct{ *shard }

func (l linkEvents) Ready(e reactor.Events) {
	if e.Readable() {
		l.linkReadable = true
	}
}

// readLink takes the frames that one read finds. The queue is registered
// level-triggered, so what is left reports itself.
func (s *shard) readLink(now timer.Instant) error {
	if !s.linkReadable {
		return nil
	}
	s.linkReadable = false
	n, err := s.queue.Read(s.in[:])
	if err != nil {
		return err
	}
	for i := range s.in[:n] {
		f := &s.in[i]
		s.input(f.Data, f.Offload, now)
	}
	// Datagrams that were collected lie in the queue's memory.
	s.udp.flush()
	return nil
}

// schedule puts w on the ready list. The caller sees to it that it is not on it
// already.
func (s *shard) schedule(w worker) { s.ready = append(s.ready, w) }

// workReady lets flows on the ready list work once each, in turn, as far as the
// turn's bytes go; the others come first in the next turn. A flow that has more
// to do goes to the end of the line.
func (s *shard) workReady() {
	if s.next == len(s.working) {
		s.working, s.ready, s.next = s.ready, s.working[:0], 0
	}
	for s.moved = 0; s.next < len(s.working) && s.moved < bytesPerTurn; s.next++ {
		w := s.working[s.next]
		s.working[s.next] = nil
		if w.work() {
			s.ready = append(s.ready, w)
		}
	}
}

// flush sends what the turn has brought forth. Only after it may the memory be
// reused that frames point into.
func (s *shard) flush() error {
	s.stack.Flush()
	if s.batch.Len() > 0 || s.linkPending {
		if err := s.writeLink(); err != nil {
			return err
		}
	}
	s.batch.Reset()
	s.stack.Reclaim()
	s.rx.Reset()
	s.watchMemory()
	return nil
}

func (s *shard) writeLink() error {
	if s.batch.Len() > 0 {
		if err := s.queue.Write(s.batch.Frames()); err != nil {
			return err
		}
	}
	pending, err := s.queue.Flush()
	if err != nil {
		return err
	}
	if pending != s.linkPending {
		s.linkPending = pending
		want := reactor.Level
		if pending {
			want |= unix.EPOLLOUT
		}
		if err := s.loop.Modify(s.queue.FD(), s.linkToken, want); err != nil {
			return err
		}
	}
	return nil
}

// close ends all flows: sockets are closed, the sandbox's connections reset as
// far as the link still takes it.
func (s *shard) close() {
	s.closeDiversions()
	for r := range s.relays {
		r.abandon()
	}
	s.splices.close()
	s.udp.close()
	s.echo.close()
	s.flush()
	s.loop.Remove(s.queue.FD(), s.linkToken)
	s.loop.Close()
	s.reserve.close()
	s.memory.slabs.Close()
}

// warn logs something that the user can mend.
func (s *shard) warn(format string, args ...any) { s.log.Warn(fmt.Sprintf(format, args...)) }
