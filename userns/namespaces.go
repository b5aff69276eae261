package userns

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// startInit starts the first process of the sandbox, unmapped and waiting for
// its setup, and returns it with sbxnet's end of the control socket.
//
// The command's arguments and environment are init's own; see setup.
func startInit(cfg *Config, s *setup) (*os.Process, *net.UnixConn, error) {
	file, err := setupFile(s)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	caps, err := allCapabilities()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	attr := &os.ProcAttr{
		Dir:   cfg.Dir,
		Env:   oneProcessor(cfg.Env),
		Files: append([]*os.File{os.Stdin, os.Stdout, os.Stderr, controlFD: theirs, setupFD: file}, cfg.Listeners...),
		Sys:   &syscall.SysProcAttr{Cloneflags: cloneFlags(cfg), AmbientCaps: caps},
	}
	var p *os.Process
	err = keepNonblocking(cfg.Listeners, func() (err error) {
		p, err = os.StartProcess("/proc/self/exe", append([]string{initName}, cfg.Command...), attr)
		return err
	})
	if err != nil {
		conn.Close()
		return nil, nil, explainClone("/", err)
	}
	return p, conn, nil
}

func cloneFlags(cfg *Config) uintptr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	if cfg.Network != NetworkHost && cfg.DetachNetNS == "" {
		flags |= unix.CLONE_NEWNET
	}
	if cfg.PIDNamespace {
		flags |= unix.CLONE_NEWPID
	}
	if cfg.UTSNamespace || cfg.Hostname != "" {
		flags |= unix.CLONE_NEWUTS
	}
	if cfg.IPCNamespace {
		flags |= unix.CLONE_NEWIPC
	}
	if cfg.CgroupNamespace {
		flags |= unix.CLONE_NEWCGROUP
	}
	return flags
}

// allCapabilities lists what the kernel knows, to raise as ambient
// capabilities: without them a process whose user ID is not mapped loses all of
// its capabilities at exec.
func allCapabilities() ([]uintptr, error) {
	const path = "/proc/sys/kernel/cap_last_cap"
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	last, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 6)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	caps := make([]uintptr, last+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps, nil
}

// namespaceID tells a namespace from others while a descriptor keeps it alive.
type namespaceID struct{ dev, ino uint64 }

func namespaceOf(fd int) (namespaceID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return namespaceID{}, err
	}
	return namespaceID{uint64(st.Dev), st.Ino}, nil
}

// withinUserNamespace reports whether the user namespace of pid is ns or was
// made inside it.
func withinUserNamespace(pid int, ns namespaceID) bool {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		id, errStat := namespaceOf(fd)
		if errStat == nil && id == ns {
			unix.Close(fd)
			return true
		}
		child := fd
		// EPERM ends the way up: the parent is above ours.
		fd, err = unix.IoctlRetInt(child, unix.NS_GET_PARENT)
		unix.Close(child)
	}
	return false
}
