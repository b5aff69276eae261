package userns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"sbxnet/tapdev"
)

// AttachConfig says which network namespace gets a link, and what is on it.
type AttachConfig struct {
	// PID of a process in it, as seen from here; or
	PID int
	// NetNS is the path of it, such as /run/netns/NAME or /proc/PID/ns/net.
	NetNS string
	// UserNS is the path of the user namespace that owns it; empty finds it
	// out. It is entered only by who lacks the capabilities outside.
	UserNS string
	// NetNSOnly enters no user namespace, whatever that takes.
	NetNSOnly bool
	// Link is opened inside, or taken over where a persistent TAP of its name
	// is there. MTU 0 is the TAP's own, 1500 for one that is created; a taken
	// over TAP keeps its hardware address unless one is given.
	Link tapdev.Options
	// Configure brings lo and the link up and gives it addresses and default
	// routes. Without it they are whoever's they are, and are learned.
	Configure bool
	// Addresses of the link's interface, each with the length of its subnet,
	// and Gateways, next hops of default routes, at most one of each family;
	// both with Configure only.
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	// Remove and RemoveIfEmpty are what the process inside removes when this one
	// has died without Close, as a sandbox's first process does (Config). What is
	// mounted there stays.
	Remove, RemoveIfEmpty []string
	// Log receives what went less well than asked; nil discards it.
	Log *slog.Logger
}

// Attachment is a link into a network namespace that others made, and a process
// of ours in it. Its methods may be called from any goroutine.
type Attachment struct {
	log   *slog.Logger
	name  string // of the target
	conn  *net.UnixConn
	proc  *os.Process
	info  tapdev.Info
	watch *watcher
	notes int

	mu      sync.Mutex
	files   []*os.File
	found   Found
	changed chan struct{}

	asking  sync.Mutex // held by Listen, Sockets and Divert
	replies chan reply // to them; closed when there will be none
	bell    *os.File   // rung when there is one, and before it is closed with replies
	lost    error      // why there are none

	// ended is closed when proc is reaped; state is set before.
	ended chan struct{}
	state *os.ProcessState

	closeOnce sync.Once
	closeErr  error
}

// Attach gives a network namespace a link. Where the namespace belongs to
// another user namespace than ours and we are not capable from outside, a
// process of ours enters both; else the network namespace alone. The
// process ends with Close or with this process, and a TAP or packet link that
// was created ends with its last descriptor.
//
// It refuses the host's own network and a namespace with more than one default
// route of a family. The error is one line.
func Attach(cfg AttachConfig) (*Attachment, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Link.Name == "" {
		return nil, errors.New("attach: the link has no name")
	}
	if err := checkRemove(cfg.Remove, cfg.RemoveIfEmpty); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	t, err := openTarget(&cfg)
	if err != nil {
		return nil, err
	}
	defer t.close()
	a := &Attachment{log: cfg.Log, name: t.name, ended: make(chan struct{}), changed: make(chan struct{}, 1), replies: make(chan reply, 1)}
	// From here on, so that no end of the namespace is missed.
	if a.watch, err = startWatcher(t); err != nil {
		return nil, t.explain(err)
	}
	if err = a.spawn(&cfg, t); err == nil {
		err = a.prepare()
	}
	if err == nil {
		a.bell, err = newBell()
	}
	if err != nil {
		a.Close()
		return nil, t.explain(err)
	}
	go a.receive()
	return a, nil
}

// spawn starts the process inside from a thread that lives as long as it does,
// because a parent death signal goes by the thread that forked.
func (a *Attachment) spawn(cfg *AttachConfig, t *target) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		defer close(a.ended)
		var err error
		a.proc, a.conn, err = startAttachProcess(cfg, t)
		started <- err
		if err == nil {
			a.state, _ = a.proc.Wait()
		}
	}()
	return <-started
}

// startAttachProcess starts the process with nothing open but our standard
// error, if we have one.
func startAttachProcess(cfg *AttachConfig, t *target) (*os.Process, *net.UnixConn, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	stderr := null
	if _, err := os.Stderr.Stat(); err == nil {
		stderr = os.Stderr
	}
	e := &entry{
		argv: []string{attachName, cfg.Link.Name}, env: os.Environ(),
		files: []*os.File{null, null, stderr}, namespaces: t.namespaces(),
	}
	return e.startControlled(&attachSetup{
		Link: cfg.Link, Configure: cfg.Configure, Addresses: cfg.Addresses, Gateways: cfg.Gateways,
		Remove: cfg.Remove, RemoveIfEmpty: cfg.RemoveIfEmpty,
	})
}

