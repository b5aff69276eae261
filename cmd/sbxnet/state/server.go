package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"
	"github.com/rootless-containers/rootlesskit/v3/pkg/api/router"
	"github.com/rootless-containers/rootlesskit/v3/pkg/httputil"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/tapdev/stackroom"
)

// Bounds of what one client can have the server do.
const (
	maxBody        = 64 << 10 // bytes
	maxHeader      = 16 << 10 // bytes
	maxConnections = 64
	headerTime     = 10 * time.Second
	requestTime    = 30 * time.Second
	idleTime       = 2 * time.Minute
)

// A Sandbox is what a Server speaks for.
type Sandbox struct {
	Dir *Dir
	// ChildPID is the sandbox's first process.
	ChildPID int
	// Network and PortDriver are what RootlessKit's clients are told; see
	// NetworkInfo and PortInfo.
	Network    api.NetworkDriverInfo
	PortDriver api.PortDriverInfo
	// Addresses are the sandbox's own: a port that leads to one of them leads to
	// every place where its server may be.
	Addresses []netip.Addr
	Ports     *network.Ports
	// Loopback starts the way to the sandbox's loopback addresses, when the first
	// client of RootlessKit's asks what can be had; nil: there is none.
	Loopback func() (Loopback, error)
	// Inspect, Stats and Stop are behind the routes of those names; nil: there
	// is no such route. Stop returns at once; after grace the sandbox is killed.
	Inspect, Stats func() any
	Stop           func(grace time.Duration)
	// Log receives what went wrong in the server itself; nil discards it.
	Log *slog.Logger
}

// A Server answers on a sandbox's socket.
type Server struct {
	http   *http.Server
	ports  *portDriver
	served chan struct{}
}

// AddPort publishes what RootlessKit's notation names, as a client would.
func (s *Server) AddPort(p port.Spec) (*port.Status, error) {
	return s.ports.AddPort(context.Background(), p)
}

// Serve begins to answer on the socket in sb.Dir, and notes the child's process
// ID in it.
func Serve(sb Sandbox) (*Server, error) {
	if err := sb.Dir.SetChildPID(sb.ChildPID); err != nil {
		return nil, err
	}
	l, err := listen(sb.Dir.File(fileSocket))
	if err != nil {
		return nil, fmt.Errorf("listen for API clients: %w", err)
	}
	log := sb.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ports := sb.portDriver(log)
	// Most sandboxes are short, and never spoken to.
	mux := sync.OnceValue(func() http.Handler { return newMux(&sb, ports) })
	answer := func(w http.ResponseWriter, r *http.Request) { mux().ServeHTTP(w, r) }
	s := &Server{
		ports: ports,
		http: &http.Server{
			Handler:        http.MaxBytesHandler(http.HandlerFunc(answer), maxBody),
			ConnState:      defaultPatience().state,
			MaxHeaderBytes: maxHeader,
			ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
		served: make(chan struct{}),
	}
	go func() {
		stackroom.Take()
		defer close(s.served)
		if err := s.http.Serve(limit(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("the sandbox's API has ended: " + err.Error())
		}
	}()
	return s, nil
}

// Close ends the server and what it is answering.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.served
	return errors.Join(err, s.ports.loopback.close())
}

// listen makes the socket, which nobody but us can get at: the directory is ours.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	name, done, err := socketName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: name})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // name may be no name any more; Dir removes the file
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// socketName is a path that fits into a socket's address. A long one goes by way
// of a descriptor of the directory, which is open until done.
func socketName(path string) (name string, done func(), err error) {
	const most = len(unix.RawSockaddrUnix{}.Path) - 1
	if len(path) <= most {
		return path, func() {}, nil
	}
	dir := path[:len(path)-len(fileSocket)-1]
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + fileSocket, func() { unix.Close(fd) }, nil
}

// limit has clients beyond the first n wait for one to leave.
func limit(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, room: make(chan struct{}, n), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// newMux is RootlessKit's routes, ours, and JSON for all others.
func newMux(sb *Sandbox, ports *portDriver) http.Handler {
	mux := http.NewServeMux()
	router.AddRoutes(mux, &router.Backend{
		StateDir: sb.Dir.Path, ChildPID: sb.ChildPID,
		NetworkDriver: &networkDriver{sb.Network}, PortDriver: ports,
	})
	addRoutes(mux, sb)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json") // the router sets it too late for errors
		if _, pattern := mux.Handler(r); pattern == "" {
			refuse(mux, w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// refuse says in JSON what the mux would say in plain text: not found, or not by
// this method.
func refuse(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	said := &silent{header: w.Header(), status: http.StatusNotFound}
	mux.ServeHTTP(said, r)
	w.Header().Set("Content-Type", "application/json") // not the mux's
	status, err := said.status, fmt.Errorf("no such route: %s", r.URL.Path)
	if status == http.StatusMethodNotAllowed {
		err = fmt.Errorf("%s: not a method of %s; use %s", r.Method, r.URL.Path, w.Header().Get("Allow"))
	}
	writeError(w, r, err, status)
}

// silent keeps the status and headers of an answer.
type silent struct {
	header http.Header
	status int
}

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(status int)      { s.status = status }

func refuseRequest(w http.ResponseWriter, r *http.Request, err error) {
	writeError(w, r, err, http.StatusBadRequest)
}

func writeError(w http.ResponseWriter, r *http.Request, err error, status int) {
	httputil.WriteError(w, r, err, status)
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		writeError(w, r, err, http.StatusInternalServerError)
		return
	}
	text = append(text, '\n')
	// With a length it is complete once it is sent; in chunks it is not before the
	// handler has returned, which is too late for an answer that ends the server.
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	w.Write(text)
}
