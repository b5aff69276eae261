package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Client speaks to one running sandbox. Close it.
type Client struct {
	// Name the sandbox was asked for by, and its state directory.
	Name, Path string
	// PID of the process that runs the network, as the kernel says.
	PID  int
	http *http.Client
	// first is the connection that Open made, until it is used.
	first chan net.Conn
}

// ErrNotRunning is of a name or directory that no sandbox has.
var ErrNotRunning = errors.New("no such sandbox is running")

// answerTime bounds a request, and maxAnswer what is read of its answer.
const (
	answerTime = 20 * time.Second
	maxAnswer  = 16 << 20
)

// Open finds a running sandbox by its name, or by its state directory if name
// has a slash in it. The error is ErrNotRunning, or an *UntrustedError.
func Open(name string) (*Client, error) {
	path := name
	if !strings.Contains(name, "/") {
		if err := CheckName(name); err != nil {
			return nil, err
		}
		root := Root()
		if err := checkExisting(root); err != nil {
			return nil, err
		}
		path = filepath.Join(root, name)
	}
	return open(name, path)
}

func open(name, path string) (*Client, error) {
	if err := checkExisting(path); err != nil {
		return nil, err
	}
	c := &Client{Name: name, Path: path}
	conn, err := c.dial()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("connect to the sandbox's API: %w", err)
	}
	c.PID = peer(conn)
	c.first = make(chan net.Conn, 1)
	c.first <- conn
	c.http = &http.Client{Timeout: answerTime, Transport: &http.Transport{
		MaxIdleConns: 1,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case conn := <-c.first:
				return conn, nil
			default:
				return c.dial()
			}
		},
	}}
	return c, nil
}

// checkExisting refuses a directory that is not ours; one that is not there has
// no sandbox.
func checkExisting(path string) error {
	dir, err := openOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	return dir.Close()
}

// dialTime bounds how long a sandbox whose process is stopped keeps us.
const dialTime = 5 * time.Second

func (c *Client) dial() (net.Conn, error) {
	name, done, err := socketName(filepath.Join(c.Path, fileSocket))
	if err != nil {
		return nil, err
	}
	defer done()
	return net.DialTimeout("unix", name, dialTime)
}

// peer is the process that listens: the credentials are those of listen(2).
func peer(conn net.Conn) int {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Close ends the connection.
func (c *Client) Close() {
	select {
	case conn := <-c.first:
		conn.Close()
	default:
	}
	c.http.CloseIdleConnections()
}

// SetPatience bounds how long each request may take.
func (c *Client) SetPatience(d time.Duration) { c.http.Timeout = d }

// ChildPID is the sandbox's first process.
func (c *Client) ChildPID() (int, error) {
	text, err := os.ReadFile(filepath.Join(c.Path, fileChildPID))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s: not a process ID: %.20q", filepath.Join(c.Path, fileChildPID), text)
	}
	return pid, nil
}

// AddPorts publishes every spec or none.
func (c *Client) AddPorts(specs []string) ([]Port, error) {
	var added []Port
	err := c.do(http.MethodPost, routePorts, PortsRequest{Specs: specs}, &added)
	return added, err
}

// RemovePorts unpublishes all that are named, by ID or by spec, or none.
func (c *Client) RemovePorts(specs []string, ids []int) error {
	return c.do(http.MethodDelete, routePorts, PortsRequest{Specs: specs, IDs: ids}, nil)
}

// Ports lists what is published.
func (c *Client) Ports() ([]Port, error) {
	var list []Port
	err := c.do(http.MethodGet, routePorts, nil, &list)
	return list, err
}

// Inspect reads what the sandbox says of itself into v.
func (c *Client) Inspect(v any) error { return c.do(http.MethodGet, routeInspect, nil, v) }

// Stats reads its counters into v.
func (c *Client) Stats(v any) error { return c.do(http.MethodGet, routeStats, nil, v) }

// Stop has the sandbox end, after grace by force, and waits until it has.
func (c *Client) Stop(grace time.Duration) error {
	held, err := c.openLock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be about to end
		return fmt.Errorf("see whether it runs: %w", err)
	}
	defer held.Close()
	if err := c.do(http.MethodPost, routeStop, StopRequest{Grace: grace.Seconds()}, nil); err != nil {
		return err
	}
	c.Close()
	const slack = 10 * time.Second // to drain, and to undo
	for deadline := time.Now().Add(grace + slack); ; time.Sleep(5 * time.Millisecond) {
		if gone, err := c.gone(held); gone || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still there %v after it should have ended (pid %d)", slack, c.PID)
		}
	}
}

// gone reports whether the sandbox has given its state directory back: the lock
// that it held loses its name first, is let go of last, and then is nobody's.
func (c *Client) gone(held *os.File) (bool, error) {
	lock, err := c.openLock()
	if errors.Is(err, fs.ErrNotExist) {
		if held == nil {
			return true, nil
		}
		return lockNow(held)
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	return ownerOf(lock) != c.PID, nil
}

func (c *Client) openLock() (*os.File, error) {
	return os.OpenFile(filepath.Join(c.Path, fileLock), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// do makes a request; in is its body, and out takes the answer's, if they are
// not nil.
func (c *Client) do(method, route string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, "http://sandbox"+route, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %v; pid %d may be stopped", c.http.Timeout, c.PID)
		}
		return fmt.Errorf("ask the sandbox: %w", errors.Unwrap(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the sandbox's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		return refusal(resp, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the sandbox's answer: %w", err)
	}
	return nil
}

// refusal is the server's message.
func refusal(resp *http.Response, text []byte) error {
	var said struct{ Message string }
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		return fmt.Errorf("the sandbox answers %s", resp.Status)
	}
	return errors.New(said.Message)
}

// List returns a client for each sandbox of this user that is running, in the
// order of their names. The caller closes them.
func List() ([]*Client, error) {
	root := Root()
	if err := checkExisting(root); err != nil {
		if err == ErrNotRunning {
			err = nil
		}
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the running sandboxes: %w", err)
	}
	var running []*Client
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue
		}
		if c, err := open(e.Name(), filepath.Join(root, e.Name())); err == nil {
			running = append(running, c)
		}
	}
	slices.SortFunc(running, func(a, b *Client) int { return strings.Compare(a.Name, b.Name) })
	return running, nil
}