// prepare waits until the link is there.
func (a *Attachment) prepare() error {
	_ = a.conn.SetReadDeadline(time.Now().Add(startTimeout))
	defer a.conn.SetReadDeadline(time.Time{})
	m, files, err := a.next()
	if err != nil {
		return err
	}
	if m.Op != opReady || m.truncated || m.Info == nil || m.Found == nil || len(files) == 0 {
		closeAll(files)
		return explainSetup("/", m)
	}
	a.files, a.info, a.found = files, *m.Info, *m.Found
	return nil
}

// next returns the next message that is not a note. Processes in the namespace
// may have every capability over the one that sends, so it is distrusted.
func (a *Attachment) next() (message, []*os.File, error) {
	for {
		m, files, err := receiveMessage(a.conn)
		if err != nil {
			return message{}, nil, a.died(err)
		}
		m.Text, m.Label = printable(m.Text), printable(m.Label)
		if m.Op != opNote {
			return m, files, nil
		}
		closeAll(files)
		if a.notes++; a.notes <= maxNotes {
			a.log.Warn(m.Text)
		}
	}
}

// died turns an error of the control socket into what it stands for.
func (a *Attachment) died(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the process inside did not get ready within %v", startTimeout)
	case errors.Is(err, net.ErrClosed):
		return errors.New("it was closed")
	case !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET):
		return err
	}
	select {
	case <-a.ended:
	case <-time.After(endTimeout):
		return errors.New("the process inside closed its control socket")
	}
	return fmt.Errorf("the process inside (pid %d) died: %v", a.proc.Pid, a.state)
}

// receive takes in what changes on the interface, and answers to what was asked.
func (a *Attachment) receive() {
	defer a.bell.Close()
	defer a.ring()
	defer close(a.replies)
	for {
		m, files, err := a.next()
		if err != nil {
			a.lost = err
			return
		}
		switch {
		case m.Op == opDone || m.Op == opFailed:
			select {
			case a.replies <- reply{m, files}:
				files = nil
				a.ring()
			default: // nobody has asked
			}
		case m.Op == opFound && m.Found != nil:
			a.setFound(*m.Found)
		}
		closeAll(files)
	}
}

func (a *Attachment) setFound(f Found) {
	a.mu.Lock()
	a.found = f
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Link returns what was opened and the descriptors of it, which are the
// caller's from then on; a second call returns none.
func (a *Attachment) Link() (tapdev.Info, []*os.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	files := a.files
	a.files = nil
	return a.info, files
}

// Found returns what is on the interface now.
func (a *Attachment) Found() Found {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.found
}

// Changed receives a value when Found returns something new.
func (a *Attachment) Changed() <-chan struct{} { return a.changed }

// Done is closed when the namespace has gone: when the process that it was named
// by has ended, or its path leads nowhere or to another namespace.
func (a *Attachment) Done() <-chan struct{} { return a.watch.done }

// PID is the process ID of our process in the namespace, good until Close:
// /proc/PID/net shows the namespace's sockets. It is 0 if that was killed,
// which the link survives.
func (a *Attachment) PID() int {
	select {
	case <-a.ended:
		return 0
	default:
		return a.proc.Pid
	}
}

// Remove adds to AttachConfig.Remove what has been made since. It fails if the
// process inside was killed.
func (a *Attachment) Remove(paths ...string) error {
	if err := checkRemove(paths); err != nil {
		return err
	}
	if err := sendMessage(a.conn, message{Op: opRemove, Paths: paths}); err != nil {
		return fmt.Errorf("remove %q at the end: %w", paths, err)
	}
	return nil
}

// Close ends the process in the namespace and closes descriptors that Link did
// not hand out. A TAP that was created goes with the last of its descriptors, a
// packet link with the process.
func (a *Attachment) Close() error {
	a.closeOnce.Do(func() { a.closeErr = a.close() })
	return a.closeErr
}

func (a *Attachment) close() error {
	a.watch.close()
	_, files := a.Link()
	closeAll(files)
	if a.conn == nil {
		return nil
	}
	a.dismiss()
	select {
	case <-a.ended:
		return nil
	case <-time.After(endTimeout):
	}
	_ = a.proc.Kill()
	select {
	case <-a.ended:
	case <-time.After(endTimeout):
		return fmt.Errorf("attached to %s: the process inside (pid %d) does not die: see /proc/%[2]d/stack", a.name, a.proc.Pid)
	}
	return nil
}

// dismiss has the process inside end.
func (a *Attachment) dismiss() {
	_ = a.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it may be stopped
	_ = sendMessage(a.conn, message{Op: opEnd})
	a.conn.Close() // without that message it takes this for our death
}
