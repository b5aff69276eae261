package userns

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Join runs a command in the namespaces of a running sandbox, whose first
// process is pid, and returns its exit status as Sandbox.Wait does. It has our
// standard input, output and error, what the sandbox's own command has of
// capabilities, and gets the signals that we receive. An empty argv is $SHELL of
// env, else /bin/sh; a nil env is ours; an empty dir is ours where the sandbox has
// it, else /.
//
// In a sandbox with a PID namespace, what the command leaves behind lives as
// long as the sandbox; in one without, which could not end it, it ends with the
// command. The command ends with the sandbox and with this process.
//
// The error is an *ExecError if the command could not be started.
func Join(pid int, argv, env []string, dir string) (status int, err error) {
	if env == nil {
		env = os.Environ()
	}
	if len(argv) == 0 {
		argv = []string{defaultShell(env)}
	}
	r, err := openRunning(pid)
	if err != nil {
		return StatusFailed, err
	}
	defer r.close()
	sb := &Sandbox{log: slog.New(slog.DiscardHandler), pidNS: r.pidNS, done: make(chan struct{})}
	if err := r.enter(sb, argv, env, dir); err != nil {
		return StatusFailed, r.explain(err)
	}
	defer sb.Close()
	defer sb.ForwardSignals()()
	defer r.endWith(sb)()
	if err := sb.Exec(); err != nil {
		var e *ExecError
		if errors.As(err, &e) {
			return e.Status, err
		}
		return StatusFailed, r.explain(err)
	}
	if status, err = sb.Wait(); err != nil {
		return status, r.explain(err)
	}
	return status, nil
}

// joinName is argv[0] of the process that starts the command, and what ps shows.
const joinName = "sbxnet-join"

// running is a sandbox to join.
type running struct {
	pid        int
	pidfd      *os.File // nil before Linux 5.3
	namespaces []*os.File
	user       bool // the first of namespaces is a user namespace
	pidNS      bool
}

