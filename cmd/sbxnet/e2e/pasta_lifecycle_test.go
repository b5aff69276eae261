package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startInForeground starts pasta where it stays, and waits for its PID file.
func startInForeground(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	file := filepath.Join(scratch(t), "pid")
	p := startCommand(t, pastaCommand(t, "pasta", append([]string{"--pid", file}, args...)...))
	p.until("PID file", 10*time.Second, func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(string(b)) == fmt.Sprint(p.cmd.Process.Pid)
	})
	return p, file
}

// The command's form: new namespaces, the command's status, the host's addresses.
func TestCompatPastaRunsACommand(t *testing.T) {
	needTAP(t)
	for _, c := range []struct {
		args   string
		status int
		out    string
	}{
		{"-q sh -c 'exit 7'", 7, ""},
		{"-q -- sh -c 'kill -9 $$'", 137, ""},
		{"-q sh -c 'id -u'", 0, "0\n"},
		{"-q --config-net -4 -a 10.0.2.100 -n 24 -g 10.0.2.2 -I foo0 -m 1400 ip -o -4 addr show dev foo0", 0, "10.0.2.100/24"},
		{"-q --config-net -m 1400 -I foo0 cat /sys/class/net/foo0/mtu", 0, "1400\n"},
		{"-q --ns-mac-addr 02:00:00:00:00:77 -I foo0 cat /sys/class/net/foo0/address", 0, "02:00:00:00:00:77\n"},
		{"-q -I foo0 -- sh -c 'ip -o -4 addr show dev foo0'", 0, ""},
		{"-q nosuchcommand-x", 1, "nosuchcommand-x"},
	} {
		cmd := pastaCommand(t, "pasta")
		cmd = exec.Command("sh", "-c", cmd.Path+" -t none -u none "+c.args)
		cmd.Env = append(os.Environ(), sceneOf(t).marker())
		out, err := cmd.CombinedOutput()
		if got := exitStatus(err); got != c.status || !strings.Contains(string(out), c.out) || c.out == "" && len(out) != 0 {
			t.Errorf("pasta %s: %d %q, want %d %q", c.args, got, out, c.status, c.out)
		}
	}
}

// Without --config-net the namespace configures itself, by what it is told: the
// host's addresses, and the name server that pasta answers as.
func TestCompatPastaTellsGuestsTheirAddresses(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "ip", "udhcpc")
	routeToWorld(t)
	script := filepath.Join(scratch(t), "lease")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1 $ip/$mask $router $dns $mtu\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	inside := "ip -o addr show dev foo0; ip link set foo0 up; udhcpc -i foo0 -n -q -f -s " + script + `
		for i in $(seq 100); do ip -6 route | grep -q '^default' && break; sleep 0.1; done; ip -6 route; ip -o -6 addr show dev foo0 scope global`
	p := startCommand(t, pastaCommand(t, "pasta", "-q", "-I", "foo0", "-m", "1400", "--dns-forward", "169.254.1.1", "--dhcp-dns", "-t", "none", "-u", "none", "sh", "-c", inside))
	r := p.wait(30 * time.Second)
	if !strings.Contains(r.stdout, "bound "+hostAddr4+"/24 "+remoteAddr4+" 169.254.1.1 1400\n") {
		t.Errorf("by DHCP: %+v", r)
	}
	if !strings.Contains(r.stdout, "default via fe80::") || !strings.Contains(r.stdout, "inet6 2001:db8:") {
		t.Errorf("by a router advertisement: %+v", r)
	}
	if strings.Contains(strings.SplitN(r.stdout, "bound", 2)[0], "inet") {
		t.Errorf("the link has addresses before the guest asks: %s", r.stdout)
	}
}

// A signal to pasta is one to the command, whose end is pasta's.
func TestCompatPastaPassesSignalsOn(t *testing.T) {
	needTAP(t)
	p := startCommand(t, pastaCommand(t, "pasta", "-q", "sh", "-c", `trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done`))
	p.waitOutput("ready", 10*time.Second)
	p.cmd.Process.Signal(syscall.SIGTERM)
	if r := p.wait(10 * time.Second); r.status != 5 || !strings.Contains(r.stdout, "caught") {
		t.Errorf("%+v", r)
	}
}

