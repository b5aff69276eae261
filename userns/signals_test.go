package userns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSignalOfTheGroupIsNotForwardedAgain(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	const sig = syscall.SIGINT
	t.Run("own first", func(t *testing.T) {
		f := newGroupFilter()
		f.received(sig, at(0))
		f.forward(sig, at(50))
		if got := f.due(at(1000)); len(got) != 0 {
			t.Errorf("delivered %v", got)
		}
	})
	t.Run("forwarded first", func(t *testing.T) {
		f := newGroupFilter()
		f.forward(sig, at(0))
		f.received(sig, at(10))
		if got := f.due(at(1000)); len(got) != 0 {
			t.Errorf("delivered %v", got)
		}
		f.forward(sig, at(30)) // a new one: the old is used up
		if got := f.due(at(1000)); len(got) != 1 {
			t.Errorf("delivered %v, want one", got)
		}
	})
	t.Run("sbxnet alone", func(t *testing.T) {
		f := newGroupFilter()
		f.received(syscall.SIGTERM, at(0))
		f.forward(sig, at(0))
		if got := f.due(at(10)); len(got) != 0 {
			t.Errorf("delivered %v too early", got)
		}
		when, ok := f.next()
		if !ok || when != at(25) {
			t.Errorf("due at %v", when)
		}
		if got := f.due(when); len(got) != 1 || got[0] != sig {
			t.Errorf("delivered %v, want %v", got, sig)
		}
		if got := f.due(at(1000)); len(got) != 0 {
			t.Errorf("delivered %v twice", got)
		}
	})
	t.Run("own too long ago", func(t *testing.T) {
		f := newGroupFilter()
		f.received(sig, at(0))
		f.forward(sig, at(3000))
		if got := f.due(at(4000)); len(got) != 1 {
			t.Errorf("delivered %v, want one", got)
		}
	})
}

// reporter is a script that writes the name of each signal that it gets to a
// file, and "ready" when it can.
func reporter(path string) string {
	script := ""
	for _, s := range []string{"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH", "CONT"} {
		script += "trap 'echo " + s + " >> " + path + "' " + s + "\n"
	}
	script += "trap 'echo 40 >> " + path + "' 40\n"
	return script + "echo ready >> " + path + "\nwhile :; do sleep 0.02; done"
}

// report is what a reporter has written.
func report(path string) string {
	b, _ := os.ReadFile(path)
	return strings.Join(strings.Fields(string(b)), " ")
}

func TestSignalsToSbxnetReachTheCommandOnce(t *testing.T) {
	for _, own := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "report")
		cfg := unlinked()
		cfg.PIDNamespace = own
		cfg.Command = []string{"sh", "-c", reporter(path)}
		p := startParent(t, cfg, func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} })
		until(t, "the command is ready", func() bool { return report(path) == "ready" })
		want := "ready"
		for _, s := range []string{"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH", "CONT"} {
			p.Process.Signal(unix.SignalNum("SIG" + s))
			want += " " + s
			until(t, want, func() bool { return report(path) == want })
		}
		p.Process.Signal(syscall.Signal(40)) // a real-time one
		want += " 40"
		until(t, want, func() bool { return report(path) == want })
		// To the whole group: the command has it from the kernel.
		for _, s := range []string{"INT", "TERM", "WINCH"} {
			syscall.Kill(-p.Process.Pid, unix.SignalNum("SIG"+s))
			want += " " + s
			until(t, want, func() bool { return strings.HasPrefix(report(path), want) })
			time.Sleep(300 * time.Millisecond) // for a copy, which there should not be
			if got := report(path); got != want {
				t.Fatalf("PID namespace %v: the command got %q, want %q", own, got, want)
			}
		}
	}
}

func TestSignalThatEndsTheCommandIsItsStatus(t *testing.T) {
	cfg := unlinked()
	cfg.Command = []string{"sleep", "1000"}
	p := startParent(t, cfg, nil)
	p.Process.Signal(syscall.SIGTERM)
	p.Wait()
	if got := p.ProcessState.ExitCode(); got != 128+15 {
		t.Errorf("status %d, want 143", got)
	}
}

func TestSignalBeforeTheCommandStartsIsKeptForIt(t *testing.T) {
	cfg := unlinked()
	cfg.Command = []string{"sleep", "1000"}
	sb := started(t, cfg)
	must(t, sb.Signal(syscall.SIGTERM))
	must(t, sb.Exec())
	if status, err := sb.Wait(); status != 128+15 || err != nil {
		t.Errorf("Wait: %d, %v, want 143", status, err)
	}
}

