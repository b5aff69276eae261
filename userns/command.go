package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit statuses that are not the command's, as env(1) and podman have them.
const (
	// StatusFailed is a failure of sbxnet itself.
	StatusFailed = 125
	// StatusNotExecutable is a command that is there and cannot be executed.
	StatusNotExecutable = 126
	// StatusNotFound is a command that is not there.
	StatusNotFound = 127
)

// ExecError is a command that could not be started.
type ExecError struct {
	// Status to exit with: StatusNotFound or StatusNotExecutable.
	Status int
	// Text names the command, the reason, and where known what to do.
	Text string
	// Err is the kernel's answer, or 0.
	Err syscall.Errno
}

func (e *ExecError) Error() string { return e.Text }

// Unwrap returns the kernel's answer.
func (e *ExecError) Unwrap() error {
	if e.Err == 0 {
		return nil
	}
	return e.Err
}

// process is a child that signals are sent to.
type process struct {
	pid int
	// fd is its pidfd, by which a signal cannot reach a later process of the
	// same ID; -1 before Linux 5.2.
	fd int
}

func (p process) signal(s syscall.Signal) {
	if p.fd >= 0 {
		_ = unix.PidfdSendSignal(p.fd, s, nil, 0)
		return
	}
	_ = unix.Kill(p.pid, s)
}

// startCommand starts argv in the sandbox as init's child. It is called from init's locked thread: the command's parent
// death signal and its capabilities go by that thread.
func startCommand(argv []string, s *setup) (process, error) {
	path, err := findCommand(argv[0])
	if err != nil {
		return process{}, err
	}
	if err := shedCapabilities(s.NetRaw); err != nil {
		return process{}, err
	}
	closeFilesOnExec()
	p := process{fd: -1}
	program, args, files := path, argv, []uintptr{0, 1, 2}
	if s.Listeners > 0 {
		program, args = "/proc/self/exe", append([]string{activateName, path}, argv...)
	}
	for i := range s.Listeners {
		files = append(files, uintptr(listenersFD+i))
	}
	p.pid, err = syscall.ForkExec(program, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: files,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &p.fd},
	})
	if err != nil {
		return process{}, explainExec(argv[0], path, err)
	}
	return p, nil
}

// findCommand looks name up in PATH as a shell does: a directory in PATH that
// is relative counts.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		return path, nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", &ExecError{StatusNotFound, fmt.Sprintf("%s: command not found in PATH", name), unix.ENOENT}
	}
	return "", explainExec(name, name, err)
}

// missingCommand is an error if there is no such command, as far as that can be
// told before there is a sandbox: with the caller's own PATH, and only that it
// does not exist. What may be executed can be another matter inside.
func (c *Config) missingCommand() error {
	if variable(c.Env, "PATH") != os.Getenv("PATH") {
		return nil
	}
	_, err := findCommand(c.Command[0])
	var missing *ExecError
	if errors.As(err, &missing) && missing.Status == StatusNotFound {
		return missing
	}
	return nil
}

// explainExec is the error for a command that was found and did not start.
func explainExec(name, path string, err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	switch {
	case errors.Is(err, fs.ErrNotExist) && exists(path):
		return &ExecError{StatusNotFound, fmt.Sprintf("%s: its interpreter or loader does not exist: see the first line of %s", name, path), errno}
	case errors.Is(err, fs.ErrNotExist), errno == unix.ENOTDIR:
		return &ExecError{StatusNotFound, fmt.Sprintf("%s: no such file", name), errno}
	case errno == unix.EISDIR:
		return &ExecError{StatusNotExecutable, fmt.Sprintf("%s: is a directory", name), errno}
	case errors.Is(err, fs.ErrPermission) && !exists(path):
		return &ExecError{StatusNotExecutable, fmt.Sprintf("%s: permission denied on the way to it", name), errno}
	case errors.Is(err, fs.ErrPermission):
		return &ExecError{StatusNotExecutable, fmt.Sprintf("%s: not executable: chmod +x %s", name, path), errno}
	case errno == unix.ENOEXEC:
		return &ExecError{StatusNotExecutable, fmt.Sprintf("%s: neither a program of this machine nor a script that names its interpreter: try sh %s", name, path), errno}
	}
	return &ExecError{StatusNotExecutable, fmt.Sprintf("%s: %v", name, err), errno}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// shedCapabilities empties this thread's inheritable set, and with it the
// ambient one, which served to get here: the command, as ID 0, gets its
// capabilities from the bounding set, and a process that gives up ID 0 then
// loses them as it expects. Without netRaw CAP_NET_RAW leaves the bounding set.
func shedCapabilities(netRaw bool) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data {
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("empty the inheritable capabilities: %w", err)
	}
	if netRaw {
		return nil
	}
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_RAW, 0, 0, 0); err != nil {
		return fmt.Errorf("take CAP_NET_RAW away: %w", err)
	}
	return nil
}

// closeFilesOnExec leaves the command nothing but stdin, stdout and stderr:
// neither our descriptors nor those that our caller left open, of which a
// socket would be a way around the sandbox's network.
func closeFilesOnExec() {
	if unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	names, _ := os.ReadDir("/proc/self/fd") // Linux before 5.11
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// exitStatus is what a shell makes of ws.
func exitStatus(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// outerPID is the process ID, in our PID namespace, of the child of init that
// is inner in its own; 0 if it has ended.
func outerPID(init, inner int) int {
	for _, pid := range childrenOf(init) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			ids, ok := strings.CutPrefix(line, "NSpid:")
			if !ok {
				continue
			}
			if f := strings.Fields(ids); len(f) > 1 && f[len(f)-1] == strconv.Itoa(inner) {
				return pid
			}
		}
	}
	return 0
}