// The process's form: pasta is back when the network is there, and what stays in
// the background keeps nothing of the caller's and goes with the process.
func TestCompatPastaFollowsAProcess(t *testing.T) {
	needTAP(t)
	g := newGuest(t)
	port := freePort(t)
	bg := startPasta(t, "--config-net", "-I", "tap0", "-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2", "--ipv4-only", "-t", fmt.Sprintf("%d:80", port), "-u", "none", g.pid())
	if got := g.sh("ip -o -4 addr show dev tap0; ip route"); !strings.Contains(got, "10.0.2.100/24") || !strings.Contains(got, "default via 10.0.2.2") {
		t.Errorf("%s", got)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", bg.pid, fd)); err != nil || to != "/dev/null" {
			t.Errorf("descriptor %d of the process in the background is %s, %v", fd, to, err)
		}
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", bg.pid)); err != nil || cwd != "/" {
		t.Errorf("its directory is %s, %v", cwd, err)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", bg.pid)); err != nil || string(comm) != "pasta\n" {
		t.Errorf("its name is %q, %v", comm, err)
	}
	g.end()
	bg.ends()
	assertFree(t, port)
}

// In the foreground the end of the namespace, and a signal, are a good end.
func TestCompatPastaInTheForeground(t *testing.T) {
	needTAP(t)
	g := newGuest(t)
	p, file := startInForeground(t, "-f", "-t", "none", "-u", "none", g.pid())
	p.cmd.Process.Signal(syscall.SIGTERM)
	if r := p.wait(10 * time.Second); r.status != 0 || r.stdout+r.stderr != "" {
		t.Errorf("told to end: %+v", r)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the PID file is left: %v", err)
	}
	p, _ = startInForeground(t, "-f", "-t", "none", "-u", "none", g.pid())
	g.end()
	if r := p.wait(10 * time.Second); r.status != 0 || r.stdout+r.stderr != "" {
		t.Errorf("the namespace has gone: %+v", r)
	}
}

// Whatever speaks against a start: status 1, one line that names it, at once, and
// nothing is left of the attempt.
func TestCompatPastaCannotStart(t *testing.T) {
	needTAP(t)
	g := newGuest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	dir := scratch(t)
	for _, c := range []struct{ args, want string }{
		{"--bogus", "unrecognized option '--bogus'"},
		{"-t 0 " + g.pid(), "Invalid port specifier 0"},
		{"-t none -u none 999999999", "999999999"},
		{"-t none -u none --netns " + dir + "/none", dir + "/none"},
		{"-t none -u none --netns nosuchname-x", "/run/netns/nosuchname-x"},
		{"-t none -u none --netns /etc/passwd", "/etc/passwd"},
		{"-t none -u none --netns /proc/self/ns/net", "host's own"},
		{"-u none -t 127.0.0.1/" + taken + " " + g.pid(), fmt.Sprintf("pid %d", os.Getpid())},
		{"-t none -u none -i nosuch0 " + g.pid(), "Invalid interface name nosuch0"},
		{"-t none -u none -P " + dir + "/none/pid " + g.pid(), dir + "/none/pid"},
		{"-t none -u none -c " + dir + "/none/sock " + g.pid(), dir + "/none/sock"},
		{"-t none -u none -l " + dir + "/none/log " + g.pid(), dir + "/none/log"},
		{"-t none -u none -p " + dir + "/none/pcap " + g.pid(), dir + "/none/pcap"},
	} {
		out, status := callPasta(t, "pasta", strings.Fields(c.args)...)
		if status != 1 || strings.Index(out, "\n") != len(out)-1 || !strings.HasPrefix(out, "pasta: ") || !strings.Contains(out, c.want) {
			t.Errorf("pasta %s: %d %q, want 1 and a line with %q", c.args, status, out, c.want)
		}
		// A failed start leaves the namespace for the next.
		if got := g.sh("ip -o link"); strings.Count(got, "\n") != 1 {
			t.Errorf("after pasta %s the namespace has %q", c.args, got)
		}
	}
}

// What listens in the namespace is published while it does: on every address of
// the host, or on its loopback if it is on loopback inside.
func TestCompatPastaAutoFollowsListeners(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	n := newNetNSFile(t)
	early := n.serve("who", "tcp4", ":8300")
	// An excluded port, and one that is somebody else's on the host.
	n.serve("who", "tcp4", ":8301")
	mine, err := net.Listen("tcp4", ":8302")
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	n.serve("who", "tcp4", ":8302")
	n.waitListening("tcp", 8300, 8301, 8302)
	bg := startPasta(t, "--config-net", "-t", "auto,~8301", "--netns", n.path)
	if got := says("tcp", hostAddr4+":8300"); !strings.HasPrefix(got, remoteAddr4) {
		t.Errorf("what listened before the start: %s", got)
	}
	if got := says("tcp", hostAddr4+":8301"); !strings.Contains(got, "refused") {
		t.Errorf("an excluded port: %s", got)
	}
	n.serve("who", "tcp4", "127.0.0.1:8303")
	n.serve("who", "udp4", ":8304")
	eventuallySays(t, "tcp", "127.0.0.1:8303", remoteAddr4+":")
	eventuallySays(t, "udp", hostAddr4+":8304", remoteAddr4+":")
	if got := says("tcp", hostAddr4+":8303"); !strings.Contains(got, "refused") {
		t.Errorf("a server on loopback, from outside: %s", got)
	}
	early.cmd.Process.Kill()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if l, err := net.Listen("tcp4", hostAddr4+":8300"); err == nil {
			l.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the port of a server that has ended stays open")
		}
	}
	n.remove()
	bg.ends()
	assertFree(t, 8304)
}

