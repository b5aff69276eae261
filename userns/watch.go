package userns

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher waits for the end of a network namespace. The kernel does not tell
// that end, and we, being in it, put it off. So what it was named by is watched:
// a process by its pidfd; a path by inotify on its directory and by the list of
// mounts, and, since neither tells all (a directory further up is renamed, the
// path leads through another process's root), by a look every now and then.
type watcher struct {
	// done is closed when the namespace has gone.
	done chan struct{}

	path    string
	id      namespaceID
	process bool // its end is the namespace's
	sources []source
	// timeout between looks in milliseconds; -1 needs none.
	timeout int

	stop      *os.File // an eventfd
	stopped   chan struct{}
	closeOnce sync.Once
}

// source is a descriptor that tells of changes.
type source struct {
	file   *os.File
	events int16
	// once: it has no more to tell when it has told something.
	once bool
}

// lookEvery is the time between two looks at a path, in milliseconds.
const lookEvery = 500

// processPath is a path that leads through a process.
var processPath = regexp.MustCompile(`^/proc/([1-9][0-9]{0,9})/`)

func startWatcher(t *target) (*watcher, error) {
	w := &watcher{
		done: make(chan struct{}), stopped: make(chan struct{}),
		path: t.path, process: t.pid != 0, timeout: lookEvery,
	}
	var err error
	if w.id, err = fileNamespace(t.net); err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w.stop = os.NewFile(uintptr(fd), "eventfd")
	if !w.process {
		w.addPath()
	} else if t.pidfd != nil {
		if fd, err := unix.FcntlInt(t.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			w.add(fd, unix.POLLIN, true)
			w.timeout = -1
		}
	}
	go w.run()
	return w, nil
}

// addPath watches a path, with whatever of these can be had.
func (w *watcher) addPath() {
	if m := processPath.FindStringSubmatch(w.path); m != nil {
		pid, _ := strconv.Atoi(m[1])
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			w.add(fd, unix.POLLIN, true)
		}
	}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		const changes = unix.IN_DELETE | unix.IN_MOVE | unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
		_, _ = unix.InotifyAddWatch(fd, filepath.Dir(w.path), changes) // without it nothing is ever readable
		w.add(fd, unix.POLLIN, false)
	}
	// Always readable; that it has changed is told by POLLPRI, once.
	if fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		w.add(fd, unix.POLLPRI, false)
	}
}

func (w *watcher) add(fd int, events int16, once bool) {
	w.sources = append(w.sources, source{os.NewFile(uintptr(fd), "watch"), events, once})
}

// run waits until the namespace has gone or close is called.
func (w *watcher) run() {
	defer close(w.stopped)
	defer func() {
		w.stop.Close()
		for _, s := range w.sources {
			s.file.Close()
		}
	}()
	poll := []unix.PollFd{{Fd: int32(w.stop.Fd()), Events: unix.POLLIN}}
	for _, s := range w.sources {
		poll = append(poll, unix.PollFd{Fd: int32(s.file.Fd()), Events: s.events})
	}
	processEnded := false
	for !processEnded && !w.gone() {
		if _, err := unix.Poll(poll, w.timeout); err != nil && err != unix.EINTR {
			return // no memory: the caller has other worries
		}
		if poll[0].Revents != 0 {
			return
		}
		for i, s := range w.sources {
			switch told := poll[i+1].Revents != 0; {
			case told && s.once:
				processEnded = w.process
				poll[i+1].Fd = -1 // poll(2) passes over it
			case told && s.events == unix.POLLIN:
				drain(s.file)
			}
		}
	}
	close(w.done)
}

// drain reads what inotify has to say, which is only that we are to look.
func drain(f *os.File) {
	var b [4096]byte
	for {
		if n, err := unix.Read(int(f.Fd()), b[:]); n <= 0 || err != nil {
			return
		}
	}
}

// gone reports whether the path has ceased to lead to the namespace. While a
// process can be watched its path need not be looked at, and should not: it
// may become unreadable.
func (w *watcher) gone() bool {
	if w.process && len(w.sources) > 0 {
		return false
	}
	id, err := pathNamespace(w.path)
	switch {
	case err == nil:
		return id != w.id
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ESRCH):
		return true
	}
	return false // as when memory or a permission is missing
}

func (w *watcher) close() {
	w.closeOnce.Do(func() {
		select {
		case <-w.stopped: // and the eventfd is closed
		default:
			one := [8]byte{0: 1, 7: 1} // not zero in either byte order
			_, _ = w.stop.Write(one[:])
		}
	})
	<-w.stopped
}
