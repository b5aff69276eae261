package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSIGKILLOfSbxnetLeavesNothing(t *testing.T) {
	for _, flags := range [][]string{nil, {"--pid-namespace"}, {"--network", "none"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			args := append([]string{"run"}, flags...)
			p := start(t, append(args, "--", "sh", "-c", "setsid sh -c 'sleep 100' & setsid setsid sleep 100 & echo up; sleep 100")...)
			p.waitOutput("up", 20*time.Second)
			if n := len(sceneOf(t).processes()); n < 4 {
				t.Fatalf("only %d processes carry the marker: the check sees nothing", n)
			}
			p.cmd.Process.Kill()
			if r := p.wait(20 * time.Second); r.status != 128+9 {
				t.Errorf("status %d", r.status)
			}
		}) // the scene's check is the test
	}
}

func TestSIGKILLFreesPublishedPortsAndNames(t *testing.T) {
	published := fmt.Sprintf("%d:80", freePort(t))
	for range 3 {
		p := start(t, "run", "--name", "again", "-p", published, "--", "sh", "-c", "echo up; sleep 100")
		p.waitOutput("up", 20*time.Second)
		p.cmd.Process.Kill()
		p.wait(20 * time.Second)
		for deadline := time.Now().Add(20 * time.Second); len(sceneOf(t).processes()) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("still there: %v", sceneOf(t).processes())
			}
		}
	}
}

func TestDaemonsEndWithTheCommand(t *testing.T) {
	r := runSbxnet(t, "run", "--", "sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & exit 3")
	if r.status != 3 {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGQUIT} {
		p := start(t, "run", "--", "sh", "-c", fmt.Sprintf("trap 'exit 42' %d; echo ready; while :; do sleep 0.05; done", sig))
		p.waitOutput("ready", 20*time.Second)
		p.cmd.Process.Signal(sig)
		if r := p.wait(20 * time.Second); r.status != 42 {
			t.Errorf("%v: status %d, stderr %q", sig, r.status, r.stderr)
		}
	}
}

func TestNameIsTakenOnce(t *testing.T) {
	p := start(t, "run", "--name", "one", "--", "sh", "-c", "echo up; sleep 100")
	p.waitOutput("up", 20*time.Second)
	if r := runSbxnet(t, "run", "--name", "one", "--", "true"); r.status != 125 || !oneLineNaming(r.stderr, "one") {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestTwoSandboxesCannotSeeEachOther(t *testing.T) {
	flags := []string{"--cidr", "10.77.0.0/24"}
	p := start(t, "run", "--cidr", "10.77.0.0/24", "--", hello)
	p.waitOutput("listening", 20*time.Second)
	if got := sh(t, flags, toolLine("refused", "tcp", "10.77.0.100:80")); strings.Contains(got, "connected") {
		t.Errorf("the other sandbox answered: %q", got)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait(20 * time.Second)
}

func TestPcapIsWritten(t *testing.T) {
	file := filepath.Join(scratch(t), "capture.pcapng")
	sh(t, []string{"--pcap", file}, "ping -c 1 -W 10 10.0.2.2 >/dev/null")
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 200 || string(b[:4]) != "\x0a\x0d\x0d\x0a" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestLogPackets(t *testing.T) {
	need(t, "ping")
	r := runSbxnet(t, "run", "--log-packets", "--log-format", "json", "--", "ping", "-c", "1", "-W", "10", "10.0.2.2")
	if r.status != 0 || !strings.Contains(r.stderr, "10.0.2.2") || !strings.HasPrefix(strings.TrimSpace(r.stderr), "{") {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestQuietPrintsNothing(t *testing.T) {
	r := runSbxnet(t, "run", "-q", "-p", "80", "--", "true")
	if r.status != 0 || strings.Contains(r.stderr, "published") {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

// With no descriptors left a new flow is refused and an old one lives on.
func TestRunningOutOfDescriptorsKeepsOldFlows(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	echoServer(t, "[::]:7500")
	script := fmt.Sprintf(`ulimit -n 64; exec %s -- bash -c '
		ulimit -n 1024 2>/dev/null
		exec 3<>/dev/tcp/%s/7500
		for i in $(seq 100); do (exec 4<>/dev/tcp/%s/7500; sleep 5) 2>/dev/null & done
		sleep 2
		echo still-here >&3; read -t 20 -u 3 line; echo "old flow: $line"'`, runLine(), remoteAddr4, remoteAddr4)
	cmd := command(t)
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script}
	if r := startCommand(t, cmd).wait(60 * time.Second); !strings.Contains(r.stdout, "old flow: still-here") {
		t.Errorf("status %d\n%s\n%s", r.status, r.stdout, r.stderr)
	}
}
