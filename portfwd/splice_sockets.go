package portfwd

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/portfwd/hostsock"
)

// insideSockets are TCP sockets that were made inside the sandbox and are not
// connected yet: a few of each family, so that none has to be asked for while a
// client waits. Shards take them, a goroutine in the background fills up.
type insideSockets struct {
	make func(v6 bool, n int) ([]*os.File, error)
	log  *slog.Logger

	mu       sync.Mutex
	families [2]insideFamily // IPv4, IPv6
	resting  time.Time       // until when none is given out or asked for
	closed   bool
	filling  sync.WaitGroup
}

type insideFamily struct {
	on      bool // the sandbox has it
	free    []int
	want    int // as many are kept
	filling bool
}

// What is kept of each family: at first, and at most, where clients come faster
// than that is filled up.
const (
	socketsKept    = 16
	socketsKeptMax = 128
)

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

// take returns a socket, which is the caller's from then on. It does not wait.
func (p *insideSockets) take(v6 bool) (fd int, ok bool) {
	if p == nil {
		return -1, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.resting) {
		return -1, false
	}
	f := p.family(v6)
	if n := len(f.free); n > 0 {
		fd, f.free, ok = f.free[n-1], f.free[:n-1], true
	} else if f.want < socketsKeptMax {
		f.want *= 2
	}
	p.refill(v6)
	return fd, ok
}

// refill asks for more sockets, if half of them are gone. The lock is held.
func (p *insideSockets) refill(v6 bool) {
	f := p.family(v6)
	if !f.on || f.filling || p.closed || len(f.free) > f.want/2 || time.Now().Before(p.resting) {
		return
	}
	f.filling = true
	n := f.want - len(f.free)
	p.filling.Go(func() { p.ask(v6, n) })
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
	f := p.family(v6)
	f.filling = false
	if err != nil {
		p.log.Debug("no sockets in the sandbox: published connections go over the link", slog.Bool("ipv6", v6), slog.Any("error", err))
		p.resting = time.Now().Add(socketRest)
	}
	if err != nil || p.closed {
		closeSockets(fds)
		return
	}
	f.free = append(f.free, fds...)
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

// rest is called when a socket did not work: what the others are worth is not
// known, and those that come later were made anew.
func (p *insideSockets) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
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
		hostsock.Close(fd)
	}
}
