package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inspected is the part of `sbxnet inspect` that tests look at.
type inspected struct {
	Name, Network    string
	PID, ChildPID    int
	IPv4             *struct{ Address, Gateway, DNS string }
	Link             *struct{ Name string }
	Ports            []struct{ ID int }
	StateDir, Target string
	Command          []string
	CommandPID       int
}

// inspectUp waits until a sandbox of this name is there, and says what it is.
func inspectUp(t *testing.T, name string) inspected {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); command(t, "inspect", name).Run() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			break
		}
	}
	r := runSbxnet(t, "inspect", name)
	if r.status != 0 {
		t.Fatalf("inspect %s: %+v", name, r)
	}
	var i inspected
	if err := json.Unmarshal([]byte(r.stdout), &i); err != nil {
		t.Fatalf("inspect: %v: %s", err, r.stdout)
	}
	return i
}

var listeningColumn = regexp.MustCompile(`(\d+) +\S+ +(127\.0\.0\.1:\d+)->80/tcp\n`)

// A port is added to a sandbox that runs, answers, is removed, and is free.
func TestPortsChangeWhileTheSandboxRuns(t *testing.T) {
	start(t, "run", "--name", "web", "--", hello)
	inspectUp(t, "web")
	for range 3 {
		r := runSbxnet(t, "port", "add", "web", "127.0.0.1::80")
		m := listeningColumn.FindStringSubmatch(r.stdout)
		if r.status != 0 || m == nil {
			t.Fatalf("%+v", r)
		}
		get(t, "http://"+m[2])
		if again := runSbxnet(t, "port", "add", "web", "127.0.0.1::80"); again.stdout != r.stdout {
			t.Errorf("again: %+v, want %+v", again, r)
		}
		if r := runSbxnet(t, "port", "rm", "web", m[1]); r.status != 0 {
			t.Fatalf("%+v", r)
		}
		l, err := net.Listen("tcp", m[2])
		if err != nil {
			t.Fatalf("not free after rm: %v", err)
		}
		l.Close()
	}
	// A long path, of a temporary directory, is cut off.
	if r := runSbxnet(t, "ls"); !regexp.MustCompile(`(?m)^web +\d+ +sandbox +\d+s +- +/\S*(/hello|…)$`).MatchString(r.stdout) {
		t.Errorf("%+v", r)
	}
	if r := runSbxnet(t, "stats", "web"); r.status != 0 || !strings.Contains(r.stdout, "3 in so far") {
		t.Errorf("%+v", r)
	}
}

