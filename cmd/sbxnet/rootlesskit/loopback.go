package rootlesskit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd/spec"
	"sbxnet/userns"
)

// loopbackArgument is the one that makes this program the process below; no
// option has this name.
const loopbackArgument = "--sbxnet-loopback"

// loopbackLink is the name in the state directory that leads the sandbox to this
// program while the process starts, under a name that Main is called by.
const loopbackLink = "rootlesskit"

// loopbackTime bounds the answer to a request to the process.
const loopbackTime = 20 * time.Second

// A loopback is a process of ours in the sandbox, by which ports lead to its
// loopback addresses. dockerd from version 28 on has its rules and proxies there:
// with one address for both families, as a network without that asks for, it
// would listen twice at it.
//
// To 127.0.0.1 go packets with their clients' addresses, by way of lo (see
// redirectToLoopback), as dockerd drops what comes there by another interface. To
// ::1, where nothing from outside can come, go connections and datagrams that the
// process carries on: it is a state.Loopback.
type loopback struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	// answers has one for each order; it is closed when the process has gone.
	answers chan loopbackAnswer
	mu      sync.Mutex // held for an order and its answer
}

// A loopbackOrder is for the process: to open a way to Port of ::1, or with At, to
// close the one that begins at that port.
type loopbackOrder struct {
	Protocol spec.Protocol
	Port     uint16 `json:",omitempty"`
	At       uint16 `json:",omitempty"`
}

// A loopbackAnswer is to an order, and the first one to the start: At is the port
// at which the way begins, and Error is empty if all went well.
type loopbackAnswer struct {
	At    uint16 `json:",omitempty"`
	Error string `json:",omitempty"`
}

// StartLoopback starts the process in the sandbox with the state directory dir,
// whose first process is pid: link is the name of its interface, and own its IPv4
// address. It ends with Close, with the sandbox, and with this process.
func StartLoopback(pid int, dir *state.Dir, link string, own netip.Addr) (state.Loopback, error) {
	name := dir.File(loopbackLink)
	if err := os.Symlink("/proc/self/exe", name); err != nil {
		return nil, err
	}
	defer os.Remove(name)
	cmd := exec.Command("/proc/self/exe", loopbackArgument, strconv.Itoa(pid), name, link, own.String())
	cmd.Args[0] = loopbackLink
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals of the terminal are not for it
	l := &loopback{cmd: cmd, answers: make(chan loopbackAnswer)}
	var err error
	if l.orders, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go l.receive(answers)
	if _, err := l.answer(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// receive hands on answers until there are no more.
func (l *loopback) receive(from io.Reader) {
	defer close(l.answers)
	d := json.NewDecoder(from)
	for {
		var a loopbackAnswer
		if d.Decode(&a) != nil {
			return
		}
		l.answers <- a
	}
}

func (l *loopback) answer() (loopbackAnswer, error) {
	select {
	case a, ok := <-l.answers:
		switch {
		case !ok:
			return a, errors.New("the process in the sandbox has ended")
		case a.Error != "":
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-time.After(loopbackTime):
		_ = l.cmd.Process.Kill() // lest the answer be taken for one to the next order
		return loopbackAnswer{}, fmt.Errorf("the process in the sandbox has not answered within %v", loopbackTime)
	}
}

func (l *loopback) order(o loopbackOrder) (loopbackAnswer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := json.NewEncoder(l.orders).Encode(o); err != nil {
		return loopbackAnswer{}, fmt.Errorf("ask the process in the sandbox: %w", err)
	}
	return l.answer()
}

// Open implements state.Loopback.
func (l *loopback) Open(p spec.Protocol, port uint16) (at uint16, err error) {
	a, err := l.order(loopbackOrder{Protocol: p, Port: port})
	if err != nil {
		return 0, fmt.Errorf("lead to [::1]:%d of the sandbox: %w", port, err)
	}
	return a.At, nil
}

// Shut implements state.Loopback.
func (l *loopback) Shut(p spec.Protocol, at uint16) error {
	_, err := l.order(loopbackOrder{Protocol: p, At: at})
	return err
}

// Close ends the process.
func (l *loopback) Close() error {
	l.orders.Close()
	go func() { // who may wait to hand on an answer that came too late
		for range l.answers {
		}
	}()
	patience := time.AfterFunc(loopbackTime, func() { _ = l.cmd.Process.Kill() })
	defer patience.Stop()
	_ = l.cmd.Wait() // of interest to nobody: the sandbox may have ended it
	return nil
}

// loopbackMain is the process, first outside of the sandbox and then in it, and
// returns its exit status.
func loopbackMain(args []string) int {
	out := json.NewEncoder(os.Stdout)
	if len(args) == 4 {
		pid, err := strconv.Atoi(args[0])
		if err == nil {
			_, err = userns.Join(pid, []string{args[1], loopbackArgument, args[2], args[3]}, nil, "/")
		}
		if err != nil {
			_ = out.Encode(loopbackAnswer{Error: err.Error()})
			return statusFailed
		}
		return 0
	}
	if len(args) != 2 {
		return statusFailed
	}
	w, err := newWays(args[0], args[1])
	if err != nil {
		_ = out.Encode(loopbackAnswer{Error: err.Error()})
		return statusFailed
	}
	_ = out.Encode(loopbackAnswer{})
	w.serve(bufio.NewReader(os.Stdin), out)
	return 0
}
