package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd"
	"sbxnet/portfwd/spec"
)

// keeper is a network.Publisher that keeps sockets open.
type keeper map[spec.Key]spec.Bound

func (k keeper) Publish(bound []spec.Bound) error {
	for _, b := range bound {
		k[b.Key()] = b
	}
	return nil
}

func (k keeper) Unpublish(bound []spec.Bound) error {
	for _, b := range bound {
		held := k[b.Key()]
		held.Close()
		delete(k, b.Key())
	}
	return nil
}

// runningSandbox is what other processes see of a sandbox called name, without
// one. It is gone when stop was asked for, or the test has ended.
func runningSandbox(t *testing.T, name string) *network.Ports {
	t.Helper()
	dir, err := state.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	kept := keeper{}
	ports := network.NewPorts(kept, nil)
	var server *state.Server
	end := make(chan time.Duration, 1)
	server, err = state.Serve(state.Sandbox{
		Dir: dir, ChildPID: os.Getpid(), Ports: ports, PortDriver: state.PortInfo(ports),
		Inspect: func() any {
			i := &inspection{Name: name, PID: os.Getpid(), Network: "sandbox", Command: []string{"./server", "--port\n80"},
				Started: time.Now().Add(-90 * time.Second), Ports: []state.Port{}}
			for _, e := range ports.List() {
				i.Ports = append(i.Ports, state.PortOf(e))
			}
			return i
		},
		Stats: func() any {
			return statsOf(portfwd.Stats{TCP: portfwd.TCPStats{Open: 3, ToHost: 1 << 62}, UDP: portfwd.UDPStats{DatagramsToHost: 7}})
		},
		Stop: func(grace time.Duration) { end <- grace },
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		<-end
		server.Close()
		dir.Close()
	}()
	t.Cleanup(func() {
		select {
		case end <- 0:
		default:
		}
		<-gone
		for _, b := range kept {
			b.Close()
		}
	})
	return ports
}

// inRuntimeDir gives a test a runtime directory of its own.
func inRuntimeDir(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
}

func TestLsShowsWhatRuns(t *testing.T) {
	inRuntimeDir(t)
	if got := typeIn(t, "ls"); got.status != 0 || got.stdout != "NAME  PID  NETWORK  UP  PORTS  COMMAND\n" {
		t.Errorf("none: %+v", got)
	}
	if got := typeIn(t, "ls", "--json"); got.status != 0 || got.stdout != "[]\n" {
		t.Errorf("none: %+v", got)
	}
	ports := runningSandbox(t, "web")
	runningSandbox(t, "db")
	specs, err := spec.ParseAll([]string{"127.0.0.1::80"})
	if err != nil {
		t.Fatal(err)
	}
	added, err := ports.Add(specs)
	if err != nil {
		t.Fatal(err)
	}
	got := typeIn(t, "ls")
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "db ") || !strings.HasPrefix(lines[2], "web ") {
		t.Fatalf("%+v", got)
	}
	want := fmt.Sprintf("web   %d  sandbox  1m  127.0.0.1:%d->80/tcp  ./server --port 80", os.Getpid(), added[0].Bound[0].Host.Port())
	if lines[2] != want {
		t.Errorf("%q, want %q", lines[2], want)
	}
	if got := typeIn(t, "ls", "-q"); got.stdout != "db\nweb\n" {
		t.Errorf("%+v", got)
	}
	var list []inspection
	if err := json.Unmarshal([]byte(typeIn(t, "ls", "--json").stdout), &list); err != nil || len(list) != 2 || list[1].Name != "web" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestPortCommands(t *testing.T) {
	inRuntimeDir(t)
	ports := runningSandbox(t, "web")
	add := typeIn(t, "port", "add", "web", "127.0.0.1::80", "127.0.0.1::53/udp")
	list := ports.List()
	if add.status != 0 || len(list) != 2 {
		t.Fatalf("%+v, %+v", add, list)
	}
	first := list[0].Bound[0].Host
	for _, want := range []string{"ID  SPEC              LISTENING\n", fmt.Sprintf("1   127.0.0.1:80      %s->80/tcp\n", first), "2   127.0.0.1:53/udp  "} {
		if !strings.Contains(add.stdout, want) {
			t.Errorf("no %q in %q", want, add.stdout)
		}
	}
	if again := typeIn(t, "port", "add", "web", "127.0.0.1::80", "127.0.0.1::53/udp"); again.stdout != add.stdout || len(ports.List()) != 2 {
		t.Errorf("again: %+v", again)
	}
	if ls := typeIn(t, "port", "ls", "web"); ls.stdout != add.stdout {
		t.Errorf("%+v", ls)
	}
	// A state directory's path is as good as a name.
	if rm := typeIn(t, "port", "rm", filepath.Join(state.Root(), "web"), "1", "127.0.0.1::53/udp"); rm.status != 0 || rm.stdout != "" || len(ports.List()) != 0 {
		t.Errorf("%+v, %+v", rm, ports.List())
	}
	l, err := net.Listen("tcp", first.String())
	if err != nil {
		t.Errorf("not free: %v", err)
	} else {
		l.Close()
	}
}

func TestInspectAndStats(t *testing.T) {
	inRuntimeDir(t)
	runningSandbox(t, "web")
	var i inspection
	if got := typeIn(t, "inspect", "web"); json.Unmarshal([]byte(got.stdout), &i) != nil || i.Name != "web" || i.PID != os.Getpid() {
		t.Errorf("%+v", got)
	}
	got := typeIn(t, "stats", "web")
	if got.status != 0 || !strings.Contains(got.stdout, "TCP   3 open;") || !strings.Contains(got.stdout, "4.6 EB to the host's side") || !strings.Contains(got.stdout, "7 datagrams") {
		t.Errorf("%+v", got)
	}
	if got := typeIn(t, "stats", "--json", "web"); !strings.Contains(got.stdout, `"toHost": 4611686018427387904`) {
		t.Errorf("a large counter is not exact: %+v", got)
	}
}

func TestStopReturnsWhenTheSandboxIsGone(t *testing.T) {
	inRuntimeDir(t)
	runningSandbox(t, "web")
	if got := typeIn(t, "stop", "-t", "5", "web"); got.status != 0 || got.stdout+got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(filepath.Join(state.Root(), "web")); !os.IsNotExist(err) {
		t.Errorf("its directory: %v", err)
	}
	if got := typeIn(t, "stop", "web"); got.status != exitFailure || got.stderr != "sbxnet: web: no such sandbox is running; sbxnet ls lists those that are\n" {
		t.Errorf("%+v", got)
	}
}

func TestControlCommandsRefuseInOneLine(t *testing.T) {
	inRuntimeDir(t)
	runningSandbox(t, "web")
	if err := os.Symlink(t.TempDir(), filepath.Join(state.Root(), "evil")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"ls web", "ls web: takes no names"},
		{"ls --all", "--all: no such flag"},
		{"port", "port: say what to do: add, rm or ls"},
		{"port open web 80", "port open: no such command; use add, rm or ls"},
		{"port add", "port add: name a sandbox"},
		{"port add web", "port add web: name a port"},
		{"port rm web", "port rm web: name a port"},
		{"port ls", "port ls: name a sandbox"},
		{"port ls web db", "port ls db: one name is enough"},
		{"port add web 8080:70000", "web: 8080:70000: port 70000 is out of range"},
		{"port add web 0.0.0.0:0:80", "web: 0.0.0.0:0:80: "},
		{"port add web --force", "port --force: flags stand before names"},
		{"port rm web 7", "web: port 7: no such published port"},
		{"port rm web 8080:80", "web: 8080:80: no such published port"},
		{"port ls nobody", "nobody: no such sandbox is running; sbxnet ls lists those that are"},
		{"port ls ../web", "../web: no such sandbox is running"},
		{"port ls evil", "evil: state directory "},
		{"exec", "exec: name a sandbox"},
		{"exec nobody true", "nobody: no such sandbox is running"},
		{"inspect", "inspect: name a sandbox"},
		{"inspect a b", "inspect b: one name is enough"},
		{"inspect web --json", "inspect --json: flags stand before names"},
		{"inspect nobody", "nobody: no such sandbox is running"},
		{"inspect -- -x", "inspect -x: flags stand before names"},
		{"stats nobody", "nobody: no such sandbox is running"},
		{"stats a/b", "a/b: no such sandbox is running"},
		{"stats wéb", "wéb: use letters, digits"},
		{"stop", "stop: name a sandbox"},
		{"stop -t soon web", "--time soon: not a number from 0 to 3600"},
		{"stop -t 3601 web", "--time 3601: not a number"},
		{"stop web -t 1", "stop -t: flags stand before names"},
		{"compat", "compat: say what to do"},
		{"compat uninstall /tmp", "compat uninstall: no such command"},
		{"compat install", "compat install: name a directory"},
		{"compat install a b", "compat install b: one directory is enough"},
		{"compat install /nonexistent", "compat install /nonexistent: no such directory"},
		{"compat status --all", "compat --all: flags stand before names"},
		{"completion", `completion "": not a shell`},
		{"completion tcsh", "completion tcsh: not a shell"},
		{"completion bash zsh", "completion bash: not a shell"},
	} {
		got := typeIn(t, strings.Fields(c.args)...)
		if got.status != exitFailure || !strings.HasPrefix(got.stderr, "sbxnet: "+c.want) || strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%s: status %d, stdout %q, stderr %q", c.args, got.status, got.stdout, got.stderr)
		}
	}
}

