package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// usual are the flags of dockerd-rootless.sh.
var usual = []string{"--net=slirp4netns", "--mtu=65520", "--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto", "--disable-host-loopback",
	"--port-driver=builtin", "--propagation=rslave"}

func TestCompatRootlesskitRunsACommand(t *testing.T) {
	r := newRootless(t)
	for script, status := range map[string]int{"exit 0": 0, "exit 42": 42, "kill -TERM $$": 143} {
		if res := r.start("rootlesskit", "sh", "-c", script).wait(patience); res.status != status || res.stderr != "" {
			t.Errorf("%s: status %d, %q; want %d", script, res.status, res.stderr, status)
		}
	}
	got := r.ok("rootlesskit", "sh", "-c", `id -u; id -g; readlink /proc/self/ns/net; echo $ROOTLESSKIT_PARENT_EUID $ROOTLESSKIT_PARENT_EGID; ls $ROOTLESSKIT_STATE_DIR | xargs; stat -c %a $ROOTLESSKIT_STATE_DIR`)
	network, _ := os.Readlink("/proc/self/ns/net")
	if want := fmt.Sprintf("0\n0\n%s\n%d %d\napi.sock child_pid lock\n700\n", network, r.user.uid, r.user.gid); got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
	if res := r.start("rootlesskit", "no-such-command").wait(patience); res.status != 127 || !strings.HasPrefix(res.stderr, "[rootlesskit:parent] error: no-such-command: command not found") {
		t.Errorf("status %d, %q", res.status, res.stderr)
	}
}

func TestCompatRootlesskitHasOurNetwork(t *testing.T) {
	for _, mode := range []string{"--port-driver=builtin", "--detach-netns", "--pidns"} {
		t.Run(mode, func(t *testing.T) {
			r := newRootless(t)
			port := steadyPort(t)
			k := r.startKit("rootlesskit", append(usual, "--ipv6", mode, fmt.Sprintf("-p=0.0.0.0:%d:80/tcp", port), fmt.Sprintf("-p=0.0.0.0:%d:53/udp", port))...)
			got := k.inside("ip -o addr show dev tap0; ip route; ip -6 route")
			for _, want := range []string{"10.0.2.100/24", "inet6 fd00:", "::100/64", "default via 10.0.2.2 ", "default via fd00:"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q inside:\n%s", want, got)
				}
			}
			k.reaches()
			for _, network := range []string{"tcp", "udp"} {
				if seen := r.seenAs(network, net.JoinHostPort(hostAddr(t), fmt.Sprint(port))); seen != hostAddr(t) {
					t.Errorf("%s: the server sees %s, want the client's own %s", network, seen, hostAddr(t))
				}
			}
			k.ports()
			info, err := k.ctl(k.socket, "info")
			k.must(err)
			for _, want := range []string{"State Directory: " + k.state, "Child PID: " + k.pid(), "IP: 10.0.2.100", "DNS: [10.0.2.3 fd00:"} {
				if !strings.Contains(info, want) {
					t.Errorf("no %q in\n%s", want, info)
				}
			}
			k.stop()
			r.silent(port)
		})
	}
}

func TestCompatRootlesskitFilesInside(t *testing.T) {
	r := newRootless(t)
	got := r.ok("rootlesskit", append(usual, "--copy-up=/etc", "--copy-up=/run", "sh", "-ec", `
		head -1 /etc/resolv.conf; test -L /etc/resolv.conf || echo file
		rm -f /run/docker /run/containerd; mkdir /run/docker; touch /etc/made; rm /etc/passwd
		stat -f -c %T /etc /run; ls -d $ROOTLESSKIT_STATE_DIR/api.sock >&2`)...)
	if want := "nameserver 10.0.2.3\nfile\ntmpfs\ntmpfs\n"; got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
	for path, want := range map[string]bool{"/etc/passwd": true, "/etc/made": false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s on the host: %v", path, err)
		}
	}
}

