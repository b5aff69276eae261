package pasta

import (
	"fmt"
	"io"
	"os"
	"sync"

	"sbxnet/cmd/sbxnet/console"
)

// logWriter is where the log goes: the file of --log-file, or else to.
func (o *options) logWriter(to io.Writer) (io.WriteCloser, error) {
	if o.LogFile == "" {
		return struct {
			io.Writer
			io.Closer
		}{to, io.NopCloser(nil)}, nil
	}
	f, err := os.OpenFile(o.LogFile, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log-file %s: %w", console.Shown(o.LogFile), err)
	}
	return &logFile{f: f, most: o.LogSize}, nil
}

// A logFile keeps the latest lines of a log, at most so many bytes.
type logFile struct {
	mu   sync.Mutex
	f    *os.File
	most int64
}

// Write appends one record. When the file is full its older half goes.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, err := l.f.Stat(); err == nil && st.Size()+int64(len(b)) > l.most {
		if err := l.halve(st.Size()); err != nil {
			return 0, err
		}
	}
	return l.f.Write(b)
}

func (l *logFile) halve(size int64) error {
	keep := make([]byte, min(size, l.most/2))
	n, err := l.f.ReadAt(keep, size-int64(len(keep)))
	if err != nil && err != io.EOF {
		return err
	}
	keep = keep[:n]
	for i, c := range keep {
		if c == '\n' { // the rest of a line that began before is no line
			keep = keep[i+1:]
			break
		}
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = l.f.Write(keep)
	return err
}

func (l *logFile) Close() error { return l.f.Close() }

// A reporter passes the log on to the process that waits for us, until we are
// ready; after that there is nobody to read it.
type reporter struct {
	mu sync.Mutex
	w  io.WriteCloser
}

func (r *reporter) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w == nil {
		return len(b), nil
	}
	return r.w.Write(b)
}

// ready says that we are, and is the last that is said. The error means that
// nobody waits.
func (r *reporter) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.w.Write([]byte{readyMark})
	r.w.Close()
	r.w = nil
	return err
}
