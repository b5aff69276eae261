package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sbxnet/tapdev"
	"sbxnet/tapdev/linktest"
)

func TestMain(m *testing.M) {
	Init()
	if spec := os.Getenv(parentEnv); spec != "" {
		os.Exit(runParent(spec))
	}
	if spec := os.Getenv(joinEnv); spec != "" {
		os.Exit(runJoinParent(spec))
	}
	if os.Getenv(statusEnv) != "" {
		b, _ := os.ReadFile("/proc/self/status")
		os.Stdout.Write(b)
		os.Exit(0)
	}
	if spec := os.Getenv(attachEnv); spec != "" {
		os.Exit(runAttachParent(spec))
	}
	if os.Getenv(inheritedEnv) != "" {
		sayInherited()
		os.Exit(0)
	}
	// A shell starts its background jobs with SIGINT ignored, and nohup SIGHUP;
	// what the tests start is to begin with neither.
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	// The race detector makes every process sleep a second before it exits.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	os.Exit(m.Run())
}

// parentEnv holds the Config of a sandbox for a process that does what sbxnet
// run does, so that a test can kill it.
const parentEnv = "SBXNET_TEST_PARENT"

func runParent(spec string) int {
	os.Unsetenv(parentEnv)
	var cfg Config
	if err := json.Unmarshal([]byte(spec), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	sb, err := Start(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	defer sb.Close()
	defer sb.ForwardSignals()()
	if later := os.Getenv(laterEnv); later != "" {
		if err := sb.Remove(later); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return StatusFailed
		}
	}
	if err := sb.Exec(); err != nil {
		var e *ExecError
		if errors.As(err, &e) {
			return e.Status
		}
		fmt.Fprintln(os.Stderr, err)
		return StatusFailed
	}
	fmt.Fprintf(os.Stderr, "init %d command %d\n", sb.PID(), sb.CommandPID())
	status, err := sb.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// parent is a process that runs a sandbox.
type parent struct {
	*exec.Cmd
	init, command int
	stderr        io.Reader
}

// startParent starts one and waits until the command runs.
func startParent(t *testing.T, cfg Config, change func(*exec.Cmd)) *parent {
	t.Helper()
	spec, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), parentEnv+"="+string(spec))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = w
	if change != nil {
		change(p.Cmd)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { p.Process.Kill(); p.Wait(); r.Close() })
	p.stderr = r
	said := ""
	b := make([]byte, 4096)
	for p.init == 0 {
		n, err := r.Read(b)
		if err != nil {
			t.Fatalf("the sandbox did not start: %s", said)
		}
		said += string(b[:n])
		for line := range strings.Lines(said) {
			if strings.HasSuffix(line, "\n") { // all of it is there
				fmt.Sscanf(line, "init %d command %d", &p.init, &p.command)
			}
		}
	}
	return p
}

// started starts a sandbox whose command prints to the string returned by out.
func started(t *testing.T, cfg Config) *Sandbox {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	sb, err := Start(cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := sb.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return sb
}

// shell runs a script in a sandbox and returns its output and exit status.
// Standard output is a pipe at descriptor 1 of this process's children, so it
// is swapped for the time of Start.
func shell(t *testing.T, cfg Config, script string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	cfg.Command = []string{"sh", "-c", script}
	sb, err := func() (*Sandbox, error) { defer func() { os.Stdout = stdout; w.Close() }(); return Start(cfg) }()
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	defer sb.Close()
	if err := sb.Exec(); err != nil {
		t.Fatalf("Exec: %v", err)
	}
	status, err := sb.Wait()
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), status
}

// linked is a sandbox with a link of whatever kind this machine allows, or that
// was chosen for the tests.
func linked() Config {
	c := Config{
		NetRaw: true,
		Link: tapdev.Options{
			Kind: tapdev.Auto, Name: "tap0", MTU: 1500, Queues: 1,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			GSO:          true, SoftwareGSO: true, GRO: true, TXChecksum: true, RXChecksum: true, QDisc: "none",
		},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
	}
	linktest.Chosen().Apply(&c.Link)
	return c
}

// unlinked is a sandbox that is quick to start.
func unlinked() Config { return Config{Network: NetworkNone, NetRaw: true} }

// needRanges skips a test that needs the full map, except in CI.
func needRanges(t *testing.T) {
	t.Helper()
	if _, err := fullMaps(); err != nil {
		skip(t, "no full ID map: %v", err)
	}
}

func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			t.Fatalf("process %d is still there:\n%s", pid, b)
		}
	}
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[0] != "Z" && f[0] != "X"
}

// marker is a sleep that no other process sleeps, to find its processes by.
func marker() string {
	return fmt.Sprintf("%d.%09d", 1000+os.Getpid(), time.Now().Nanosecond())
}

// processesWith lists the processes with s in an argument.
func processesWith(t *testing.T, s string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline"); strings.Contains(string(b), s) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