// joinedKinds are the namespaces to enter, in the order in which it goes: the user
// namespace first, for the capabilities over the others.
var joinedKinds = []struct {
	name string
	kind int
}{
	{"user", unix.CLONE_NEWUSER}, {"cgroup", unix.CLONE_NEWCGROUP}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
	{"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
}

// openRunning opens the namespaces of process pid that are not ours.
func openRunning(pid int) (*running, error) {
	r := &running{pid: pid}
	if pid <= 0 {
		return nil, fmt.Errorf("join: process ID %d: want one from 1 on", pid)
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		r.pidfd = os.NewFile(uintptr(fd), "sandbox")
	}
	for _, k := range joinedKinds {
		path := "/proc/" + strconv.Itoa(pid) + "/ns/" + k.name
		f, err := openNamespace(path, k.kind)
		if k.name == "cgroup" && errors.Is(err, unix.ENOENT) && len(r.namespaces) > 0 {
			continue // Linux before 4.6
		}
		if err != nil {
			r.close()
			return nil, r.explain(err)
		}
		id, err := fileNamespace(f)
		own, errOwn := ownNamespace(k.name)
		if err = errors.Join(err, errOwn); err != nil || id == own {
			f.Close()
			if err != nil {
				r.close()
				return nil, r.explain(err)
			}
			continue
		}
		r.namespaces = append(r.namespaces, f)
		r.user = r.user || k.name == "user"
		r.pidNS = r.pidNS || k.name == "pid"
	}
	if r.ended() {
		r.close()
		return nil, r.explain(unix.ESRCH)
	}
	if !r.user {
		r.close()
		return nil, fmt.Errorf("join process %d: it is in no sandbox: see sbxnet ls", pid)
	}
	return r, nil
}

func (r *running) close() {
	closeAll(r.namespaces)
	if r.pidfd != nil {
		r.pidfd.Close()
	}
}

// ended reports whether the sandbox's first process is gone.
func (r *running) ended() bool {
	if r.pidfd == nil {
		return !exists("/proc/" + strconv.Itoa(r.pid) + "/ns/user")
	}
	fds := []unix.PollFd{{Fd: int32(r.pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (r *running) explain(err error) error {
	what := fmt.Sprintf("join the sandbox of process %d: ", r.pid)
	switch {
	case r.pidfd != nil && r.ended() && len(r.namespaces) > 0:
		return errors.New(what + "the sandbox has ended")
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT) && !exists("/proc/"+strconv.Itoa(r.pid)):
		return fmt.Errorf(what+"%w: it has ended; see sbxnet ls", unix.ESRCH)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf(what+"%w: only who started it, and root, may", err)
	}
	return fmt.Errorf(what+"%w", err)
}

// joinSetup is what the process that starts the command is told.
type joinSetup struct {
	setup
	Dir         string
	DirWasAsked bool
}

// enter starts the process that will start the command, and waits until it is
// ready.
func (r *running) enter(sb *Sandbox, argv, env []string, dir string) error {
	s := &joinSetup{setup: setup{PIDNamespace: r.pidNS, NetRaw: hasNetRaw(r.pid)}, Dir: dir, DirWasAsked: dir != ""}
	if dir == "" {
		s.Dir, _ = os.Getwd()
	}
	e := &entry{
		argv: append([]string{joinName}, argv...), env: env, files: standardFiles(), asRoot: true,
		namespaces: r.namespaces, inPIDNamespace: r.pidNS, groups: r.groups(),
	}
	if limit, ok := startedWithFiles(); ok {
		e.openFiles = &limit
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		holdSubreaper()
		defer releaseSubreaper()
		var err error
		if sb.proc, sb.conn, err = e.startControlled(s); err != nil {
			started <- err
			return
		}
		joiners.add(sb.proc.Pid)
		defer joiners.remove(sb.proc.Pid)
		started <- nil
		r.reap(sb)
	}()
	if err := <-started; err != nil {
		return err
	}
	if err := sb.awaitReady(); err != nil {
		sb.Close()
		return err
	}
	return nil
}

// awaitReady waits until the process has done all that comes before the command.
func (sb *Sandbox) awaitReady() error {
	_ = sb.conn.SetReadDeadline(time.Now().Add(startTimeout))
	defer sb.conn.SetReadDeadline(time.Time{})
	m, files, err := sb.next()
	closeAll(files)
	if err == nil && m.Op != opReady {
		err = explainSetup("/", m)
	}
	return err
}

// standardFiles are stdin, stdout and stderr, or /dev/null for one that is
// closed.
func standardFiles() []*os.File {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i, f := range files {
		if _, err := f.Stat(); err == nil {
			continue
		}
		if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
			files[i] = null // closed with the last reference to it
		}
	}
	return files
}

// groups are the supplementary groups to change to. Only who becomes another
// user by joining must, lest root's go with it: nil is no change.
func (r *running) groups() []uint32 {
	var st unix.Stat_t
	proc := "/proc/" + strconv.Itoa(r.pid)
	if unix.Stat(proc, &st) != nil || int(st.Uid) == os.Geteuid() {
		return nil
	}
	groups, err := groupsOf(r.pid)
	if err != nil {
		return []uint32{} // none at all
	}
	return groups
}

// hasNetRaw reports whether the sandbox leaves CAP_NET_RAW to its commands: its
// first process drops it from the bounding set of the thread that starts them.
func hasNetRaw(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	tasks, _ := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/status")
		for line := range strings.Lines(string(b)) {
			hex, ok := strings.CutPrefix(line, "CapBnd:")
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if ok && (err != nil || set&(1<<unix.CAP_NET_RAW) == 0) {
				return false
			}
		}
	}
	return len(tasks) > 0
}

// joiners are the processes by which this one has joined sandboxes, so that
// none is taken for an orphan of another.
var joiners pidSet

type pidSet struct {
	sync.Mutex
	pids map[int]bool
}

func (s *pidSet) add(pid int) {
	s.Lock()
	defer s.Unlock()
	if s.pids == nil {
		s.pids = map[int]bool{}
	}
	s.pids[pid] = true
}

func (s *pidSet) remove(pid int) {
	s.Lock()
	defer s.Unlock()
	delete(s.pids, pid)
}

func (s *pidSet) has(pid int) bool {
	s.Lock()
	defer s.Unlock()
	return s.pids[pid]
}

// reap waits for the process, and ends what it left behind: that is ours only
// if it was killed.
func (r *running) reap(sb *Sandbox) {
	defer close(sb.done)
	sb.state, _ = sb.proc.Wait()
	if sb.state == nil || sb.state.Exited() {
		return
	}
	id, err := fileNamespace(r.namespaces[0])
	if err != nil {
		return
	}
	orphan := func(pid int) bool { return pid != r.pid && !joiners.has(pid) && withinUserNamespace(pid, id) }
	sb.leftover = !killChildren(orphan, time.Now().Add(endTimeout))
}

// endWith ends the command when the sandbox has ended, until stop is called.
func (r *running) endWith(sb *Sandbox) (stop func()) {
	if r.pidfd == nil {
		return func() {} // in a PID namespace the kernel does
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return func() {}
	}
	quit, stopped := os.NewFile(uintptr(fd), "eventfd"), make(chan struct{})
	go func() {
		defer close(stopped)
		fds := []unix.PollFd{{Fd: int32(quit.Fd()), Events: unix.POLLIN}, {Fd: int32(r.pidfd.Fd()), Events: unix.POLLIN}}
		for {
			_, err := unix.Poll(fds, -1)
			if fds[0].Revents != 0 || err != nil && err != unix.EINTR {
				return
			}
			if fds[1].Revents != 0 {
				_ = sb.conn.CloseWrite() // it takes this for our death
				return
			}
		}
	}()
	return func() {
		one := [8]byte{0: 1, 7: 1} // not zero in either byte order
		_, _ = quit.Write(one[:])
		<-stopped
		quit.Close()
	}
}

// runJoin is the process in the namespaces that starts the command.
func runJoin(argv []string) int {
	p := newInitProcess(argv)
	p.catch()
	var s joinSetup
	var err error
	if p.conn, err = connectDown(&s); err != nil {
		return StatusFailed // nobody to tell
	}
	p.setup = s.setup
	go p.receive()
	if err := p.prepareJoin(&s); err != nil {
		p.fail(err)
		return StatusFailed
	}
	if sendMessage(p.conn, message{Op: opReady}) != nil {
		return StatusFailed
	}
	return p.run()
}

// prepareJoin does what comes before the command.
func (p *initProcess) prepareJoin(s *joinSetup) error {
	// Orphans of a PID namespace go to its first process, for good.
	if !s.PIDNamespace {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become a subreaper: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0); err != nil {
		return fmt.Errorf("parent death signal: %w", err)
	}
	if err := os.Chdir(s.Dir); err != nil {
		if s.DirWasAsked {
			return fmt.Errorf("working directory: %w", err)
		}
		return os.Chdir("/")
	}
	return nil
}
