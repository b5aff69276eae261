package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitStatusIsTheCommands(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":        0,
		"exit 7":        7,
		"kill -TERM $$": 128 + 15,
		"kill -KILL $$": 128 + 9,
	} {
		if _, got := shell(t, unlinked(), script); got != want {
			t.Errorf("%q: status %d, want %d", script, got, want)
		}
	}
}

func TestCommandThatCannotStartHasAStatusAndAReason(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		command string
		status  int
		says    string
	}{
		{"sbxnet-no-such-command", 127, "not found in PATH"},
		{filepath.Join(dir, "missing"), 127, "no such file"},
		{write("plain", "text", 0o644), 126, "chmod +x"},
		{dir, 126, "is a directory"},
		{write("binary", "not a program", 0o755), 126, "neither a program"},
		{write("script", "#!/no/such/interpreter\n", 0o755), 127, "interpreter"},
	} {
		cfg := unlinked()
		cfg.Command = []string{c.command}
		var e *ExecError
		if err := startAndExec(t, cfg); !errors.As(err, &e) {
			t.Errorf("%s: error %v, want an ExecError", c.command, err)
			continue
		}
		if e.Status != c.status || !strings.Contains(e.Error(), c.says) || !strings.HasPrefix(e.Error(), c.command) {
			t.Errorf("%s: status %d, %q; want %d and %q", c.command, e.Status, e, c.status, c.says)
		}
	}
}

// What plainly does not exist is found out before there is a sandbox; with a PATH
// that is not the caller's, inside.
func TestMissingCommandStartsNothing(t *testing.T) {
	cfg := unlinked()
	cfg.Command = []string{"sbxnet-no-such-command"}
	var e *ExecError
	if _, err := Start(cfg); !errors.As(err, &e) || e.Status != StatusNotFound {
		t.Errorf("Start: %v, want an ExecError", err)
	}
	cfg.Env = []string{"PATH=/nowhere"}
	if err := started(t, cfg).Exec(); !errors.As(err, &e) || e.Status != StatusNotFound {
		t.Errorf("Exec: %v, want an ExecError", err)
	}
}

// startAndExec returns the first error of the two.
func startAndExec(t *testing.T, cfg Config) error {
	t.Helper()
	sb, err := Start(cfg)
	if err != nil {
		return err
	}
	t.Cleanup(func() { sb.Close() })
	return sb.Exec()
}

func TestNoCommandMeansTheShell(t *testing.T) {
	if got := defaultShell([]string{"SHELL=/bin/a", "SHELL=/bin/b"}); got != "/bin/b" {
		t.Errorf("shell %s, want the last $SHELL", got)
	}
	if got := defaultShell([]string{"SHELL="}); got != "/bin/sh" {
		t.Errorf("shell %s, want /bin/sh", got)
	}
}

func TestBothMapsMakeTheCallerRoot(t *testing.T) {
	for _, m := range []UserMap{MapSingle, MapAuto} {
		cfg := unlinked()
		cfg.UserMap = m
		out, _ := shell(t, cfg, "id -u; id -g")
		if out != "0\n0" {
			t.Errorf("%s: IDs %q, want 0 and 0", m, out)
		}
	}
}

func TestSingleMapHasOneID(t *testing.T) {
	cfg := unlinked()
	cfg.UserMap = MapSingle
	out, _ := shell(t, cfg, "cat /proc/self/uid_map /proc/self/gid_map")
	got := strings.Fields(out)
	want := []string{"0", fmt.Sprint(os.Geteuid()), "1", "0", fmt.Sprint(os.Getegid()), "1"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("maps %q, want %q", got, want)
	}
}

func TestFullMapHasTheSubordinateIDs(t *testing.T) {
	needRanges(t)
	cfg := unlinked()
	cfg.UserMap = MapFull
	dir := t.TempDir()
	out, status := shell(t, cfg, "cd "+dir+" && touch f && chown 12:34 f && stat -c %u:%g f && cat /proc/self/uid_map; rm f")
	if status != 0 || !strings.HasPrefix(out, "12:34\n") {
		t.Errorf("status %d, output %q: a file could not be given to user 12 and group 34", status, out)
	}
}

func TestHostnameIsTheSandboxsOwn(t *testing.T) {
	before, _ := os.Hostname()
	cfg := unlinked()
	cfg.Hostname = "box.example"
	if out, _ := shell(t, cfg, "cat /proc/sys/kernel/hostname"); out != "box.example" {
		t.Errorf("hostname inside is %q", out)
	}
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the host is now called %q", after)
	}
}

func TestWorkingDirectoryAndEnvironmentArrive(t *testing.T) {
	cfg := unlinked()
	cfg.Dir = t.TempDir()
	cfg.Env = []string{"PATH=" + os.Getenv("PATH"), "ODD=\xff\xfe", "LIST=a b"}
	out, _ := shell(t, cfg, `pwd; printf '%s' "$ODD" | od -An -tx1; echo "$LIST"`)
	if want := cfg.Dir + "\n ff fe\na b"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

func TestBadConfigStartsNothing(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"user map":  func(c *Config) { c.UserMap = "some" },
		"network":   func(c *Config) { c.Network = "some" },
		"hostname":  func(c *Config) { c.Hostname = strings.Repeat("x", 65) },
		"link":      func(c *Config) { c.Network = NetworkSandbox },
		"directory": func(c *Config) { c.Dir = "/no/such" },
	} {
		cfg := unlinked()
		change(&cfg)
		if sb, err := Start(cfg); err == nil {
			sb.Close()
			t.Errorf("bad %s was accepted", name)
		}
	}
}

func TestNothingButStandardStreamsReachesTheCommand(t *testing.T) {
	// What our caller left open would reach the command without us.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	out, _ := shell(t, linked(), "ls /proc/$$/fd")
	if got := strings.Join(strings.Fields(out), " "); got != "0 1 2" && got != "0 1 2 10" { // dash keeps a copy at 10
		t.Errorf("descriptors of the command: %s", got)
	}
}

func TestPIDNamespaceHasItsOwnProc(t *testing.T) {
	cfg := unlinked()
	cfg.PIDNamespace = true
	out, _ := shell(t, cfg, `cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l; echo $$`)
	f := strings.Fields(out)
	if len(f) != 3 || f[0] != initName || len(f[1]) > 1 || len(f[2]) > 2 {
		t.Errorf("first process, number of processes and own ID are %q", f)
	}
}

func TestCommandPIDIsOurViewOfIt(t *testing.T) {
	for _, own := range []bool{false, true} {
		cfg := unlinked()
		cfg.PIDNamespace = own
		cfg.Command = []string{"sleep", "1000"}
		sb := started(t, cfg)
		if err := sb.Exec(); err != nil {
			t.Fatal(err)
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", sb.CommandPID()))
		if err != nil || string(comm) != "sleep\n" {
			t.Errorf("PID namespace %v: process %d is %q (%v), want sleep", own, sb.CommandPID(), comm, err)
		}
		sb.Close()
		gone(t, sb.CommandPID())
	}
}