// waitListening waits until ports are listened on inside.
func (n *netnsFile) waitListening(table string, ports ...int) {
	n.t.Helper()
	for _, port := range ports {
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(n.inside("cat /proc/net/"+table), fmt.Sprintf(":%04X ", port)); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				n.t.Fatalf("nothing listens on %d", port)
			}
		}
	}
}

// pesto adds and removes while pasta runs, as often as it is told, and everything
// or nothing.
func TestCompatPestoChangesRunningPasta(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	n := newNetNSFile(t)
	n.serve("who", "tcp", ":80")
	n.serve("who", "udp4", ":53")
	n.waitListening("tcp6", 80)
	socket := filepath.Join(scratch(t), "sock")
	bg := startPasta(t, "--config-net", "-t", "none", "-u", "none", "--conf-path", socket, "--netns", n.path)
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("socket: %v %v", st, err)
	}
	pesto := func(status int, want string, args ...string) {
		t.Helper()
		if out, got := callPasta(t, "pesto", append(args, socket)...); got != status || !strings.Contains(out, want) {
			t.Errorf("pesto %q: %d %q, want %d %q", args, got, out, status, want)
		}
	}
	port := freePort(t)
	tcp, udp := fmt.Sprintf("--tcp-ports=0.0.0.0/%d:80", port), fmt.Sprintf("--udp-ports=127.0.0.1/%d:53", port)
	for range 2 {
		pesto(0, "", "-A", tcp)
	}
	pesto(0, "", "-A", udp)
	if got := says("tcp", fmt.Sprintf("%s:%d", hostAddr4, port)); !strings.HasPrefix(got, remoteAddr4) {
		t.Errorf("tcp: %s", got)
	}
	eventuallySays(t, "udp", fmt.Sprintf("127.0.0.1:%d", port), remoteAddr4+":")
	pesto(0, fmt.Sprintf("-t 0.0.0.0/%d:80\n-u 127.0.0.1/%d:53\n", port, port), "--show")

	// One that cannot be had changes nothing.
	mine, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	_, taken, _ := net.SplitHostPort(mine.Addr().String())
	other := freePort(t)
	pesto(1, "already in use", "-A", fmt.Sprintf("--tcp-ports=127.0.0.1/%d", other), "--tcp-ports=127.0.0.1/"+taken)
	assertFree(t, other)

	// An open connection survives the removal; the port is free when pesto is back.
	for range 2 {
		pesto(0, "", "-D", tcp)
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			t.Fatalf("after -D: %v", err)
		}
		l.Close()
	}
	pesto(0, "", "-A", tcp)
	n.remove()
	bg.ends()
	pesto(1, "is pasta running", "-A", tcp)
}

// Told to end, or killed, pasta leaves a namespace like the one it found: no link,
// no port, no file.
func TestCompatPastaEndsBeforeTheNamespace(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "ip")
	routeToWorld(t)
	n := newNetNSFile(t)
	dir := scratch(t)
	socket := filepath.Join(dir, "sock")
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	port := freePort(t)
	n.serve("who", "tcp", ":80")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL, syscall.SIGTERM} {
		bg := startPasta(t, "--config-net", "-c", socket, "-t", fmt.Sprintf("%d:80", port), "-u", "none", "--netns", n.path)
		eventuallySays(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port), remoteAddr4+":")
		syscall.Kill(bg.pid, sig)
		if sig == syscall.SIGKILL { // what is left is its process inside's to remove
			for deadline := time.Now().Add(20 * time.Second); exists(bg.pidFile) || exists(socket); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("PID file: %v, socket: %v", exists(bg.pidFile), exists(socket))
				}
			}
		}
		bg.ends()
		if exists(socket) {
			t.Errorf("after %v: the socket is left", sig)
		}
		assertFree(t, port)
		for deadline := time.Now().Add(20 * time.Second); strings.Contains(n.inside("ip -o link"), "host0"); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %v the link is still there:\n%s", sig, n.inside("ip addr; ip route"))
			}
		}
	}
}

// The log of what is in the background is in a file, the latest of it.
func TestCompatPastaLogFile(t *testing.T) {
	needTAP(t)
	g := newGuest(t)
	log := filepath.Join(scratch(t), "log")
	bg := startPasta(t, "-d", "-l", log, "-t", "none", "-u", "none", g.pid())
	g.end()
	bg.ends()
	b, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(b), "the namespace has gone") {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Stat(log); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}
