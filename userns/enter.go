package userns

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// # Entering namespaces that are there already
//
// The kernel lets no process with threads into another user namespace
// (userns_install, kernel/user_namespace.c), and a Go program has threads
// before main runs. What remains is the moment between fork and exec, when the
// child has the one thread that called fork. Package syscall knows how to make
// namespaces there, but not how to enter one, so cloneInto is a fork of our own.
//
// The child is a copy of the whole process, runtime included, of which it may
// use next to nothing:
//
//   - Locks. Threads that held the allocator's, the scheduler's or the
//     collector's are gone and their locks stay taken. So cloneInto allocates
//     nothing after the clone, starts no goroutine, writes no pointer (a
//     write barrier could be on) and calls only syscall.RawSyscall and
//     RawSyscall6, which are a register shuffle around the instruction.
//   - The stack. A function's prologue may find that the stack is to grow, or
//     that the goroutine is to be preempted, and enters the scheduler. Raw
//     system calls are nosplit, so no prologue runs in the child; cloneInto's own
//     ran in the parent. Bounds checks are avoided by ranging.
//   - Signals. The runtime's handlers use the threads that are not there. All
//     signals are blocked from before the clone on; the child sets handled ones
//     back to the default, and only then unblocks what was unblocked before,
//     since the mask, unlike handlers, survives exec. What is ignored stays so.
//   - Memory. The clone is without CLONE_VM: what the child writes is its own, and
//     returning from a function could do no harm. That costs a copy of the page
//     tables, some hundred microseconds.
//   - Descriptors. syscall.ForkLock is held, so that none that another thread is
//     about to mark close-on-exec slips through; close_range marks the rest.
//
// The race detector and checkptr would add calls into the runtime and are off
// for that function; a cgo runtime's pthread_atfork handlers do not run, and no
// libc is called until exec.

// entry is a process that is to start in namespaces that are there already.
type entry struct {
	// argv and env of this same program.
	argv, env []string
	// files become its descriptors from 0 on; it gets no others.
	files []*os.File
	// namespaces to enter, in this order: the user namespace first, because
	// that gives what it takes to enter those that belong to it.
	namespaces []*os.File
	// inPIDNamespace: one of namespaces is a PID namespace. Who enters that does
	// not get there, but its children do; and may start no more threads. So the
	// child has a child of its own, which is to be our child: it does not wait.
	inPIDNamespace bool
	// asRoot makes it ID 0 of the user namespace.
	asRoot bool
	// groups are the supplementary groups to change to before; nil: no change.
	groups []uint32
	// openFiles is the limit of open files it is to have; nil: no change.
	openFiles *unix.Rlimit
}

// stage is what the child was doing when a system call failed.
type stage uint32

const (
	stageGroups stage = iota
	stageIDs
	stageDescriptors
	stageFork
	stageExec
	stageForked    // no failure: the errno is the process ID
	stageNamespace // and above: the index in namespaces
)

// entryError is a process that did not get to where it was to be.
type entryError struct {
	stage stage
	errno syscall.Errno
}

func (e *entryError) Error() string {
	what := "enter the namespace"
	switch e.stage {
	case stageGroups:
		what = "change supplementary groups"
	case stageIDs:
		what = "become root of the user namespace"
	case stageDescriptors:
		what = "hand on descriptors"
	case stageFork:
		what = "start a process in the PID namespace"
	case stageExec:
		what = "execute this program again"
	}
	return what + ": " + e.errno.Error()
}

func (e *entryError) Unwrap() error { return e.errno }

// cloneArgs is an entry in the form that the child can use.
type cloneArgs struct {
	argv, env  **byte
	exe        uintptr
	report     uintptr // the pipe that says what failed
	files      []uintptr
	namespaces []uintptr
	groups     *uint32
	groupCount uintptr
	openFiles  *unix.Rlimit // may be nil
	setGroups  bool
	asRoot     bool
	again      bool
}

// firstSpare is where descriptors for the child lie, out of the way of those
// that it will have.
const firstSpare = 16

