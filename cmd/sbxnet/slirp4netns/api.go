package slirp4netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRequest bounds a request, in bytes; the original's bound.
	maxRequest = 4095
	// maxClients bounds connections that are open at once; more of them wait.
	maxClients = 16
	// clientTime is how long a client has to send its request and to read the
	// answer.
	clientTime = 5 * time.Second
	// garbageTime is how long a client that has said what is no JSON may go on.
	garbageTime = 200 * time.Millisecond
	// maxUnread bounds how much is read of what follows a request, so that its sender
	// gets to see the answer.
	maxUnread = 1 << 20
)

// An api answers requests about host ports on a socket: a request and its
// answer are one JSON object each, and there is one a connection.
type api struct {
	ports hostfwds
	// guest4 and guest6 are where ports lead that name no guest_addr; guest6 is
	// not valid without IPv6.
	guest4, guest6 netip.Addr
	log            *slog.Logger

	// mu makes requests take turns.
	mu sync.Mutex
	// closed: nothing is changed any more.
	closed   bool
	listener *net.UnixListener
	path     string
	file     os.FileInfo
}

// listen makes the socket at path, for this user alone. A socket that is there
// already is replaced: whoever answered there is gone, or about to be.
func (a *api) listen(path string) error {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != os.ModeSocket {
			return fmt.Errorf("--api-socket %s: there is a file that is no socket; remove it or choose another path", path)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("--api-socket %s: replace the old one: %w", path, errors.Unwrap(err))
		}
	}
	mask := unix.Umask(0o177) // nobody is to connect before a chmod could
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	unix.Umask(mask)
	if err != nil {
		var cause *os.SyscallError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return fmt.Errorf("--api-socket %s: make the socket: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then it may be another's
	if a.file, err = os.Lstat(path); err != nil {
		l.Close()
		return fmt.Errorf("--api-socket %s: %w", path, err)
	}
	if a.path, err = filepath.Abs(path); err != nil { // the working directory does not stay
		l.Close()
		return fmt.Errorf("--api-socket %s: %w", path, err)
	}
	a.listener = l
	return nil
}

// serve answers until close.
func (a *api) serve() {
	seats := make(chan struct{}, maxClients)
	for {
		seats <- struct{}{}
		c, err := a.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor left, most likely
			a.log.Warn("--api-socket: " + err.Error())
			time.Sleep(100 * time.Millisecond)
			<-seats
			continue
		}
		go func() {
			defer func() { <-seats }()
			a.serveClient(c)
		}()
	}
}

func (a *api) serveClient(c *net.UnixConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(clientTime))
	request, err := readRequest(c)
	switch {
	case errors.Is(err, errTooLarge):
		c.Write(refusal(err))
	case err != nil:
		return
	default:
		c.Write(a.answer(request))
	}
	// A close with something unread would be a reset, and might overtake the
	// answer.
	c.CloseWrite()
	io.CopyN(io.Discard, c, maxUnread)
}

// readRequest reads until one JSON object is complete, the client has nothing
// more to say, or there is too much. What is no JSON may become too much, so that
// is read on, but not waited for long. Another error than errTooLarge means that
// the client has gone or is too slow.
func readRequest(c *net.UnixConn) ([]byte, error) {
	var got bytes.Buffer
	limited := &io.LimitedReader{R: c, N: maxRequest + 1}
	var value json.RawMessage
	err := json.NewDecoder(io.TeeReader(limited, &got)).Decode(&value)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		c.SetReadDeadline(time.Now().Add(garbageTime))
		io.Copy(&got, limited)
		c.SetReadDeadline(time.Now().Add(clientTime))
		err = nil
	}
	var network net.Error
	switch {
	case limited.N == 0:
		return nil, errTooLarge
	case errors.As(err, &network):
		return nil, err
	}
	return got.Bytes(), nil
}

// close waits for the request that is being worked on and removes the socket,
// unless another has been put in its place. It does not wait for clients.
func (a *api) close() error {
	a.listener.Close()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	if st, err := os.Lstat(a.path); err != nil || !os.SameFile(st, a.file) {
		return nil
	}
	if err := os.Remove(a.path); err != nil {
		return fmt.Errorf("remove the API socket: %w", err)
	}
	return nil
}
