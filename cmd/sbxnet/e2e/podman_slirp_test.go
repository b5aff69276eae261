package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A guest is a user and network namespace that a caller of slirp4netns made, and
// a process that keeps it.
type guest struct {
	t   *testing.T
	cmd *exec.Cmd
	// stdin ends the guest when it is closed.
	stdin io.Closer
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	need(t, "nsenter", "ip")
	needTAP(t)
	cmd := exec.Command("cat")
	cmd.Env = append(os.Environ(), sceneOf(t).marker())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &guest{t, cmd, stdin}
	t.Cleanup(g.end)
	return g
}

func (g *guest) end() {
	g.stdin.Close()
	g.cmd.Wait()
}

func (g *guest) pid() string { return strconv.Itoa(g.cmd.Process.Pid) }

// sh runs a shell script in the guest's namespaces.
func (g *guest) sh(script string) string {
	g.t.Helper()
	out, err := outside(g.t, "nsenter", "-t", g.pid(), "-U", "-n", "--preserve-credentials", "sh", "-ec", script)
	if err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// A slirp is our program under the name of slirp4netns, with the descriptors
// that its callers have for it: 3 is ready-fd and 4 is exit-fd.
type slirp struct {
	*process
	ready *os.File // to read from
	exit  *os.File // to close
}

// startSlirp starts it with what the flags say. Flags name the descriptors or
// not.
func startSlirp(t *testing.T, args ...string) *slirp {
	t.Helper()
	return startSlirpOf(t, sbxnet, args...)
}

func startSlirpOf(t *testing.T, program string, args ...string) *slirp {
	t.Helper()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exitR, exitW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t)
	cmd.Path, cmd.Args = calledBy(t, program, "slirp4netns"), append([]string{"slirp4netns"}, args...)
	cmd.ExtraFiles = []*os.File{readyW, exitR}
	s := &slirp{startCommand(t, cmd), readyR, exitW}
	readyW.Close()
	exitR.Close()
	t.Cleanup(func() { readyR.Close(); exitW.Close() })
	return s
}

// waitReady reads what ready-fd says until it is closed.
func (s *slirp) waitReady() {
	s.t.Helper()
	s.ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(s.ready); string(b) != "1" || err != nil {
		s.t.Fatalf("ready-fd said %q, %v\n%s", b, err, s.stderr.String())
	}
}

func TestCompatSlirp4netnsConfiguresANamespace(t *testing.T) {
	g := newGuest(t)
	s := startSlirp(t, "-c", "-6", "-r", "3", "-e", "4", "--mtu=9000", "--cidr=10.88.0.0/16", "--macaddress=02:00:00:00:00:07", g.pid(), "tap5")
	s.waitReady()
	// At once: callers look when they have been told, and never again.
	got := g.sh("ip addr; ip route; ip -6 route")
	for _, want := range []string{
		"LOOPBACK,UP", "tap5: <", "mtu 9000", "02:00:00:00:00:07", "inet 10.88.0.100/16", "inet6 fd00::",
		"default via 10.88.0.2 dev tap5", "default via fd00::2 dev tap5",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "tentative") {
		t.Errorf("an address cannot be used yet:\n%s", got)
	}
	s.exit.Close()
	if r := s.wait(20 * time.Second); r.status != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("after a hang-up of exit-fd: %+v", r)
	}
	if left := g.sh("ip link"); strings.Contains(left, "tap5") {
		t.Errorf("the interface is still there:\n%s", left)
	}
}

// RootlessKit makes the TAP itself, and configures it after ready-fd has spoken.
func TestCompatSlirp4netnsTakesOverAnUnconfiguredTAP(t *testing.T) {
	g := newGuest(t)
	g.sh("ip tuntap add name tap0 mode tap && ip link set tap0 up")
	port := serveExchange(t, "127.0.0.1", 1<<20)
	s := startSlirp(t, "--mtu", "65520", "-r", "3", "--enable-ipv6", g.pid(), "tap0")
	s.waitReady()
	if got := g.sh("ip -4 addr show tap0"); strings.Contains(got, "inet ") {
		t.Errorf("addresses without --configure:\n%s", got)
	}
	g.sh("ip link set tap0 mtu 65520; ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2; ip link set lo up")
	g.sh(toolLine("exchange", "10.0.2.2:"+port, fmt.Sprint(1<<20)))
	// IPv6 comes by router advertisement.
	s.until("an address formed from an advertisement", 15*time.Second, func() bool {
		return strings.Contains(g.sh("ip -6 addr show tap0 scope global -tentative"), "inet6 fd00::")
	})
	if got := g.sh("ip -6 route"); !strings.Contains(got, "default via fe80::") {
		t.Errorf("no default route:\n%s", got)
	}
	if loopback6() {
		port := serveExchange(t, "::1", 1<<20)
		g.sh(toolLine("exchange", "[fd00::2]:"+port, fmt.Sprint(1<<20)))
	}
}