// start starts the process. Its parent death signal, should it set one, goes by
// the calling thread. An *entryError says that it could not get there.
func (e *entry) start() (*os.Process, error) {
	spare := &spares{}
	defer spare.close()
	args, err := e.prepare(spare)
	if err != nil {
		return nil, err
	}
	// Its own descriptor is 16 or above too: it is made like the others.
	report, err := spare.pipe(args)
	if err != nil {
		return nil, err
	}
	defer report.Close()

	runtime.LockOSThread() // the mask that is restored must be this thread's
	syscall.ForkLock.Lock()
	pid, errno := cloneInto(args)
	syscall.ForkLock.Unlock()
	runtime.UnlockOSThread()
	runtime.KeepAlive(e)
	if errno != 0 {
		return nil, fmt.Errorf("start a process: %w", errno)
	}
	spare.close() // the pipe's other end among them
	forked, err := readReport(report)
	if forked != 0 || err != nil {
		_, _ = unix.Wait4(int(pid), nil, unix.WALL, nil)
		pid = uintptr(forked)
	}
	if err != nil {
		if forked != 0 {
			_, _ = unix.Wait4(forked, nil, unix.WALL, nil)
		}
		return nil, err
	}
	p, err := os.FindProcess(int(pid))
	if err != nil {
		return nil, fmt.Errorf("start a process: %w", err)
	}
	return p, nil
}

// startControlled starts the process with a control socket and a setup, as init
// has them, after the three files that e has.
func (e *entry) startControlled(setup any) (*os.Process, *net.UnixConn, error) {
	file, err := setupFile(setup)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	e.files = []*os.File{e.files[0], e.files[1], e.files[2], controlFD: theirs, setupFD: file}
	p, err := e.start()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return p, conn, nil
}

// readReport reads what the child says until it has executed, or failed. It
// returns the process ID of the child's child, if it has one.
func readReport(r *os.File) (forked int, err error) {
	for {
		var b [8]byte
		n, errRead := r.Read(b[:])
		if n == 0 {
			return forked, err
		}
		if n != len(b) {
			return forked, fmt.Errorf("start a process: %d bytes of report: %w", n, errRead)
		}
		at, number := stage(binary.NativeEndian.Uint32(b[:])), binary.NativeEndian.Uint32(b[4:])
		if at == stageForked {
			forked = int(number)
		} else {
			err = &entryError{at, syscall.Errno(number)}
		}
	}
}

// prepare does all that takes memory.
func (e *entry) prepare(spare *spares) (*cloneArgs, error) {
	argv, err := syscall.SlicePtrFromStrings(e.argv)
	if err != nil {
		return nil, fmt.Errorf("arguments of a process: %w", err)
	}
	env, err := syscall.SlicePtrFromStrings(e.env)
	if err != nil {
		return nil, fmt.Errorf("environment of a process: %w", err)
	}
	args := &cloneArgs{argv: &argv[0], env: &env[0], asRoot: e.asRoot, again: e.inPIDNamespace, openFiles: e.openFiles}
	if e.groups != nil {
		args.setGroups, args.groupCount = true, uintptr(len(e.groups))
		args.groups = &append(e.groups[:len(e.groups):len(e.groups)], 0)[0]
	}
	if args.exe, err = spare.open("/proc/self/exe"); err != nil {
		return nil, err
	}
	for _, f := range e.files {
		fd, err := spare.copy(f)
		if err != nil {
			return nil, err
		}
		args.files = append(args.files, fd)
	}
	for _, f := range e.namespaces {
		fd, err := spare.copy(f)
		if err != nil {
			return nil, err
		}
		args.namespaces = append(args.namespaces, fd)
	}
	return args, nil
}

// spares are the descriptors that only the child needs.
type spares []int

func (s *spares) close() {
	for _, fd := range *s {
		unix.Close(fd)
	}
	*s = nil
}

// move replaces fd by a copy out of the way.
func (s *spares) move(fd int) (uintptr, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstSpare)
	unix.Close(fd)
	if err != nil {
		return 0, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	*s = append(*s, n)
	return uintptr(n), nil
}

func (s *spares) open(path string) (uintptr, error) {
	fd, err := openPath(path, 0)
	if err != nil {
		return 0, err
	}
	return s.move(fd)
}

