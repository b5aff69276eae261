package userns

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// openLink opens the link in the current network namespace.
var openLink = tapdev.Open

// Init runs the sandbox's first process, or another one of this package's inside
// namespaces, and never returns, if this process is one; else it does nothing. It must be the first statement of main, and of
// TestMain in packages that start sandboxes.
func Init() {
	if len(os.Args) < 2 {
		return
	}
	if os.Args[0] == activateName {
		runActivate(os.Args[1:])
	}
	run, ok := insideProcesses[os.Args[0]]
	if !ok {
		return
	}
	if t, err := unix.GetsockoptInt(controlFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || t != unix.SOCK_SEQPACKET {
		return // somebody gave us this name for fun
	}
	runtime.LockOSThread() // what the command inherits goes by the thread
	name, _ := unix.BytePtrFromString(os.Args[0])
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0) // for ps; it would be "exe"
	os.Exit(run(os.Args[1:]))
}

// insideProcesses are what this program is, by its argv[0], in namespaces.
var insideProcesses = map[string]func(args []string) int{
	initName:   runInit,
	attachName: runAttach,
	joinName:   runJoin,
}

// initProcess is the sandbox's first process.
type initProcess struct {
	argv     []string
	setup    setup
	conn     *net.UnixConn
	messages chan message     // from sbxnet; closed when it is gone
	signals  chan os.Signal   // that we got ourselves
	exited   chan int         // the command's status
	command  process          // pid is 0 before Exec
	early    []syscall.Signal // forwarded before the command could get them
	filter   *groupFilter
	own      chan os.Signal // the marker
	asked    bool           // for it
	etc      *etcFiles
	removals removals
}

func newInitProcess(argv []string) *initProcess {
	return &initProcess{
		argv:     argv,
		messages: make(chan message, 16),
		signals:  make(chan os.Signal, 16),
		exited:   make(chan int, 1),
		filter:   newGroupFilter(),
		own:      make(chan os.Signal, 1),
		removals: removals{ownMounts: true},
	}
}

func runInit(argv []string) int {
	p := newInitProcess(argv)
	p.catch()
	if err := p.connect(); err != nil {
		return StatusFailed // nobody to tell
	}
	go p.receive()
	if m, ok := <-p.messages; !ok || m.Op != opMapped {
		return StatusFailed
	}
	info, files, err := p.prepare()
	if err != nil {
		p.fail(err)
		return StatusFailed
	}
	if sendMessage(p.conn, message{Op: opReady, Info: info}, files...) != nil {
		p.removals.remove()
		return StatusFailed
	}
	closeAll(files)
	if p.etc != nil {
		go p.etc.keep(p.note)
	}
	return p.run()
}

// connect takes over the descriptors that init was started with.
func (p *initProcess) connect() error {
	var err error
	p.conn, err = connectDown(&p.setup)
	restoreMaxProcs(p.setup.MaxProcs)
	for i := range p.setup.Listeners {
		unix.CloseOnExec(listenersFD + i)
	}
	return err
}

// receive hands on sbxnet's messages until there are no more.
func (p *initProcess) receive() {
	defer close(p.messages)
	for {
		m, files, err := receiveMessage(p.conn)
		if err == nil && m.Op == opServe && len(files) == 1 {
			go p.serve(files[0])
			continue
		}
		closeAll(files)
		if err != nil {
			return
		}
		p.messages <- m
	}
}

// prepare does all that comes before the command.
func (p *initProcess) prepare() (*tapdev.Info, []*os.File, error) {
	s := &p.setup
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("become a subreaper: %w", err)
	}
	// Without a PID namespace, or with something to remove, we must outlive
	// sbxnet for a moment; and for that be running, should the job be stopped.
	death := unix.SIGCONT
	if s.PIDNamespace && len(s.Remove)+len(s.RemoveIfEmpty) == 0 {
		death = unix.SIGKILL
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(death), 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("parent death signal: %w", err)
	}
	p.removals.open(s.Remove, s.RemoveIfEmpty, p.note)
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return nil, nil, fmt.Errorf("set hostname %s: %w", s.Hostname, err)
		}
	}
	var err error
	if p.etc, err = setUpMounts(s, p.note); err != nil {
		return nil, nil, err
	}
	switch {
	case s.Network == NetworkHost:
		return nil, nil, nil
	case s.DetachNetNS != "":
		return p.openDetachedNetwork(s.DetachNetNS)
	}
	return p.openNetwork()
}