func TestCompatSlirp4netnsGuestMayUseDHCP(t *testing.T) {
	need(t, "udhcpc")
	g := newGuest(t)
	s := startSlirp(t, "-r", "3", g.pid(), "tap0")
	s.waitReady()
	script := filepath.Join(scratch(t), "told")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ $1 = bound ] && echo \"$ip $mask $router $dns\"\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := g.sh("ip link set tap0 up; udhcpc -i tap0 -f -q -n -t 5 -T 1 -s " + script + " 2>/dev/null")
	var host int
	if n, err := fmt.Sscanf(strings.TrimSpace(got), "10.0.2.%d 24 10.0.2.2 10.0.2.3", &host); n != 1 || err != nil || host < 15 || host > 30 {
		t.Errorf("DHCP gave %q", got)
	}
}

// However it is told to end, or its namespace goes: nothing is left, and the
// status is the original's.
func TestCompatSlirp4netnsEnds(t *testing.T) {
	for what, end := range map[string]struct {
		how    func(*slirp, *guest)
		status int
	}{
		"hang-up":   {func(s *slirp, _ *guest) { s.exit.Close() }, 0},
		"namespace": {func(_ *slirp, g *guest) { g.end() }, 0},
		"SIGTERM":   {func(s *slirp, _ *guest) { s.cmd.Process.Signal(syscall.SIGTERM) }, 128 + 15},
		"SIGINT":    {func(s *slirp, _ *guest) { s.cmd.Process.Signal(syscall.SIGINT) }, 128 + 2},
		"SIGKILL":   {func(s *slirp, _ *guest) { s.cmd.Process.Kill() }, 128 + 9},
	} {
		t.Run(what, func(t *testing.T) {
			g := newGuest(t)
			api := filepath.Join(scratch(t), "api.sock")
			s := startSlirp(t, "-c", "-r", "3", "-e", "4", "-a", api, g.pid(), "tap0")
			s.waitReady()
			port := freePort(t)
			hostfwd(t, api, "tcp", "127.0.0.1", port, 80)
			if !taken(port) {
				t.Fatal("the port is not open")
			}
			end.how(s, g)
			if r := s.wait(20 * time.Second); r.status != end.status || r.stderr != "" {
				t.Errorf("%+v", r)
			}
			if taken(port) { // our process has been waited for
				t.Error("the port is still taken")
			}
			// After SIGKILL the process inside removes it, as soon as it knows.
			for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
				if _, err := os.Lstat(api); err != nil {
					break
				}
				if time.Since(began) > 5*time.Second {
					t.Fatal("the API socket is still there")
				}
			}
		})
	}
}

// A start that fails exits with 1 and one line, and never says it was ready.
func TestCompatSlirp4netnsCannotStart(t *testing.T) {
	g := newGuest(t)
	dir := scratch(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"-c -r 3 4194305 tap0":                                     "4194305",
		"-c -r 3 " + strconv.Itoa(os.Getpid()) + " tap0":           "the host's own",
		"-c -r 3 --netns-type=path " + dir + "/none tap0":          dir + "/none",
		"-c -r 3 --netns-type=path " + file + " tap0":              file,
		"-c -r 3 --userns-path=" + file + " " + g.pid() + " tap0":  file,
		"-c -r 3 -a " + file + " " + g.pid() + " tap0":             "no socket",
		"-c -r 3 -a " + dir + "/no/api " + g.pid() + " tap0":       dir + "/no/api",
		"-c -r 3 --outbound-addr=nosuch0 " + g.pid() + " tap0":     "nosuch0",
		"--netns-type=tapfd -r 3 4":                                "not a descriptor of a TAP",
		"-c -r 3 " + g.pid():                                       "TAP's name",
		"-c -r 3 --cidr=10.0.2.0/30 " + g.pid() + " tap0":          "prefix length needs to be 1-25",
		"-c -r 3 --disable-host-loopback=yes " + g.pid() + " tap0": "doesn't allow an argument",
	} {
		s := startSlirp(t, strings.Fields(line)...)
		r := s.wait(20 * time.Second)
		said, _ := io.ReadAll(s.ready)
		if r.status != 1 || !strings.Contains(r.stderr, want) || !strings.HasPrefix(r.stderr, "slirp4netns: ") || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" || len(said) > 0 {
			t.Errorf("%s: %+v, ready-fd %q; want %q", line, r, said, want)
		}
	}
	if left := g.sh("ip link"); strings.Contains(left, "tap0") {
		t.Errorf("left behind:\n%s", left)
	}
}

