package userns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sbxnet/tapdev"
	"sbxnet/tapdev/stackroom"
)

const (
	// startTimeout bounds what init needs until the link is open. newuidmap may
	// have to ask a directory server.
	startTimeout = 30 * time.Second
	// endTimeout bounds how long init may take to end the sandbox; then it is
	// killed and sbxnet does it.
	endTimeout = 5 * time.Second
)

// Sandbox is a running sandbox. Exec and Wait are called from one goroutine at
// a time; Listen, Sockets, Remove, Signal, PID and Close from any.
type Sandbox struct {
	log   *slog.Logger
	conn  *net.UnixConn
	proc  *os.Process
	ns    *os.File // the user namespace, kept so that its number stays its own
	info  tapdev.Info
	files []*os.File
	pidNS bool
	notes int // received

	asking sync.Mutex // held by Listen and Sockets

	mu         sync.Mutex
	commandPID int
	service    *net.UnixConn // on which Listen and Sockets ask; nil before the first
	noService  error         // why they cannot

	// done is closed when init is reaped and nothing of the sandbox is left;
	// state and leftover are set before.
	done     chan struct{}
	state    *os.ProcessState
	leftover bool

	waited    bool
	status    int
	waitErr   error
	closeOnce sync.Once
	closeErr  error
}

// Start makes the namespaces, maps, mounts and addresses of cfg and opens the
// link; the command waits for Exec. The sandbox ends with Close, with this
// process, or with its command.
//
// The error is an *Unavailable where the machine does not allow it, and an
// *ExecError if there is no such command.
func Start(cfg Config) (*Sandbox, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := cfg.missingCommand(); err != nil {
		return nil, err
	}
	if cfg.UserMap == MapSingle {
		return start(cfg, singleMaps())
	}
	maps, err := fullMapsOf(cfg.SubIDs)
	if err == nil {
		var sb *Sandbox
		if sb, err = start(cfg, maps); err == nil {
			return sb, nil
		}
		var refused *mapError
		if !errors.As(err, &refused) {
			return nil, err
		}
	}
	missing := cfg.explainFullMap(err)
	if cfg.UserMap == MapFull {
		return nil, missing
	}
	cfg.Log.Warn("only your own user ID exists in the sandbox: " + missing.Error())
	return start(cfg, singleMaps())
}

// mapError is a map that the kernel, newuidmap or newgidmap refused.
type mapError struct{ err error }

func (e *mapError) Error() string { return "ID map: " + e.err.Error() }
func (e *mapError) Unwrap() error { return e.err }

// start makes a sandbox with the maps given.
func start(cfg Config, maps idMaps) (*Sandbox, error) {
	sb := &Sandbox{log: cfg.Log, pidNS: cfg.PIDNamespace, done: make(chan struct{}), noService: cfg.noService()}
	if err := sb.spawn(&cfg); err != nil {
		return nil, err
	}
	if err := sb.prepare(maps); err != nil {
		sb.Close()
		return nil, err
	}
	return sb, nil
}

// spawn starts init from a thread that lives as long as it does, because a
// parent death signal goes by the thread that forked.
func (sb *Sandbox) spawn(cfg *Config) error {
	s := &setup{
		Network:       cfg.Network,
		PIDNamespace:  cfg.PIDNamespace,
		NetRaw:        cfg.NetRaw,
		Hostname:      cfg.Hostname,
		Link:          cfg.Link,
		Addresses:     cfg.Addresses,
		Gateways:      cfg.Gateways,
		ResolvConf:    []byte(cfg.ResolvConf),
		Hosts:         []byte(cfg.Hosts),
		Etc:           cfg.etc,
		CopyUp:        cfg.CopyUp,
		Propagation:   cfg.Propagation,
		Cgroup2:       cfg.Cgroup2,
		DetachNetNS:   cfg.DetachNetNS,
		Listeners:     len(cfg.Listeners),
		Remove:        cfg.Remove,
		RemoveIfEmpty: cfg.RemoveIfEmpty,
		MaxProcs:      maxProcsOf(cfg.Env),
	}
	started := make(chan error)
	go func() {
		stackroom.Take()
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		holdSubreaper()
		defer releaseSubreaper()
		var err error
		if sb.proc, sb.conn, err = startInit(cfg, s); err != nil {
			started <- err
			return
		}
		sb.ns, err = os.Open("/proc/" + strconv.Itoa(sb.proc.Pid) + "/ns/user")
		if err != nil {
			err = fmt.Errorf("the sandbox's user namespace: %w", err)
			_ = sb.proc.Kill()
		}
		started <- err
		sb.reap()
	}()
	err := <-started
	if err != nil && sb.conn != nil {
		sb.Close()
	}
	return err
}

// reap waits for init and ends what it left behind.
func (sb *Sandbox) reap() {
	defer close(sb.done)
	sb.state, _ = sb.proc.Wait()
	if sb.ns == nil {
		return
	}
	defer sb.ns.Close()
	id, err := namespaceOf(int(sb.ns.Fd()))
	if err != nil {
		return
	}
	inside := func(pid int) bool { return withinUserNamespace(pid, id) }
	sb.leftover = !killChildren(inside, time.Now().Add(endTimeout))
}

