package userns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSandboxListensBeforeAndWhileTheCommandRuns(t *testing.T) {
	at := netip.MustParseAddrPort
	cfg := unlinked()
	cfg.PIDNamespace = true
	dir := t.TempDir()
	cfg.Command = []string{"bash", "-c", `cat < /dev/tcp/127.0.0.1/80 > "$0/first"; until [ -e "$0/go" ]; do sleep 0.01; done; cat < /dev/tcp/127.0.0.1/81 > "$0/second"; exit 3`, dir}
	sb := started(t, cfg)
	serve := func(address string) {
		files, err := sb.Listen([]Socket{{Addr: at(address)}})
		must(t, err)
		defer closeAll(files)
		l, err := net.FileListener(files[0])
		must(t, err)
		t.Cleanup(func() { l.Close() })
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = io.WriteString(c, "from outside")
				c.Close()
			}
		}()
	}
	serve("127.0.0.1:80")
	must(t, sb.Exec())
	serve("127.0.0.1:81")
	_, err := sb.Listen([]Socket{{Addr: at("127.0.0.1:82")}, {Addr: at("127.0.0.1:81")}})
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "127.0.0.1:81/tcp: address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	again, err := sb.Listen([]Socket{{Addr: at("127.0.0.1:82")}}) // nothing of the failed ones is left
	must(t, err)
	closeAll(again)
	must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	if status, err := sb.Wait(); err != nil || status != 3 {
		t.Errorf("status %d, %v", status, err)
	}
	for _, name := range []string{"first", "second"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != "from outside" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := sb.Listen([]Socket{{Addr: at("127.0.0.1:80")}}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("after the end: %v", err)
	}
}

func TestListenNeedsANetworkOfTheSandboxs(t *testing.T) {
	cfg := unlinked()
	cfg.Network = NetworkHost
	if _, err := started(t, cfg).Listen([]Socket{{Addr: netip.MustParseAddrPort("127.0.0.1:0")}}); err == nil || !strings.Contains(err.Error(), "the host's network") {
		t.Errorf("%v", err)
	}
}

// laterEnv names a file that runParent has removed, should it be killed.
const laterEnv = "SBXNET_TEST_LATER"

// What comes after Start is removed as what was there before, with a PID
// namespace as well, whose first process would otherwise die at once.
func TestFirstProcessRemovesWhatCameAfterStart(t *testing.T) {
	for _, own := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "pid")
		must(t, os.WriteFile(file, nil, 0o600))
		cfg := unlinked()
		cfg.PIDNamespace = own
		cfg.Command = []string{"sleep", "1000"}
		p := startParent(t, cfg, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, laterEnv+"="+file) })
		must(t, p.Process.Kill())
		p.Wait()
		gone(t, p.init)
		gone(t, p.command)
		if exists(file) {
			t.Errorf("pid-namespace=%v: the file is left", own)
		}
	}
}

func TestSandboxRefusesToRemoveWhatCouldOnlyBeAMistake(t *testing.T) {
	sb := started(t, unlinked())
	for _, p := range []string{"", "relative", "/"} {
		if err := sb.Remove(p); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// halted stops a process, until the test ends.
func halted(t *testing.T, pid int) {
	t.Helper()
	must(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) })
	until(t, "it to be stopped", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.Contains(string(b), ") T ")
	})
}

// Close closes the service first, and has a first process that does not answer to
// kill then.
func TestWhoeverWaitsForAnAnswerDoesNotHoldUpTheEnd(t *testing.T) {
	sb := runningSandbox(t, linked())
	files, err := sb.Sockets(false, 1)
	must(t, err)
	closeAll(files)
	halted(t, sb.PID())
	answer := make(chan error, 1)
	go func() {
		_, err := sb.Sockets(false, 1)
		answer <- err
	}()
	until(t, "it to be asked", func() bool {
		if sb.asking.TryLock() {
			sb.asking.Unlock()
			return false
		}
		return true
	})
	began := time.Now()
	sb.closeService(net.ErrClosed)
	if err := <-answer; err == nil {
		t.Error("it has answered")
	}
	if took := time.Since(began); took > listenTimeout/2 {
		t.Errorf("it took %v", took)
	}
}

// After one answer that did not come in time nobody can take a diversion back. So
// the first process does, of connections that are over.
func TestFirstProcessUndivertsWhatIsOverWhenNobodyCanAskForIt(t *testing.T) {
	sb := runningSandbox(t, linked())
	var all []connection
	for _, to := range []netip.AddrPort{there4, there6} {
		for _, c := range connections(t, inside(sb), to, false, 2) {
			must(t, sb.Divert(c.from, c.to))
			all = append(all, c)
		}
	}
	halted(t, sb.PID())
	impatient(t)
	over, lasting := []connection{all[0], all[2]}, []connection{all[1], all[3]}
	for _, c := range over {
		must(t, unix.SetsockoptLinger(fdOf(t, c.client), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		must(t, c.client.Close())
		if err := sb.Undivert(c.from, c.to); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("Undivert: %v", err)
		}
	}
	must(t, unix.Kill(sb.PID(), unix.SIGCONT))
	rules := func() string { return look(t, sb, rulesFor) }
	ruled := func(c connection) bool { return strings.Contains(rules(), fmt.Sprintf("sport %d ", c.from.Port())) }
	until(t, "the rules of those that are over to be gone", func() bool { return !ruled(over[0]) && !ruled(over[1]) })
	for _, c := range lasting {
		if !ruled(c) {
			t.Errorf("%s to %s is diverted no longer:\n%s", c.from, c.to, rules())
		}
	}
}
