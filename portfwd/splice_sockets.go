package portfwd

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
	"sbxnet/tapdev/stackroom"
)

// insideSockets are TCP sockets that were made inside the sandbox and are not
// connected yet: a few of each family, so that none has to be asked for while a
// client waits. Shards take them, a goroutine in the background fills up.
type insideSockets struct {
	make func(v6 bool, n int) ([]*os.File, error)
	log  *slog.Logger

	mu       sync.Mutex
	families [2]insideFamily // IPv4, IPv6
	waiting  []*shard        // who wanted one when there was none
	resting  time.Time       // until when none is given out or asked for
	silent   int             // connects in a row that were not answered
	closed   bool
	filling  sync.WaitGroup

	lingering lingering
	live      map[uint16]int // spliced connections, by the port that the client has inside
}

type insideFamily struct {
	on      bool // the sandbox has it
	free    []int
	want    int       // as many are kept
	asked   time.Time // when more were asked for last
	made    time.Time // when some came last
	filling bool
	resting time.Time // likewise, of this one
}

// What is kept of each family: at first, and at most, where more have to be asked
// for soon after.
const (
	socketsKept    = 16
	socketsKeptMax = 128
	socketsSoon    = 100 * time.Millisecond
)

// socketsFresh is how long after some sockets came others may be used without asking:
// the sandbox may have put up a firewall since, which is to see what comes in, and
// makes none then.
const socketsFresh = time.Second

// socketRest is how long sockets inside are done without when there were none to
// be had, or one did not work.
const socketRest = 10 * time.Second

func newInsideSockets(c *Config) *insideSockets {
	if c.Sockets == nil {
		return nil
	}
	p := &insideSockets{make: c.Sockets, log: c.Logger}
	p.families[0] = insideFamily{on: c.IPv4.enabled(), want: socketsKept}
	p.families[1] = insideFamily{on: c.IPv6.enabled(), want: socketsKept}
	return p
}

func (p *insideSockets) family(v6 bool) *insideFamily {
	if v6 {
		return &p.families[1]
	}
	return &p.families[0]
}

// rests reports whether a family is done without for now. The lock is held.
func (p *insideSockets) rests(f *insideFamily) bool {
	now := time.Now()
	return now.Before(p.resting) || now.Before(f.resting)
}

// fill sees to it that there are some.
func (p *insideSockets) fill() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refill(false)
	p.refill(true)
}

// take returns a socket, which is s's from then on. EAGAIN says that there will be
// some presently, and that s is told by trySplices; anything else, that there are
// none.
func (p *insideSockets) take(s *shard, v6 bool) (fd int, errno unix.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.family(v6)
	if p.rests(f) {
		return -1, unix.ENOBUFS
	}
	if len(f.free) > 0 && f.fresh() {
		return p.give(v6), 0
	}
	p.refill(v6)
	if !f.filling {
		return -1, unix.ENOBUFS
	}
	if !slices.Contains(p.waiting, s) {
		p.waiting = append(p.waiting, s)
	}
	return -1, unix.EAGAIN
}

// takeAny is take for who asks the sandbox himself before the socket is used, and
// does not wait.
func (p *insideSockets) takeAny(v6 bool) (fd int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.family(v6)
	switch {
	case p.rests(f):
		return -1, false
	case len(f.free) == 0:
		p.refill(v6)
		return -1, false
	}
	return p.give(v6), true
}

// give takes one of those that are there. The lock is held.
func (p *insideSockets) give(v6 bool) (fd int) {
	f := p.family(v6)
	last := len(f.free) - 1
	fd, f.free = f.free[last], f.free[:last]
	p.refill(v6)
	return fd
}

func (f *insideFamily) fresh() bool { return time.Since(f.made) < socketsFresh }

// refill asks for more sockets, if half of them are gone or it was long ago. The lock
// is held.
func (p *insideSockets) refill(v6 bool) {
	f := p.family(v6)
	if !f.on || f.filling || p.closed || len(f.free) > f.want/2 && f.fresh() || p.rests(f) {
		return
	}
	// A call costs as much as twenty sockets.
	now := time.Now()
	switch since := now.Sub(f.asked); {
	case since < socketsSoon:
		f.want = min(2*f.want, socketsKeptMax)
	case since > socketRest:
		f.want = socketsKept
	}
	f.asked, f.filling = now, true
	n := max(1, f.want-len(f.free))
	p.filling.Go(func() { stackroom.Take(); p.ask(v6, n) })
}

// ask has sockets made, and keeps them.
func (p *insideSockets) ask(v6 bool, n int) {
	files, err := p.make(v6, n)
	fds := make([]int, 0, len(files))
	for _, file := range files {
		fd, e := descriptorOf(file)
		if err == nil {
			err = e
		}
		if e == nil {
			fds = append(fds, fd)
		}
		file.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.tell()
	f := p.family(v6)
	f.filling = false
	if err != nil {
		p.log.Debug("no sockets in the sandbox: published connections go over the link", slog.Bool("ipv6", v6), slog.Any("error", err))
		f.resting = time.Now().Add(socketRest)
	}
	if err != nil || p.closed {
		closeSockets(fds)
		return
	}
	f.made = time.Now()
	f.free = append(f.free, fds...)
	if more := len(f.free) - f.want; more > 0 {
		closeSockets(f.free[:more])
		f.free = slices.Delete(f.free, 0, more)
	}
}

// tell lets those who wait try again. The lock is held.
func (p *insideSockets) tell() {
	for _, s := range p.waiting {
		s.loop.Post(s.trySplices)
	}
	p.waiting = p.waiting[:0]
}

// descriptorOf is another descriptor of a file, non-blocking, which the runtime
// knows nothing of.
func descriptorOf(file *os.File) (fd int, err error) {
	c, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	var e error
	if err = c.Control(func(orig uintptr) { fd, e = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		err = e
	}
	if err != nil {
		return -1, err
	}
	return fd, unix.SetNonblock(fd, true)
}

// silentMost is how many connects in a row may go without an answer. One may meet
// what is left of another connection, or a server with too many clients.
const silentMost = 3

// answered is called when somebody has accepted or refused a connect, or nobody
// has. In the end the sockets are not worth having, and those that come later were
// made anew.
func (p *insideSockets) answered(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if yes {
		p.silent = 0
		return
	}
	if p.silent++; p.silent < silentMost {
		return
	}
	p.silent = 0
	p.resting = time.Now().Add(socketRest)
	for i := range p.families {
		f := &p.families[i]
		closeSockets(f.free)
		f.free = f.free[:0]
	}
}

// close closes all, and returns when nobody asks for more.
func (p *insideSockets) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.closed = true
	for i := range p.families {
		f := &p.families[i]
		closeSockets(f.free)
		f.free = nil
	}
	p.mu.Unlock()
	p.filling.Wait()
}

func closeSockets(fds []int) {
	for _, fd := range fds {
		hostsock.CloseForeign(fd)
	}
}
