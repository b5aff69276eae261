package pasta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/portfwd/spec"
)

// Bounds of the control socket: of a request in bytes, of connections that are
// served at once, and of how long one may take to ask, and then to be answered.
const (
	maxRequest     = 1 << 20
	maxClients     = 8
	controlTimeout = 10 * time.Second
)

// The operations of a change.
const (
	opAdd    = "add"
	opDelete = "delete"
	opSet    = "set"
)

// A request is what pesto asks, all of it or nothing. It is one JSON object, after
// which the client closes its direction.
type request struct {
	Changes []change `json:"changes"`
}

// A change is the values of options that stand together.
type change struct {
	Operation string        `json:"operation"`
	Protocol  spec.Protocol `json:"protocol"`
	Specs     []string      `json:"specs"`
}

// An answer says what is published now, or why nothing has changed.
type answer struct {
	Error     string   `json:"error,omitempty"`
	Published []string `json:"published,omitempty"`
}

// A control serves pesto on a Unix socket.
type control struct {
	path     string
	inode    uint64
	listener *net.UnixListener
	table    *table
	log      *slog.Logger
	slots    chan struct{}
	timeout  time.Duration
	clients  sync.WaitGroup

	mu     sync.Mutex
	conns  map[*net.UnixConn]bool
	closed bool
}

// listenControl makes the socket, in place of one that nobody listens on any
// more. It is for this user only.
func listenControl(path string, t *table, log *slog.Logger) (*control, error) {
	return listenControlFor(path, t, log, controlTimeout)
}

// listenControlFor is listenControl for clients that may take so long.
func listenControlFor(path string, t *table, log *slog.Logger, timeout time.Duration) (*control, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, cause(err)
	}
	l.SetUnlinkOnClose(false) // another's may be there by then
	c := &control{path: path, listener: l, table: t, log: log, timeout: timeout, slots: make(chan struct{}, maxClients), conns: map[*net.UnixConn]bool{}}
	var st unix.Stat_t
	if err = os.Chmod(path, 0o700); err == nil {
		err = unix.Lstat(path, &st)
	}
	if err != nil {
		l.Close()
		os.Remove(path)
		return nil, err
	}
	c.inode = st.Ino
	c.clients.Add(1)
	go c.accept()
	return c, nil
}

// cause leaves out what net says in front of the kernel's answer.
func cause(err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}

// removeStale makes way for a socket, if nothing but a dead socket is in it.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return err
	case st.Mode()&os.ModeSocket == 0:
		return errors.New("is there already, and is no socket: name another file")
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err == nil {
		c.Close()
		return errors.New("another program listens on it: end that, or name another file")
	}
	return os.Remove(path)
}

// Close ends all connections and removes the socket.
func (c *control) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.clients.Wait()
	var st unix.Stat_t
	if unix.Lstat(c.path, &st) == nil && st.Ino == c.inode {
		os.Remove(c.path)
	}
	return err
}

func (c *control) accept() {
	defer c.clients.Done()
	for {
		conn, err := c.listener.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		c.slots <- struct{}{}
		c.clients.Add(1)
		go func() {
			defer c.clients.Done()
			defer func() { <-c.slots }()
			defer c.forget(conn)
			if c.remember(conn) {
				c.serve(conn)
			}
		}()
	}
}

// remember has Close end a connection too, and reports whether it is not too late
// to serve it.
func (c *control) remember(conn *net.UnixConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = true
	return !c.closed
}

func (c *control) forget(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

// serve answers one request.
func (c *control) serve(conn *net.UnixConn) {
	conn.SetReadDeadline(time.Now().Add(c.timeout))
	a := answer{}
	if err := c.handle(conn); err != nil {
		a.Error = console.OneLine(err.Error())
	} else {
		a.Published = c.table.lines()
	}
	conn.SetWriteDeadline(time.Now().Add(c.timeout))
	if err := json.NewEncoder(conn).Encode(a); err != nil {
		c.log.Debug("answer pesto: " + err.Error())
	}
}

func (c *control) handle(conn *net.UnixConn) error {
	if err := checkPeer(conn); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(conn, maxRequest+1))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if len(body) > maxRequest {
		return fmt.Errorf("the request is longer than %d bytes", maxRequest)
	}
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("the request is not understood: %w", err)
	}
	return c.table.apply(r.Changes)
}

// checkPeer lets nobody in but who runs us, and root.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if asked != nil {
		return fmt.Errorf("ask who is connected: %w", asked)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not change the ports of user %d", peer.Uid, os.Geteuid())
	}
	return nil
}

// apply makes changes, all of them or none.
func (t *table) apply(changes []change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var remove, add []rule
	for _, c := range changes {
		rules, err := c.rules(t.freebind)
		if err != nil {
			return err
		}
		switch c.Operation {
		case opAdd:
			add = append(add, rules...)
		case opDelete:
			remove = append(remove, rules...)
		case opSet:
			remove = append(remove, t.replace(c.Protocol, rules)...)
			add = append(add, rules...)
		default:
			return fmt.Errorf("%s: no such operation", console.Shown(c.Operation))
		}
	}
	return t.change(remove, add)
}

// rules are what the specs of a change say, to a pasta with --freebind or without.
func (c change) rules(freebind bool) ([]rule, error) {
	if c.Protocol != spec.TCP && c.Protocol != spec.UDP {
		return nil, fmt.Errorf("%s: no such protocol", console.Shown(string(c.Protocol)))
	}
	var p ports
	for _, s := range c.Specs {
		if err := p.add(s); err != nil {
			return nil, err
		}
	}
	if p.Auto || p.All {
		return nil, errors.New("auto and all are for pasta's own command line; name the ports")
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	if freebind {
		p.bindFreely()
	}
	var rules []rule
	for _, f := range p.Forwards {
		rules = append(rules, rule{c.Protocol, f})
	}
	return rules, nil
}