// openNetwork sets up the network namespace that this thread is in, and returns
// the link that it has opened there.
func (p *initProcess) openNetwork() (*tapdev.Info, []*os.File, error) {
	s := &p.setup
	if err := bringUpLoopback(); err != nil {
		return nil, nil, err
	}
	tuneNamespace(p.note)
	if s.Network == NetworkNone {
		return nil, nil, nil
	}
	info, files, err := openLink(s.Link)
	if err != nil {
		return nil, nil, err
	}
	if err := configureLink(s, p.note); err != nil {
		closeAll(files)
		return nil, nil, err
	}
	leaveToNamespace(info, files)
	return &info, files, nil
}

// run carries the sandbox from Exec to its end and returns its exit status.
func (p *initProcess) run() int {
	due := time.NewTimer(time.Hour)
	for {
		if at, ok := p.filter.next(); ok && !p.asked {
			due.Reset(time.Until(at))
		}
		select {
		case m, ok := <-p.messages:
			if !ok { // sbxnet is gone
				p.end()
				p.removals.remove()
				return StatusFailed
			}
			if !p.obey(m) {
				p.end()
				return StatusFailed
			}
		case s := <-p.signals:
			p.received(s)
		case <-due.C:
			p.asked = askForOwn()
			if !p.asked {
				p.deliverDue()
			}
		case <-p.own:
			p.asked = false
			p.deliverDue()
		case status := <-p.exited:
			p.command.pid = 0
			p.end()
			if sendMessage(p.conn, message{Op: opExited, Number: status}) != nil {
				p.removals.remove() // sbxnet died at the same time
			}
			return status
		}
	}
}

// received notes a signal of our own while there is a command.
func (p *initProcess) received(s os.Signal) {
	if n, ok := s.(syscall.Signal); ok && n != groupMarker && p.command.pid != 0 {
		p.filter.received(n, time.Now())
	}
}

// deliverDue passes on what was sent to sbxnet alone.
func (p *initProcess) deliverDue() {
	for len(p.signals) > 0 {
		p.received(<-p.signals)
	}
	for _, s := range p.filter.due(time.Now()) {
		p.command.signal(s)
	}
}

// obey does what m says; false ends the sandbox.
func (p *initProcess) obey(m message) bool {
	switch m.Op {
	case opEnd:
		return false
	case opRemove:
		// On the thread of prepare: we are to outlive sbxnet from now on.
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0)
		p.removals.open(m.Paths, nil, p.note)
	case opSignal:
		if s := syscall.Signal(m.Number); p.command.pid == 0 {
			p.early = append(p.early, s)
		} else {
			p.filter.forward(s, time.Now())
		}
	case opExec:
		if p.command.pid != 0 {
			return true
		}
		command, err := startCommand(p.argv, &p.setup)
		if err != nil {
			p.fail(err)
			return false
		}
		p.command = command
		for _, s := range p.early {
			command.signal(s)
		}
		_ = sendMessage(p.conn, message{Op: opStarted, Number: command.pid}) // that sbxnet is gone is seen soon
		go p.reap(command.pid)
	}
	return true
}

// reap reaps the command and the orphans that became our children, until the
// command has ended. end does the rest.
func (p *initProcess) reap(command int) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			p.exited <- StatusFailed // somebody else reaped it: cannot be
			return
		}
		if pid == command {
			p.exited <- exitStatus(ws)
			return
		}
	}
}

// end kills everything in the sandbox. With a PID namespace our exit does it,
// and is complete only when all are gone (pid_namespaces(7)).
func (p *initProcess) end() {
	signal.Ignore(forwarded...)
	if p.setup.PIDNamespace {
		if p.command.pid != 0 {
			p.command.signal(syscall.SIGKILL) // if we have joined it, it goes on
		}
		if os.Getpid() == 1 {
			_ = unix.Kill(-1, unix.SIGKILL) // lest they disturb what we do until then
		}
		return
	}
	const forever = 1 << 40 * time.Nanosecond // 18 minutes
	killChildren(func(int) bool { return true }, time.Now().Add(forever))
}

// note sends a line for the log.
func (p *initProcess) note(format string, args ...any) {
	_ = sendMessage(p.conn, message{Op: opNote, Text: fmt.Sprintf(format, args...)})
}

// fail tells sbxnet why there will be no sandbox, or no command.
func (p *initProcess) fail(err error) { sendFailure(p.conn, err) }

// appArmorLabel is the AppArmor profile of a process, empty without AppArmor.
func appArmorLabel(proc string) string {
	b, err := os.ReadFile(proc + "/attr/current")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00\n")
}