func TestExecRunsInTheSandbox(t *testing.T) {
	p := start(t, "run", "--name", "box", "--hostname", "inside", "--", "sleep", "100")
	i := inspectUp(t, "box")
	r := runSbxnet(t, "exec", "box", "--", "sh", "-c", "hostname; cat /proc/net/dev | grep -c tap0; echo $ROOTLESSKIT_STATE_DIR; echo err >&2; exit 7")
	if want := "inside\n1\n" + i.StateDir + "\n"; r.status != 7 || r.stdout != want || r.stderr != "err\n" {
		t.Errorf("%+v, want stdout %q", r, want)
	}
	if r := runSbxnet(t, "exec", "box", "no-such-program"); r.status != 127 || !oneLineNaming(r.stderr, "no-such-program") {
		t.Errorf("%+v", r)
	}
	if r := runSbxnet(t, "exec", "box", "/etc"); r.status != 126 || !oneLineNaming(r.stderr, "/etc") {
		t.Errorf("%+v", r)
	}
	// It ends with the sandbox.
	e := start(t, "exec", "box", "--", "sh", "-c", "echo on; sleep 100")
	e.waitOutput("on", 20*time.Second)
	if r := runSbxnet(t, "stop", "box"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if r := p.wait(20 * time.Second); r.status != 128+15 {
		t.Errorf("run: %+v", r)
	}
	if r := e.wait(20 * time.Second); r.status == 0 {
		t.Errorf("exec: %+v", r)
	}
}

func TestStopEndsWhatDoesNotWantTo(t *testing.T) {
	p := start(t, "run", "-q", "--name", "deaf", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
	p.waitOutput("up", 20*time.Second)
	if r := runSbxnet(t, "stop", "-t", "1", "deaf"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if r := p.wait(20 * time.Second); r.status != 128+9 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

// Without a network there is a name and an API all the same; only ports are
// refused, and why is said.
func TestSandboxesWithoutANetworkHaveAName(t *testing.T) {
	for _, mode := range []string{"none", "host"} {
		p := start(t, "run", "--network", mode, "--name", mode, "--", "sleep", "100")
		if i := inspectUp(t, mode); i.Network != mode || i.Link != nil || len(i.Ports) != 0 {
			t.Errorf("%+v", i)
		}
		r := runSbxnet(t, "port", "add", mode, "8080:80")
		if want := fmt.Sprintf("sbxnet: %s: started with --network %[1]s, which has no link: no port can lead in; start it with --network sandbox\n", mode); r.status != 125 || r.stderr != want {
			t.Errorf("%+v, want %q", r, want)
		}
		if r := runSbxnet(t, "stop", mode); r.status != 0 {
			t.Errorf("%+v", r)
		}
		p.wait(20 * time.Second)
	}
}

// Twenty start at the same time, get names of their own, and end.
func TestTwentySandboxesAtOnce(t *testing.T) {
	var all []*process
	for range 20 {
		all = append(all, start(t, "run", "-p", "80", "--", "sh", "-c", "echo up; sleep 100"))
	}
	for _, p := range all {
		p.waitOutput("up", 60*time.Second)
	}
	names := strings.Fields(runSbxnet(t, "ls", "-q").stdout)
	if len(names) != len(all) {
		t.Errorf("%d of %d are listed: %v", len(names), len(all), names)
	}
	if r := runSbxnet(t, append([]string{"stop"}, names...)...); r.status != 0 {
		t.Errorf("%+v", r)
	}
	for _, p := range all {
		if r := p.wait(20 * time.Second); r.status != 128+15 {
			t.Errorf("%+v", r)
		}
	}
}

// Those that are killed at the same time leave nothing together that one alone
// would have removed: not the directory that theirs are in. The others keep it.
func TestSandboxesKilledAtOnceLeaveNothing(t *testing.T) {
	last := start(t, "run", "--name", "last", "--", "sh", "-c", "echo up; sleep 100")
	last.waitOutput("up", 60*time.Second)
	var all []*process
	for range 8 {
		all = append(all, start(t, "run", "--", "sh", "-c", "echo up; sleep 100"))
	}
	for _, p := range all {
		p.waitOutput("up", 60*time.Second)
	}
	for _, p := range all {
		p.cmd.Process.Kill()
	}
	for _, p := range all {
		p.wait(20 * time.Second)
	}
	last.until("state of the last alone", 20*time.Second, func() bool {
		left, _ := filepath.Glob(filepath.Join(sceneOf(t).runtime, "sbxnet", "*"))
		return len(left) == 1 && filepath.Base(left[0]) == "last"
	})
	inspectUp(t, "last")
	last.cmd.Process.Kill()
	last.wait(20 * time.Second)
} // the scene's check is the rest of the test

// A directory that somebody else could have made is not used, and the command
// does not run.
func TestHostileStateDirectoryIsRefused(t *testing.T) {
	elsewhere := t.TempDir()
	runtime := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(runtime, "sbxnet")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "--", "echo", "ran"}, {"run", "--name", "x", "--", "echo", "ran"}, {"ls"}, {"stop", "x"}} {
		cmd := command(t, args...)
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runtime)
		r := startCommand(t, cmd).wait(20 * time.Second)
		if r.status != 125 || r.stdout != "" || !oneLineNaming(r.stderr, filepath.Join(runtime, "sbxnet")) {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("where the symbolic link leads: %v, %v", entries, err)
	}
}

// bareNamespace starts a process in a user and network namespace of its own, and
// runs script there first.
func bareNamespace(t *testing.T, script string) *os.Process {
	t.Helper()
	need(t, "unshare", "ip")
	ready, done, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command("unshare", "-rn", "sh", "-c", script+"; echo; exec sleep 100 >/dev/null")
	cmd.Stdout, cmd.Stderr = done, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	done.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the namespace is not set up: %v", err)
	}
	return cmd.Process
}

func TestAttachGivesANamespaceItsNetwork(t *testing.T) {
	needTAP(t)
	target := bareNamespace(t, ":")
	p := start(t, "attach", "--name", "far", "-p", "127.0.0.1::80", fmt.Sprint(target.Pid))
	port := p.publishedPort("80", "tcp")
	i := inspectUp(t, "far")
	if i.Network != "attached" || i.Target != fmt.Sprint(target.Pid) || i.ChildPID != target.Pid || i.IPv4 == nil || len(i.Ports) != 1 {
		t.Errorf("%+v", i)
	}
	start(t, "exec", "far", "--", hello).waitOutput("listening", 20*time.Second)
	get(t, "http://127.0.0.1:"+port)
	target.Kill()
	if r := p.wait(10 * time.Second); r.status != 0 {
		t.Errorf("after the namespace has gone: %+v", r)
	}
}

// Killed, it leaves its name and its port to the next one, and no file, even with
// nothing else to come.
func TestAttachThatIsKilledLeavesNothing(t *testing.T) {
	needTAP(t)
	target := bareNamespace(t, ":")
	root := filepath.Join(sceneOf(t).runtime, "sbxnet")
	published := fmt.Sprintf("127.0.0.1:%d:80", freePort(t))
	for _, stop := range []bool{false, true} {
		p := start(t, "attach", "--name", "far", "-p", published, fmt.Sprint(target.Pid))
		i := inspectUp(t, "far")
		if i.StateDir != filepath.Join(root, "far") {
			t.Errorf("%+v", i)
		}
		if stop { // all of the job, as with Ctrl-Z
			for _, pid := range sceneOf(t).processes() {
				syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
		p.cmd.Process.Kill()
		if r := p.wait(20 * time.Second); r.status != 128+9 {
			t.Errorf("status %d", r.status)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			_, err := os.Lstat(root)
			if left := sceneOf(t).processes(); os.IsNotExist(err) && len(left) == 0 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("stopped=%v: state directory: %v, processes %v", stop, err, left)
			}
		}
	}
}

// What others configured is what it answers as; --configure=false changes nothing.
func TestAttachLearnsWhatIsConfigured(t *testing.T) {
	needTAP(t)
	target := bareNamespace(t, "ip tuntap add tap0 mode tap && ip addr add 192.168.99.9/24 dev tap0 && ip link set tap0 up && ip route add default via 192.168.99.1")
	p := start(t, "attach", "--link", "tap", "--configure=false", "--name", "far", "-p", "127.0.0.1::80", fmt.Sprint(target.Pid))
	port := p.publishedPort("80", "tcp")
	i := inspectUp(t, "far")
	if i.IPv4 == nil || i.IPv4.Address != "192.168.99.9/24" || i.IPv4.Gateway != "192.168.99.1" || i.IPv4.DNS != "192.168.99.3" {
		t.Errorf("%+v", i.IPv4)
	}
	start(t, "exec", "far", "--", hello).waitOutput("listening", 20*time.Second)
	get(t, "http://127.0.0.1:"+port)
	if r := runSbxnet(t, "stop", "far"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if r := p.wait(10 * time.Second); r.status != 0 {
		t.Errorf("%+v", r)
	}
}

func TestAttachRefusesWhatItCannotServe(t *testing.T) {
	needTAP(t)
	two := bareNamespace(t, "ip link add d0 type veth peer d1 && ip addr add 10.1.0.1/24 dev d0 && ip addr add 10.2.0.1/24 dev d1 && ip link set d0 up && ip link set d1 up &&"+
		" ip route add default via 10.1.0.2 && ip route add default via 10.2.0.2 metric 9")
	for target, want := range map[string]string{
		fmt.Sprint(os.Getpid()): "own", "/proc/self/ns/net": "own", fmt.Sprint(two.Pid): "default route",
		"4194304": "no such process", "/etc/passwd": "not a namespace", "/nonexistent": "/nonexistent",
	} {
		r := runSbxnet(t, "attach", target)
		if r.status != 125 || !oneLineNaming(r.stderr, want) {
			t.Errorf("attach %s: %+v, want %q in it", target, r, want)
		}
	}
}
