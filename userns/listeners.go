package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// activateName is argv[0] of the process that becomes the command when there
// are Listeners: LISTEN_PID must name it, and a process ID is known only after
// fork.
const activateName = "sbxnet-activate"

// firstListener is where the protocol of sd_listen_fds(3) begins, and
// maxListeners far beyond what anybody passes.
const (
	firstListener = 3
	maxListeners  = 1024
)

// InheritedListeners returns the sockets that a service manager has passed to
// this process by LISTEN_FDS, if LISTEN_PID says that they are its own
// (sd_listen_fds(3)). They are the caller's, and no child inherits them by
// accident any more. It is to be called once, before files are opened.
func InheritedListeners() ([]*os.File, error) {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || n == "" || n == "0" {
		return nil, nil
	}
	count, err := strconv.ParseUint(n, 10, 16)
	if err != nil || count > maxListeners {
		return nil, fmt.Errorf("LISTEN_FDS=%q: not a number from 0 to %d", n, maxListeners)
	}
	for fd := firstListener; fd < firstListener+int(count); fd++ {
		// What this process has opened itself is close-on-exec, and what it was
		// started with cannot be.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("LISTEN_FDS=%s: descriptor %d is not open", n, fd)
		}
	}
	files := make([]*os.File, count)
	for i := range files {
		unix.CloseOnExec(firstListener + i)
		files[i] = os.NewFile(uintptr(firstListener+i), "LISTEN_FD_"+strconv.Itoa(firstListener+i))
	}
	return files, nil
}

// keepNonblocking calls f, which may make the files blocking for the sake of
// a child, and undoes that: a listening socket is shared with whoever passed it.
func keepNonblocking(files []*os.File, f func() error) error {
	var restore []int
	for _, file := range files {
		raw, err := file.SyscallConn()
		if err != nil {
			return err
		}
		_ = raw.Control(func(fd uintptr) {
			if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
				restore = append(restore, int(fd))
			}
		})
	}
	err := f()
	for _, fd := range restore {
		_ = unix.SetNonblock(fd, true)
	}
	return err
}

// activate is the process that activateName names: argv is the path of the
// command and its arguments.
func activate(path string, argv []string) error {
	// Linux names a process for good by the inode of its pidfd from 6.9 on;
	// systemd sets the variable, and its library ignores the sockets if it is wrong.
	const byInode = "LISTEN_PIDFDID"
	if _, ok := os.LookupEnv(byInode); ok {
		os.Unsetenv(byInode)
		if id, err := pidfdInode(); err == nil {
			os.Setenv(byInode, strconv.FormatUint(id, 10))
		}
	}
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return explainExec(argv[0], path, syscall.Exec(path, argv, os.Environ()))
}

func pidfdInode() (uint64, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	id, err := namespaceOf(fd)
	return id.ino, err
}

// runActivate never returns.
func runActivate(args []string) {
	if len(args) < 2 {
		os.Exit(StatusFailed)
	}
	err := activate(args[0], args[1:])
	fmt.Fprintln(os.Stderr, "sbxnet: "+err.Error())
	var exec *ExecError
	if errors.As(err, &exec) {
		os.Exit(exec.Status)
	}
	os.Exit(StatusNotExecutable)
}