// Each command has help that names it and its flags, in lines that fit.
func TestEveryCommandHasHelp(t *testing.T) {
	overview := typeIn(t, "--help").stdout
	for _, c := range (&program{}).app().Commands {
		if c.Hidden {
			continue
		}
		help := typeIn(t, c.Name, "--help")
		if help.status != 0 || !strings.HasPrefix(help.stdout, "sbxnet "+c.Name) {
			t.Errorf("%s: %+v", c.Name, help)
		}
		if !strings.Contains(overview, "  sbxnet "+c.Name+" ") {
			t.Errorf("%s is not in the overview", c.Name)
		}
		for _, f := range c.Flags {
			if name := f.Names()[0]; name != "help" && !strings.Contains(help.stdout, "--"+name) {
				t.Errorf("%s: --%s is not in the help", c.Name, name)
			}
		}
		for line := range strings.Lines(help.stdout) {
			if len(line) > 116 {
				t.Errorf("%s: %d characters: %s", c.Name, len(line), line)
			}
		}
	}
}

func TestNamesInJSON(t *testing.T) {
	for name, want := range map[string]string{
		"TCP": "tcp", "ToHost": "toHost", "TCPFlows": "tcpFlows", "In4": "in4", "open": "open", "": "", "HandedOver": "handedOver",
	} {
		if got := lowerFirst(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1500000: "1.5 MB", 1<<64 - 1: "18.4 EB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
