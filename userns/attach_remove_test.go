package userns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// attachEnv holds an attachSpec for a process that attaches, so that a test can
// kill it.
const attachEnv = "SBXNET_TEST_ATTACH"

type attachSpec struct {
	PID                   int
	Remove, RemoveIfEmpty []string
	// Later is written once the link is there.
	Later string
}

func runAttachParent(text string) int {
	os.Unsetenv(attachEnv)
	var spec attachSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	cfg := attachTo(theirs{spec.PID})
	cfg.Remove, cfg.RemoveIfEmpty = spec.Remove, spec.RemoveIfEmpty
	a, err := Attach(cfg)
	if err == nil && spec.Later != "" {
		if err = os.WriteFile(spec.Later, []byte("first"), 0o600); err == nil {
			err = a.Remove(spec.Later)
		}
		if err == nil { // its answer to the next says that it has done that
			_, err = a.Listen([]Socket{{UDP: true, Addr: netip.MustParseAddrPort("127.0.0.1:0")}})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	_, files := a.Link()
	fmt.Println(a.PID())
	<-a.Done()
	closeAll(files)
	a.Close()
	return 0
}

type attachParent struct {
	*exec.Cmd
	inside int // the process in the namespace
}

// startAttachParent starts one and waits until it has attached.
func startAttachParent(t *testing.T, spec attachSpec) *attachParent {
	t.Helper()
	text, err := json.Marshal(spec)
	must(t, err)
	p := &attachParent{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), attachEnv+"="+string(text))
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	must(t, err)
	must(t, p.Start())
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	if _, err := fmt.Fscan(out, &p.inside); err != nil {
		t.Fatalf("it did not attach: %v", err)
	}
	return p
}

// kill kills it, and waits for the process in the namespace.
func (p *attachParent) kill(t *testing.T) {
	t.Helper()
	must(t, p.Process.Kill())
	p.Wait()
	gone(t, p.inside)
}

func TestProcessInsideRemovesWhatADeadSbxnetLeft(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	for _, stopped := range []bool{false, true} {
		dir, outside := removable(t)
		outer := filepath.Dir(dir)
		later := filepath.Join(t.TempDir(), "pid")
		p := startAttachParent(t, attachSpec{PID: ns.pid, Remove: []string{dir}, RemoveIfEmpty: []string{outer}, Later: later})
		if stopped {
			must(t, syscall.Kill(p.inside, syscall.SIGSTOP))
		}
		p.kill(t)
		if exists(dir) || exists(later) {
			t.Errorf("stopped=%v: left: %v, what came later: %v", stopped, exists(dir), exists(later))
		}
		if !exists(filepath.Join(outside, "precious")) {
			t.Errorf("stopped=%v: a file outside was removed", stopped)
		}
		// Now nothing else is in the outer one.
		must(t, os.RemoveAll(outside))
		startAttachParent(t, attachSpec{PID: ns.pid, RemoveIfEmpty: []string{outer}}).kill(t)
		if exists(outer) {
			t.Errorf("stopped=%v: the empty directory is left", stopped)
		}
	}
}

// Who writes the file anew after the kill keeps it.
func TestFileThatIsWrittenAnewStays(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	later := filepath.Join(t.TempDir(), "pid")
	p := startAttachParent(t, attachSpec{PID: ns.pid, Later: later})
	must(t, syscall.Kill(p.inside, syscall.SIGSTOP))
	st, err := os.Stat(later)
	must(t, err)
	until(t, "the clock of the file system moves on", func() bool {
		must(t, os.WriteFile(later, []byte("second"), 0o600))
		now, err := os.Stat(later)
		must(t, err)
		return now.ModTime() != st.ModTime()
	})
	p.kill(t)
	if b, err := os.ReadFile(later); string(b) != "second" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAttachmentThatIsClosedLeavesRemovalToItsOwner(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	dir, _ := removable(t)
	must(t, os.Remove(filepath.Join(dir, "lock"))) // nobody's lock is to hide it
	cfg := attachTo(ns)
	cfg.Remove = []string{dir}
	a := attached(t, cfg)
	pid := a.PID()
	must(t, a.Remove(filepath.Join(dir, "file")))
	must(t, a.Close())
	gone(t, pid)
	// The same if there is no attachment after all.
	cfg.Link.Name = "lo"
	if a, err := Attach(cfg); err == nil {
		a.Close()
		t.Error("attached to lo")
	}
	if !exists(filepath.Join(dir, "file")) || !exists(filepath.Join(dir, "a", "b", "file")) {
		t.Error("removed")
	}
	if err := a.Remove(dir); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("after Close: %v", err)
	}
}

func TestAttachRefusesToRemoveWhatCouldOnlyBeAMistake(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	for _, p := range []string{"", "relative", "/", "/tmp/.."} {
		for _, cfg := range []AttachConfig{{Remove: []string{p}}, {RemoveIfEmpty: []string{p}}} {
			cfg.PID, cfg.Link = ns.pid, linked().Link
			if _, err := Attach(cfg); err == nil || !strings.Contains(err.Error(), "absolute path") {
				t.Errorf("%q: %v", p, err)
			}
		}
		if err := a.Remove(p); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// mountsEnv is set in a mount namespace of the test's own.
const mountsEnv = "SBXNET_TEST_MOUNTS"

// A sandbox's mounts are in the way of what is removed; those of the host, where
// a process that attaches is, are not ours to take off.
func TestOnlyMountsOfASandboxAreTakenOff(t *testing.T) {
	if os.Getenv(mountsEnv) == "" {
		cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		exe, err := os.Executable()
		must(t, err)
		cmd.Args[4] = exe
		cmd.Env = append(os.Environ(), mountsEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, own := range []bool{true, false} {
		dir, outside := removable(t)
		on := filepath.Join(dir, "mounted")
		must(t, syscall.Mount(outside, on, "", syscall.MS_BIND, ""))
		l := removals{ownMounts: own}
		l.open([]string{dir}, nil, t.Logf)
		l.remove()
		if exists(on) == own || exists(filepath.Join(dir, "file")) {
			t.Errorf("own=%v: what was mounted on: %v", own, exists(on))
		}
		if !exists(filepath.Join(outside, "precious")) {
			t.Errorf("own=%v: what was mounted is gone", own)
		}
		if !own {
			must(t, syscall.Unmount(on, 0))
		}
	}
}