// prepare writes the ID maps and waits until init has done the rest.
func (sb *Sandbox) prepare(maps idMaps) error {
	if err := maps.write(sb.proc.Pid); err != nil {
		return &mapError{err}
	}
	if err := sendMessage(sb.conn, message{Op: opMapped}); err != nil {
		return sb.died(err)
	}
	_ = sb.conn.SetReadDeadline(time.Now().Add(startTimeout))
	defer sb.conn.SetReadDeadline(time.Time{})
	m, files, err := sb.next()
	if err != nil {
		return err
	}
	if m.Op != opReady || m.truncated {
		closeAll(files)
		return explainSetup("/", m)
	}
	sb.files = files
	if m.Info != nil {
		sb.info = *m.Info
	}
	return nil
}

// next returns init's next message that is not a note. The command has every
// capability over init, so what comes is to be distrusted.
func (sb *Sandbox) next() (message, []*os.File, error) {
	for {
		m, files, err := receiveMessage(sb.conn)
		if err != nil {
			return message{}, nil, sb.died(err)
		}
		m.Text, m.Label = printable(m.Text), printable(m.Label)
		if m.Op != opNote {
			return m, files, nil
		}
		closeAll(files)
		if sb.notes++; sb.notes <= maxNotes {
			sb.log.Warn(m.Text)
		}
	}
}

// died turns an error of the control socket into what it stands for.
func (sb *Sandbox) died(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the sandbox's first process did not get ready within %v", startTimeout)
	}
	if errors.Is(err, net.ErrClosed) {
		return errors.New("the sandbox was closed")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	select {
	case <-sb.done:
	case <-time.After(endTimeout):
		return errors.New("the sandbox's first process closed its control socket")
	}
	return fmt.Errorf("the sandbox's first process (pid %d) died: %v", sb.proc.Pid, sb.state)
}

// Link returns what init opened in the sandbox and the descriptors of it, which
// are the caller's from then on; a second call returns none.
func (sb *Sandbox) Link() (tapdev.Info, []*os.File) {
	files := sb.files
	sb.files = nil
	return sb.info, files
}

// Exec starts the command. An *ExecError says that it could not be started, and
// with what status to exit.
func (sb *Sandbox) Exec() error {
	if err := sendMessage(sb.conn, message{Op: opExec}); err != nil {
		return sb.died(err)
	}
	m, files, err := sb.next()
	closeAll(files)
	if err != nil {
		return err
	}
	switch {
	case m.Op == opStarted:
		pid := m.Number
		if sb.pidNS {
			pid = outerPID(sb.proc.Pid, m.Number)
		}
		sb.mu.Lock()
		sb.commandPID = pid
		sb.mu.Unlock()
		return nil
	case m.Op == opFailed && m.Number != 0:
		return &ExecError{Status: m.Number, Text: m.Text, Err: syscall.Errno(m.Errno)}
	}
	return explainSetup("/", m)
}

// Wait returns the command's exit status, 128+n where signal n ended it, once
// everything in the sandbox has ended. With an error, which means that the
// sandbox ended before its command, the status is 125.
func (sb *Sandbox) Wait() (int, error) {
	if !sb.waited {
		sb.waited = true
		sb.status, sb.waitErr = sb.wait()
	}
	return sb.status, sb.waitErr
}

func (sb *Sandbox) wait() (int, error) {
	m, files, err := sb.next()
	closeAll(files)
	if err != nil {
		return StatusFailed, err
	}
	if m.Op != opExited {
		return StatusFailed, explainSetup("/", m)
	}
	<-sb.done
	return m.Number & 0xff, nil
}

// PID is the process ID of the sandbox's first process.
func (sb *Sandbox) PID() int { return sb.proc.Pid }

// CommandPID is the command's process ID as seen from outside; 0 before Exec.
func (sb *Sandbox) CommandPID() int {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.commandPID
}

// Signal passes on to the command a signal that this process received, unless
// the command received it as well, as a member of the same process group.
func (sb *Sandbox) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v: not one of this system", sig)
	}
	return sendMessage(sb.conn, message{Op: opSignal, Number: int(n)})
}

// Close ends everything in the sandbox and returns when it is gone. Descriptors
// that Link did not hand out are closed.
func (sb *Sandbox) Close() error {
	sb.closeOnce.Do(func() { sb.closeErr = sb.close() })
	return sb.closeErr
}

func (sb *Sandbox) close() error {
	_ = sb.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it may be stopped
	_ = sendMessage(sb.conn, message{Op: opEnd})
	sb.conn.Close() // without that message init takes this for our death
	sb.closeService(net.ErrClosed)
	closeAll(sb.files)
	sb.files = nil
	select {
	case <-sb.done:
	case <-time.After(endTimeout):
		_ = sb.proc.Kill()
		select {
		case <-sb.done:
		case <-time.After(endTimeout):
			return fmt.Errorf("the sandbox's first process (pid %d) does not die: see /proc/%[1]d/stack", sb.proc.Pid)
		}
	}
	if sb.leftover {
		return fmt.Errorf("a process of the sandbox does not die within %v", endTimeout)
	}
	return nil
}