func (s *spares) copy(f *os.File) (uintptr, error) {
	raw, err := f.SyscallConn() // not f.Fd(): that would make it blocking
	if err != nil {
		return 0, err
	}
	n := -1
	if e := raw.Control(func(fd uintptr) { n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, firstSpare) }); e != nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	*s = append(*s, n)
	return uintptr(n), nil
}

// pipe returns the end to read the report from; the other one is the child's.
func (s *spares) pipe(args *cloneArgs) (*os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	w, err := s.move(p[1])
	if err != nil {
		unix.Close(p[0])
		return nil, err
	}
	args.report = w
	return os.NewFile(uintptr(p[0]), "report"), nil
}

// cloneInto makes the child; see the top of this file for what it may do. It
// returns in the parent only.
//
//go:norace
//go:nocheckptr
//go:noinline
func cloneInto(a *cloneArgs) (pid uintptr, errno syscall.Errno) {
	// All that the child uses is here before there is one.
	var (
		all, mask  = ^uint64(0), uint64(0)
		action     [8]uintptr // struct sigaction, in any of its layouts
		zero       [8]uintptr
		capsHeader = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
		caps       [6]uint32 // effective, permitted, inheritable; twice
		failure    [2]uint32
		at         stage
		empty      [1]byte
		target     uintptr
	)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&mask)), 8, 0, 0)
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
		return pid, errno
	}

	// The child.
	at = stageGroups
	if a.setGroups {
		_, _, errno = syscall.RawSyscall(syscall.SYS_SETGROUPS, a.groupCount, uintptr(unsafe.Pointer(a.groups)), 0)
		if errno != 0 {
			goto failed
		}
	}
	at = stageNamespace
	for _, fd := range a.namespaces {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, fd, 0, 0)
		if errno != 0 {
			goto failed
		}
		at++
	}
	at = stageIDs
	if a.asRoot {
		_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESGID, 0, 0, 0)
		if errno != 0 {
			goto failed
		}
		_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESUID, 0, 0, 0)
		if errno != 0 {
			goto failed
		}
	}
	// Whose ID is not 0 inside loses every capability at exec, unless it is an
	// ambient one. What cannot be raised was not there.
	syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&capsHeader)), uintptr(unsafe.Pointer(&caps)), 0)
	caps[2], caps[5] = caps[1], caps[4]
	syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capsHeader)), uintptr(unsafe.Pointer(&caps)), 0)
	for c := uintptr(0); c < 64; c++ {
		syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0, 0)
	}
	if a.again {
		at = stageFork
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_PARENT, 0, 0, 0, 0, 0)
		if errno != 0 {
			goto failed
		}
		if pid != 0 {
			at, errno = stageForked, syscall.Errno(pid)
			goto failed
		}
	}
	at = stageDescriptors
	target = 0
	for _, fd := range a.files {
		_, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, fd, target, 0)
		if errno != 0 {
			goto failed
		}
		target++
	}
	// Before Linux 5.11 there is none; what our caller left open is then open
	// in this process too, and closed for the command by closeFilesOnExec.
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, target, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if a.openFiles != nil {
		syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(a.openFiles)), 0, 0, 0)
	}
	for s := uintptr(1); s <= 64; s++ {
		_, _, errno = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, s, 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
		if errno == 0 && action[0] > sigIgnore {
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&zero)), 0, 8, 0, 0)
		}
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	at = stageExec
	_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, a.exe, uintptr(unsafe.Pointer(&empty)),
		uintptr(unsafe.Pointer(a.argv)), uintptr(unsafe.Pointer(a.env)), unix.AT_EMPTY_PATH, 0)
failed: // or forked
	failure[0], failure[1] = uint32(at), uint32(errno)
	syscall.RawSyscall(syscall.SYS_WRITE, a.report, uintptr(unsafe.Pointer(&failure)), 8)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, StatusFailed, 0, 0)
	}
}

// sigIgnore is SIG_IGN; below it is SIG_DFL, above it are handlers.
const sigIgnore = 1
