package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// sandboxed is a command line of sbxnet around this program in a role.
func (l *checklist) sandboxed(flags []string, role string, args ...string) *exec.Cmd {
	line := append([]string{"run"}, flags...)
	line = append(line, "--", "/proc/self/exe")
	if self, err := os.Executable(); err == nil {
		line[len(line)-1] = self
	}
	cmd := exec.Command(l.sbxnet, append(line, args...)...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// inside plays a role in a sandbox and returns what it printed.
func (l *checklist) inside(flags []string, role string, args ...string) string {
	cmd := l.sandboxed(flags, role, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, lastLine(stderr.String()))
	}
	return strings.TrimSpace(string(out))
}

// A served sandbox runs the server.
type served struct {
	cmd *exec.Cmd
	// published is where the host reaches it.
	published string
}

var publishedLine = regexp.MustCompile(`^published http://(127\.0\.0\.1:\d+) `)

// serve starts the server in a sandbox and waits until it listens.
func (l *checklist) serve(flags []string, addresses ...string) (*served, error) {
	s := &served{cmd: l.sandboxed(flags, roleServe, addresses...)}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	// A sandbox that does not start ends its pipes, one that hangs is ended.
	watchdog := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	defer watchdog.Stop()
	said, err := s.readPublished(stderr)
	if err == nil {
		_, err = bufio.NewReader(stdout).ReadString('\n')
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("the sandbox did not start: %s", lastLine(said))
	}
	return s, nil
}

// readPublished finds the address on the host in what sbxnet prints.
func (s *served) readPublished(stderr io.Reader) (said string, err error) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		said += lines.Text() + "\n"
		if m := publishedLine.FindStringSubmatch(lines.Text()); m != nil {
			s.published = m[1]
			return said, nil
		}
	}
	return said, errors.New("nothing was published")
}

func (s *served) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// hostServer runs a server on the host's loopback.
func (l *checklist) hostServer() (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.line("a server on the host", false, err.Error())
		return "", func() {}
	}
	go answer(listener, onHost)
	return listener.Addr().String(), func() { listener.Close() }
}

// freePort is a port that is free on the host's loopback.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