func TestDispositionsAreThoseOfTheCaller(t *testing.T) {
	out, _ := shell(t, unlinked(), "grep -E '^Sig(Blk|Ign)' /proc/self/status")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); strings.Trim(f[1], "0") != "" {
			t.Errorf("%s in a command of a caller that ignores nothing", strings.TrimSpace(line))
		}
	}
	path := filepath.Join(t.TempDir(), "status")
	cfg := unlinked()
	cfg.Command = []string{"sh", "-c", "grep ^SigIgn /proc/self/status > " + path + "; sleep 1000"}
	p := startParent(t, cfg, func(c *exec.Cmd) {
		exe, err := os.Executable()
		must(t, err)
		c.Args = []string{"nohup", exe}
		c.Path, _ = exec.LookPath("nohup")
	})
	until(t, "the command reports", func() bool { return report(path) != "" })
	if got := report(path); got != "SigIgn: 0000000000000001" {
		t.Errorf("under nohup: %s, want SIGHUP ignored", got)
	}
	p.Process.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	if !alive(p.command) {
		t.Error("SIGHUP got through nohup")
	}
}

// terminal is a pseudo-terminal with a shell on it.
type terminal struct {
	*os.File
	mu   sync.Mutex
	said strings.Builder
}

// openTerminal starts an interactive shell on a terminal of its own.
func openTerminal(t *testing.T, env ...string) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		skip(t, "no pseudo-terminals here: %v", err)
	}
	term := &terminal{File: os.NewFile(uintptr(fd), "terminal")}
	t.Cleanup(func() { term.Close() })
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	tty := os.NewFile(slave, "tty")
	defer tty.Close()
	sh := exec.Command("/bin/sh", "-i")
	sh.Env = append(os.Environ(), append(env, "PS1=% ", "ENV=")...)
	sh.Stdin, sh.Stdout, sh.Stderr = tty, tty, tty
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, sh.Start())
	t.Cleanup(func() { sh.Process.Kill(); sh.Wait() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := term.Read(b)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.said.Write(b[:n])
			term.mu.Unlock()
		}
	}()
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.said.String()
}

func (term *terminal) typeIn(t *testing.T, s string) {
	t.Helper()
	if _, err := term.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// state is the state letter of a process.
func state(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) == 0 {
		return ""
	}
	return f[0]
}

func TestTerminalTreatsTheSandboxAsOneJob(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("pid-namespace=%v", own), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "report")
			cfg := unlinked()
			cfg.PIDNamespace = own
			cfg.Command = []string{"sh", "-c", "trap 'echo USR1; exit 7' USR1;" + reporter(path)}
			cfg.Command[2] = strings.Replace(cfg.Command[2], "trap 'echo USR1 >> "+path+"' USR1\n", "", 1)
			spec, err := json.Marshal(cfg)
			must(t, err)
			exe, err := os.Executable()
			must(t, err)
			term := openTerminal(t, parentEnv+"="+string(spec))
			term.typeIn(t, exe+"; echo status=$?\n")
			until(t, "the command is ready", func() bool { return report(path) == "ready" })
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(term.text())
				}
			})
			var p parent
			until(t, "its parent says so", func() bool {
				_, said, _ := strings.Cut(term.text(), "init ")
				n, _ := fmt.Sscanf(said, "%d command %d\r\n", &p.init, &p.command)
				return n == 2 && strings.Contains(said, "\n")
			})
			sbxnet := parentOf(p.init)
			t.Cleanup(func() { // the hangup that ends other jobs is trapped here
				if parentOf(p.init) == sbxnet {
					syscall.Kill(sbxnet, syscall.SIGKILL)
				}
			})

			term.typeIn(t, "\x03")
			until(t, "Ctrl-C arrives", func() bool { return report(path) == "ready INT" })
			term.typeIn(t, "\x1c")
			until(t, "Ctrl-\\ arrives", func() bool { return report(path) == "ready INT QUIT" })
			must(t, unix.IoctlSetWinsize(int(term.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}))
			until(t, "a new window size arrives", func() bool { return report(path) == "ready INT QUIT WINCH" })
			time.Sleep(300 * time.Millisecond) // for copies, which there should not be

			term.typeIn(t, "\x1a")
			stopped := []int{sbxnet, p.command}
			if !own { // the kernel spares the first process of a PID namespace
				stopped = append(stopped, p.init)
			}
			for _, pid := range stopped {
				until(t, "Ctrl-Z stops all", func() bool {
					// A shell that was just starting a program waits in vfork, in
					// state D, for the stopped child to get as far as exec.
					s := state(pid)
					return s == "T" || pid == p.command && s == "D"
				})
			}
			term.typeIn(t, "fg; echo status=$?\n")
			until(t, "fg continues all", func() bool {
				return state(sbxnet) == "S" && state(p.init) == "S" && strings.HasSuffix(report(path), " CONT")
			})
			time.Sleep(300 * time.Millisecond)
			if got, want := report(path), "ready INT QUIT WINCH CONT"; got != want {
				t.Errorf("the command got %q, want %q", got, want)
			}
			must(t, syscall.Kill(sbxnet, syscall.SIGUSR1))
			until(t, "the shell has the status", func() bool { return strings.Contains(term.text(), "status=7") })
		})
	}
}