func TestCompatRootlesskitWithoutPorts(t *testing.T) {
	r := newRootless(t)
	for flag, driver := range map[string]string{"--net=slirp4netns": "none", "--net=none": "none", "--net=host": "host"} {
		out := r.ok("rootlesskit", flag, "sh", "-c", r.real("rootlessctl")+` --socket=$ROOTLESSKIT_STATE_DIR/api.sock add-ports 127.0.0.1:8080:80/tcp 2>&1; `+
			r.real("rootlessctl")+` --socket=$ROOTLESSKIT_STATE_DIR/api.sock info --json`)
		if !strings.Contains(out, "no PortDriver is available") || !strings.Contains(out, `"driver": "`+driver+`"`) {
			t.Errorf("%s: %s", flag, out)
		}
	}
}

func TestCompatRootlesskitRefusesABusyStateDirectory(t *testing.T) {
	r := newRootless(t)
	k := r.startKit("rootlesskit", usual...)
	res := r.start("rootlesskit", "--state-dir="+k.state, "true").wait(patience)
	if res.status != 1 || !strings.HasPrefix(res.stderr, "[rootlesskit:parent] error: ") || !strings.Contains(res.stderr, "another RootlessKit is running with the same state directory") {
		t.Errorf("status %d: %s", res.status, res.stderr)
	}
	k.stop()
	r.ok("rootlesskit", "--state-dir="+k.state, "true") // free again
}

func TestCompatRootlesskitLeavesNothingWhenKilled(t *testing.T) {
	for _, mode := range []string{"--port-driver=builtin", "--detach-netns", "--pidns"} {
		t.Run(mode, func(t *testing.T) {
			r := newRootless(t)
			port := steadyPort(t)
			k := r.startKit("rootlesskit", append(usual, mode, fmt.Sprintf("-p=127.0.0.1:%d:80/tcp", port))...)
			k.cmd.Process.Kill()
			k.wait(patience)
			r.silent(port)
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				_, err := os.Stat(k.state)
				if left := sceneOf(t).processes(); err != nil && len(left) == 0 {
					break
				} else if time.Now().After(deadline) {
					files, _ := filepath.Glob(k.state + "/*")
					t.Fatalf("left: processes %v, files %q", left, files)
				}
			}
		})
	}
}

