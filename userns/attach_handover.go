package userns

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// # Through execve
//
// A process keeps its ID, its children and its open files when it executes
// another program, or itself anew. HandOver and TakeOver carry an Attachment
// across: the process inside does not notice. Its parent death signal, which
// goes by the thread that forked, reaches it when that thread ends with the old
// program; it is SIGCONT, and says nothing to who is not stopped.

// handedOver is what TakeOver is told, with the control socket, the pidfd if there
// is one, and the link's descriptors.
type handedOver struct {
	Name, Path string
	Process    bool // the namespace was named by one
	Dev, Ino   uint64
	PID        int // of the process inside
	HasPIDFD   bool
	Info       tapdev.Info
	Found      Found
}

// HandOver ends a and returns what TakeOver makes it anew of, in this process or,
// after an execve, in what that has become. The descriptors are close-on-exec.
// Those of the link are among them: it is for who has not called Link.
func (a *Attachment) HandOver() (state []byte, files []*os.File, err error) {
	// What has come is taken in; what comes now waits in the socket.
	_ = a.conn.SetReadDeadline(time.Unix(1, 0))
	for range a.replies {
	}
	conn, err := a.conn.File()
	if err != nil {
		return nil, nil, fmt.Errorf("hand over the control socket: %w", err)
	}
	files = append(files, conn)
	pidfd, err := a.watch.copyPIDFD()
	if err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("hand over the watch of %s: %w", a.name, err)
	}
	if pidfd != nil {
		files = append(files, pidfd)
	}
	info, link := a.Link()
	state, err = json.Marshal(handedOver{
		Name: a.name, Path: a.watch.path, Process: a.watch.process, Dev: a.watch.id.dev, Ino: a.watch.id.ino,
		PID: a.proc.Pid, HasPIDFD: pidfd != nil, Info: info, Found: a.Found(),
	})
	if err != nil {
		closeAll(append(files, link...))
		return nil, nil, fmt.Errorf("hand over %s: %w", a.name, err)
	}
	a.watch.close()
	a.conn.Close() // there is the copy
	return state, append(files, link...), nil
}

// copyPIDFD copies the descriptor by which the end of a process is seen, nil if
// there is none.
func (w *watcher) copyPIDFD() (*os.File, error) {
	if !w.process || len(w.sources) == 0 {
		return nil, nil
	}
	fd, err := unix.FcntlInt(w.sources[0].file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// TakeOver makes an Attachment of what HandOver returned. The files are its own
// from then on, also when it fails; nil log discards.
func TakeOver(state []byte, files []*os.File, log *slog.Logger) (_ *Attachment, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var pidfd *os.File
	bell, err := newBell()
	defer func() {
		if err != nil {
			bell.Close() // or nil
			if pidfd != nil {
				pidfd.Close()
			}
			closeAll(files)
			err = fmt.Errorf("take over an attachment: %w", err)
		}
	}()
	if err != nil {
		return nil, err
	}
	var h handedOver
	if err := json.Unmarshal(state, &h); err != nil {
		return nil, err
	}
	a := &Attachment{log: log, name: h.Name, ended: make(chan struct{}), changed: make(chan struct{}, 1), replies: make(chan reply, 1),
		bell: bell, info: h.Info, found: h.Found}
	least := 2 // the control socket, and one of the link
	if h.HasPIDFD {
		least++
	}
	if len(files) < least {
		return nil, fmt.Errorf("%d descriptors of at least %d", len(files), least)
	}
	conn, files := files[0], files[1:]
	if h.HasPIDFD {
		pidfd, files = files[0], files[1:]
	}
	if a.conn, err = controlConn(conn); err != nil {
		return nil, err
	}
	if a.proc, err = os.FindProcess(h.PID); err != nil {
		a.conn.Close()
		return nil, err
	}
	if a.watch, err = resumeWatcher(&h, pidfd); err != nil {
		a.conn.Close()
		return nil, err
	}
	a.files = files
	go func() {
		runtime.LockOSThread() // as spawn does
		a.state, _ = a.proc.Wait()
		close(a.ended)
	}()
	go a.receive()
	return a, nil
}

// resumeWatcher goes on to wait for the end of what h names; pidfd, if there is
// one, is its own.
func resumeWatcher(h *handedOver, pidfd *os.File) (*watcher, error) {
	w := &watcher{
		done: make(chan struct{}), stopped: make(chan struct{}),
		path: h.Path, id: namespaceID{h.Dev, h.Ino}, process: h.Process, timeout: lookEvery,
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w.stop = os.NewFile(uintptr(fd), "eventfd")
	switch {
	case !w.process:
		w.addPath()
	case pidfd != nil:
		w.sources = []source{{pidfd, unix.POLLIN, true}}
		w.timeout = -1
	}
	go w.run()
	return w, nil
}
