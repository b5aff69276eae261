package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// demoServerCommand is how the demo starts this executable in its sandbox.
const demoServerCommand = "demo-server"

// demoEnv is the variable in which the demo tells the server its task.
const demoEnv = "SBXNET_DEMO"

// A demoTask is what the server in the sandbox has to know of the host. It
// crosses as JSON in the environment.
type demoTask struct {
	// Token proves that a report comes from the demo on the host.
	Token string
	// Mark tells this demo's listeners from those of another.
	Mark string
	// HostPort is where the demo listens on the host's loopback, to be found
	// unreachable.
	HostPort uint16
	// ClosedPort is to be listened on, and is not published: the host must not
	// reach it.
	ClosedPort uint16
	// Outside is the user that runs the demo, such as "1000 (alice)".
	Outside string
}

// What the demo's two listeners say to whoever reaches them.
func (t demoTask) hostGreeting() string    { return "sbxnet demo on the host " + t.Mark }
func (t demoTask) sandboxGreeting() string { return "sbxnet demo in the sandbox " + t.Mark }

//go:embed demo/page.html demo/style.css demo/checks.js
var demoFiles embed.FS

var demoPage = template.Must(template.ParseFS(demoFiles, "demo/page.html"))

// A demoServer is the web server in the demo's sandbox.
type demoServer struct {
	task   demoTask
	around surroundings

	mu sync.Mutex
	// reported is what the host found when it tried ClosedPort.
	reported check
	at       time.Time
}

// serveDemo runs in the sandbox until it is interrupted.
func serveDemo() error {
	task, err := readTask(os.Getenv(demoEnv))
	if err != nil {
		return usagef("%s: is started by sbxnet demo: %w", demoServerCommand, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	closed, err := net.Listen("tcp", fmt.Sprintf(":%d", task.ClosedPort))
	if err != nil {
		return fmt.Errorf("demo: listen in the sandbox: %w", err)
	}
	defer closed.Close()
	go greet(closed, task.sandboxGreeting())
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", demoPort))
	if err != nil {
		return fmt.Errorf("demo: listen in the sandbox: %w", err)
	}
	s := &demoServer{task: task, around: surroundings{gateways(), nameservers()}}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("demo: serve: %w", err)
	}
	return nil
}

func readTask(text string) (t demoTask, err error) {
	err = json.Unmarshal([]byte(text), &t)
	return t, err
}

// greet tells everyone who connects whom they have reached.
func greet(l net.Listener, greeting string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.SetDeadline(time.Now().Add(time.Second))
		c.Write([]byte(greeting))
		c.Close()
	}
}

func (s *demoServer) handler() http.Handler {
	files, err := fs.Sub(demoFiles, "demo")
	if err != nil {
		panic(err) // the directory is in the executable
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /checks", s.checks)
	mux.HandleFunc("POST /report", s.report)
	mux.Handle("GET /style.css", http.FileServerFS(files))
	mux.Handle("GET /checks.js", http.FileServerFS(files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// pageData is what page.html shows.
type pageData struct {
	Visitor                 string
	FromGateway             bool
	Checks                  []string
	Addresses               []shownAddress
	Routes                  []shownRoute
	Resolver, Link          string
	Hostname                string
	UserInside, UserOutside string
	Namespace               string
}

func (s *demoServer) page(w http.ResponseWriter, r *http.Request) {
	data := pageData{
		Visitor:     r.RemoteAddr,
		FromGateway: s.fromGateway(r.RemoteAddr),
		Checks:      checkNames,
		Addresses:   addresses(),
		Routes:      routes(),
		Resolver:    resolverText(),
		Link:        linkText(),
		UserInside:  whoami(),
		UserOutside: s.task.Outside,
	}
	data.Hostname, _ = os.Hostname()
	data.Namespace, _ = os.Readlink("/proc/self/ns/net")
	var page bytes.Buffer
	if err := demoPage.Execute(&page, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(page.Bytes())
}

func (s *demoServer) fromGateway(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	for _, g := range s.around.gateways {
		if ap.Addr().Unmap() == g {
			return true
		}
	}
	return false
}

func (s *demoServer) checks(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.runChecks(ctx))
}

// report takes what the demo on the host found.
func (s *demoServer) report(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("Authorization")
	if subtle.ConstantTimeCompare([]byte(token), []byte(s.task.Token)) != 1 {
		http.Error(w, "only the demo itself reports", http.StatusForbidden)
		return
	}
	var c check
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&c); err != nil {
		http.Error(w, "not a report: "+err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported, s.at = c, time.Now()
}

// lastReport is what the host found, unless that is long ago.
func (s *demoServer) lastReport() check {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || time.Since(s.at) > 5*reportInterval {
		return check{Name: checkClosedPort, State: stateWaiting, Detail: "waiting for the host to try"}
	}
	return s.reported
}