// Like a service manager: the socket is descriptor 3, and the variables name the
// process that is started.
func TestCompatRootlesskitPassesSockets(t *testing.T) {
	r := newRootless(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	r.must(err)
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	r.must(err)
	defer socket.Close()
	address := l.Addr().String()
	inode := inodeOf(t, socket)
	script := `test "$LISTEN_PID" = $$ && echo ours; echo $LISTEN_FDS $LISTEN_FDNAMES; readlink /proc/$$/fd/3; test -e /proc/$$/fd/4 && echo more; true`
	for _, flags := range [][]string{nil, usual, append([]string{"--pidns"}, usual...)} {
		kit := r.ours + "/rootlesskit " + strings.Join(flags, " ")
		cmd := r.command("sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=docker.socket exec "+kit+` sh -c "$0"`, script)
		cmd.ExtraFiles = []*os.File{socket}
		out, err := cmd.CombinedOutput()
		if want := fmt.Sprintf("ours\n1 docker.socket\nsocket:[%d]\n", inode); err != nil || string(out) != want {
			t.Errorf("%q: %v:\n%s\nwant:\n%s", flags, err, out, want)
		}
		if c, err := net.Dial("tcp4", address); err != nil {
			t.Errorf("%q: the socket no longer listens: %v", flags, err)
		} else {
			c.Close()
		}
	}
}

func inodeOf(t *testing.T, f *os.File) uint64 {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Ino
}

func TestCompatRootlesskitTakenPort(t *testing.T) {
	r := newRootless(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	r.must(err)
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	res := r.start("rootlesskit", append(usual, "-p=127.0.0.1:"+port+":80/tcp", "echo", "started")...).wait(patience)
	if res.status != 1 || strings.Contains(res.stdout, "started") || !strings.Contains(res.stderr, "failed to expose port 127.0.0.1:"+port) || !strings.Contains(res.stderr, "in use") {
		t.Errorf("status %d: %q %q", res.status, res.stdout, res.stderr)
	}
}

func TestCompatRootlesskitOpensPortsImplicitly(t *testing.T) {
	for _, mode := range []string{"--disable-host-loopback", "--detach-netns", "--detach-netns --pidns"} {
		t.Run(mode, func(t *testing.T) {
			r := newRootless(t)
			k := r.startKit("rootlesskit", append(strings.Fields(mode), "--net=pasta", "--port-driver=implicit")...)
			port := steadyPort(t)
			server := r.start("nsenter", append(k.entering(), "whoami", fmt.Sprint(port), fmt.Sprint(port))...)
			for _, network := range []string{"tcp", "udp"} {
				if seen := r.seenAs(network, on(hostAddr(t), port)); seen != hostAddr(t) {
					t.Errorf("%s: the server sees %s, want the client's own %s", network, seen, hostAddr(t))
				}
			}
			server.cmd.Process.Signal(syscall.SIGTERM)
			server.wait(patience)
			r.silent(port)
			k.stop()
		})
	}
}

// Docker from version 28 on asks by itself, as this does, and has its rules and
// proxies at the loopback address of the port's family, which info does not
// disallow.
func TestCompatRootlesskitAnswersDocker28(t *testing.T) {
	r := newRootless(t)
	k := r.startKit("rootlesskit", append(usual, "--ipv6")...)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", k.socket)
		}}}
	ask := func(method, path, body string, status int, answer any) {
		t.Helper()
		req, err := http.NewRequest(method, "http://rootlesskit"+path, strings.NewReader(body))
		r.must(err)
		resp, err := client.Do(req)
		r.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		r.must(err)
		if resp.StatusCode != status {
			t.Fatalf("%s %s %s: %s: %s", method, path, body, resp.Status, text)
		}
		if answer != nil {
			r.must(json.Unmarshal(text, answer))
		}
	}
	var info struct {
		NetworkDriver struct{ ChildIP string }
		PortDriver    struct {
			Protos                  []string
			DisallowLoopbackChildIP bool
		}
	}
	ask("GET", "/v1/info", "", 200, &info)
	if info.PortDriver.DisallowLoopbackChildIP || info.NetworkDriver.ChildIP == "" || fmt.Sprint(info.PortDriver.Protos) != "[tcp tcp4 tcp6 udp udp4 udp6]" {
		t.Errorf("info is %+v", info)
	}
	port := steadyPort(t)
	for _, c := range []struct{ proto, network, parent, child, client string }{
		{"tcp4", "tcp", "0.0.0.0", "127.0.0.1", hostAddr(t)}, {"udp4", "udp", "0.0.0.0", "127.0.0.1", hostAddr(t)},
		{"tcp6", "tcp", "::", "::1", "::1"}, {"udp6", "udp", "::", "::1", "::1"},
	} {
		if c.client == "::1" && !loopback6() {
			continue
		}
		// The port inside is the one outside, and dockerd's proxy is there.
		server := r.start("nsenter", append(k.entering(), "whoami", on(c.child, port), on(c.child, port))...)
		server.waitOutput("listening", patience)
		body := fmt.Sprintf(`{"proto":%q,"parentIP":%q,"parentPort":%d,"childPort":%d,"childIP":%q}`, c.proto, c.parent, port, port, c.child)
		var added struct {
			ID   int
			Spec struct{ Proto string }
		}
		ask("POST", "/v1/ports", body, 201, &added)
		if added.ID < 1 || added.Spec.Proto != c.proto {
			t.Errorf("added %+v", added)
		}
		if seen := r.seenAs(c.network, on(c.client, port)); seen != c.client {
			t.Errorf("%s: the server sees %s, want %s", c.proto, seen, c.client)
		}
		ask("DELETE", fmt.Sprintf("/v1/ports/%d", added.ID), "", 200, nil)
		ask("DELETE", fmt.Sprintf("/v1/ports/%d", added.ID), "", 400, nil)
		server.cmd.Process.Signal(syscall.SIGTERM)
		server.wait(patience)
	}
	for _, bad := range []string{"", "{", `{"proto":"tcp"}`, `{"proto":"tcp","parentPort":70000,"childPort":80}`, `{"proto":"sctp","parentPort":80,"childPort":80}`} {
		var said struct{ Message string }
		if ask("POST", "/v1/ports", bad, 400, &said); said.Message == "" {
			t.Errorf("%q: no message", bad)
		}
	}
	var left []any
	if ask("GET", "/v1/ports", "", 200, &left); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	k.stop()
}