// hostfwd publishes a port by the API.
func hostfwd(t *testing.T, api, proto, host string, port, guestPort int) (id int) {
	t.Helper()
	var reply struct{ Return struct{ ID int } }
	answer := askSlirp(t, api, fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":%q,"host_addr":%q,"host_port":%d,"guest_addr":"10.0.2.100","guest_port":%d}}`,
		proto, host, port, guestPort))
	if err := json.Unmarshal([]byte(answer), &reply); err != nil || reply.Return.ID < 1 {
		t.Fatalf("add_hostfwd: %s, %v", answer, err)
	}
	return reply.Return.ID
}

func askSlirp(t *testing.T, api, request string) string {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: api})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestCompatSlirp4netnsAPIOpensAndFreesPorts(t *testing.T) {
	g := newGuest(t)
	api := filepath.Join(scratch(t), "api.sock")
	s := startSlirp(t, "-c", "-r", "3", "--enable-sandbox", "--enable-seccomp", "-a", api, g.pid(), "tap0")
	s.waitReady() // the socket is up by now
	port := freePort(t)
	inside := exec.Command("nsenter", append([]string{"-t", g.pid(), "-U", "-n", "--preserve-credentials"}, strings.Fields(toolLine("who", "tcp", ":8000"))...)...)
	inside.Env = append(os.Environ(), sceneOf(t).marker())
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { inside.Process.Kill(); inside.Wait() }()
	for range 5 { // once it is removed, it can be added again at once
		id := hostfwd(t, api, "tcp", "0.0.0.0", port, 8000)
		s.until("answer", 10*time.Second, func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return false
			}
			defer c.Close()
			return strings.Contains(talk(c, ""), ":")
		})
		again := askSlirp(t, api, fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":%d,"guest_port":8000}}`, port))
		if !strings.Contains(again, "slirp_add_hostfwd failed") {
			t.Errorf("the same port again: %s", again)
		}
		entry := fmt.Sprintf(`{"id":%d,"proto":"tcp","host_addr":"0.0.0.0","host_port":%d,"guest_addr":"10.0.2.100","guest_port":8000}`, id, port)
		if list := askSlirp(t, api, `{"execute":"list_hostfwd"}`); list != `{"return":{"entries":[`+entry+`]},"entries":[`+entry+`]}` {
			t.Errorf("list: %s", list)
		}
		if answer := askSlirp(t, api, fmt.Sprintf(`{"execute":"remove_hostfwd","arguments":{"id":%d}}`, id)); answer != `{"return":{}}` {
			t.Errorf("remove: %s", answer)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			t.Fatalf("after remove_hostfwd: %v", err)
		}
		taken := askSlirp(t, api, fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":%d,"guest_port":8000}}`, port))
		if !strings.Contains(taken, "slirp_add_hostfwd failed") {
			t.Errorf("a port that another has: %s", taken)
		}
		l.Close()
	}
	if list := askSlirp(t, api, `{"execute":"list_hostfwd"}`); list != `{"return":{"entries":[]},"entries":[]}` {
		t.Errorf("list: %s", list)
	}
}

// A TAP that the caller has opened, in a namespace that we never see.
func TestCompatSlirp4netnsTAPDescriptor(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	needTAP(t)
	port := serveExchange(t, "127.0.0.1", 1<<20)
	var tap *os.File
	remote(t, func() {
		var err error
		if tap, err = openPlainTAP("tap7"); err != nil {
			t.Errorf("make a TAP: %v", err)
			return
		}
		if err := address("tap7", "10.0.2.100/24"); err != nil {
			t.Error(err)
		}
		if err := up("tap7"); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	link := filepath.Join(scratch(t), "slirp4netns")
	if err := os.Symlink(sbxnet, link); err != nil {
		t.Fatal(err)
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t)
	cmd.Path, cmd.Args = link, []string{"slirp4netns", "--netns-type=tapfd", "-r", "4", "3"}
	cmd.ExtraFiles = []*os.File{tap, readyW}
	s := &slirp{process: startCommand(t, cmd), ready: readyR}
	readyW.Close()
	tap.Close()
	s.waitReady()
	var out []byte
	remote(t, func() {
		cmd := exec.Command(self, toolArg, "exchange", "10.0.2.2:"+port, fmt.Sprint(1<<20))
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		t.Errorf("%v: %s", err, bytes.TrimSpace(out))
	}
}
