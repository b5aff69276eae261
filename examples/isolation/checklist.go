package main

import (
	"fmt"
	"io"
	"net"
	"strings"
)

// checklist prints what it finds, a line each.
type checklist struct {
	sbxnet       string
	out          io.Writer
	made, failed int
}

func (l *checklist) title(s string) { fmt.Fprintf(l.out, "\n%s\n", s) }

// line notes one finding: what was tried, whether it went as it should, and
// what happened.
func (l *checklist) line(what string, ok bool, happened string) {
	l.made++
	mark := "ok  "
	if !ok {
		l.failed++
		mark = "FAIL"
	}
	fmt.Fprintf(l.out, "  %s  %-58s %s\n", mark, what, happened)
}

// Answers of a server that was reached, by where it runs.
const (
	onHost    = "the host"
	inSandbox = "the sandbox"
)

func (l *checklist) noNetwork() {
	l.title("No network: sbxnet run --network none")
	got := l.inside([]string{"--network", "none"}, roleInterfaces)
	l.line("there is no interface but loopback", got == "lo", got)
	got = l.inside([]string{"--network", "none"}, roleTry, "192.0.2.1:80")
	l.line("an address elsewhere cannot be reached", strings.Contains(got, "unreachable"), got)
}

func (l *checklist) hostLoopback() {
	l.title("The host's loopback: a server there, tried from a sandbox")
	at, stop := l.hostServer()
	defer stop()
	got := try(at)
	l.line("the host itself reaches "+at, got == onHost, got)
	got = l.inside(nil, roleTry, at)
	l.line("the sandbox's own loopback is another", refused(got), got)
	_, port, _ := net.SplitHostPort(at)
	gateway := net.JoinHostPort("host.sbxnet.internal", port)
	got = l.inside(nil, roleTry, gateway)
	l.line("the gateway does not lead there", refused(got), got)
	got = l.inside([]string{"--host-loopback"}, roleTry, gateway)
	l.line("with --host-loopback it does", got == onHost, got)
}

// twoSandboxes gives one sandbox an address in the other's network, so that
// they would be neighbours if anything joined them.
func (l *checklist) twoSandboxes() {
	l.title("Two sandboxes: a server in one, tried from the other")
	a, err := l.serve([]string{"--cidr", "198.18.7.0/24", "-p", "80"}, ":80")
	if err != nil {
		l.line("a server in the first", false, err.Error())
		return
	}
	defer a.stop()
	got := try(a.published)
	l.line("the host reaches it where it is published, "+a.published, got == inSandbox, got)
	for _, target := range []string{"198.18.7.100:80", "198.18.0.100:80"} {
		got = l.inside([]string{"--cidr", "198.18.0.0/16"}, roleTry, target)
		l.line("the second does not reach it at "+target, refused(got) || strings.Contains(got, "no route to host"), got)
	}
}

func (l *checklist) publishedPort() {
	port, err := freePort()
	if err != nil {
		l.line("find a free port", false, err.Error())
		return
	}
	l.title("Published ports: a server on two ports, sbxnet run -p 80")
	s, err := l.serve([]string{"-p", "80"}, ":80", ":"+port)
	if err != nil {
		l.line("a server in a sandbox", false, err.Error())
		return
	}
	defer s.stop()
	got := try(s.published)
	l.line("port 80 answers at "+s.published, got == inSandbox, got)
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := net.JoinHostPort(host, port)
		got = try(at)
		l.line("the port that is not published does not, at "+at, refused(got), got)
	}
}

func refused(got string) bool { return strings.Contains(got, "connection refused") }
