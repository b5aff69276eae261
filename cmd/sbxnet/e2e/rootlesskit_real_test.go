package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A kit is a rootlesskit, RootlessKit's own or ours, whose command is a server
// on port 80 (TCP) and 53 (UDP) that tells who calls.
type kit struct {
	*rootless
	*process
	state, socket string
	detached      bool
}

// startKit starts the program with flags that say what its network is.
func (r *rootless) startKit(program string, flags ...string) *kit {
	r.t.Helper()
	state := fmt.Sprintf("%s/state%d", r.runtime(), time.Now().UnixNano())
	k := &kit{rootless: r, state: state, socket: state + "/api.sock", detached: slices.Contains(flags, "--detach-netns")}
	server := []string{"whoami", "80", "53"}
	if k.detached {
		server = append([]string{"nsenter", "--net=" + state + "/netns"}, server...)
	}
	flags = append([]string{"--state-dir=" + state, "--copy-up=/etc", "--copy-up=/run"}, flags...)
	k.process = r.start(program, append(flags, server...)...)
	k.waitOutput("listening", patience)
	k.until("an API", patience, func() bool { _, err := k.ctl(k.socket, "info"); return err == nil })
	return k
}

// pid is that of the first process in the namespaces.
func (k *kit) pid() string {
	k.rootless.t.Helper()
	b, err := os.ReadFile(k.state + "/child_pid")
	k.must(err)
	return strings.TrimSpace(string(b))
}

// inside runs a script in the namespaces, as RootlessKit's manual says.
func (k *kit) inside(script string) string {
	k.rootless.t.Helper()
	return k.ok("nsenter", append(k.entering(), "sh", "-c", script)...)
}

// entering are the flags of nsenter that lead into the namespaces.
func (k *kit) entering() []string {
	network := "--net"
	if k.detached {
		network = "--net=/proc/" + k.pid() + "/root" + k.state + "/netns"
	}
	return []string{"--user", "--preserve-credentials", "--mount", network, "--target", k.pid()}
}

// stop ends the command and waits until all is gone.
func (k *kit) stop() {
	k.rootless.t.Helper()
	k.cmd.Process.Signal(syscall.SIGTERM)
	k.wait(patience)
	if _, err := os.Stat(k.state); err == nil {
		k.rootless.t.Errorf("the state directory is still there")
	}
}

// reaches asserts what every network of ours gives: the way out, names, and none
// to the host's loopback, which was not asked for.
func (k *kit) reaches() {
	t := k.rootless.t
	t.Helper()
	host := hostAddr(t)
	source, port := sourceOf(t, host)
	k.inside("nc -w 5 " + host + " " + port + " </dev/null")
	if got := <-source; got != host {
		t.Errorf("the host sees a connection from %s, want %s", got, host)
	}
	if got := k.inside("whoami ask udp " + net.JoinHostPort(host, serveUDP(t, host))); strings.TrimSpace(got) != "datagram" {
		t.Errorf("datagram came back as %q", got)
	}
	if got := k.inside("dig +time=5 +tries=2 @10.0.2.3 localhost"); !strings.Contains(got, "status: ") {
		t.Errorf("no name server: %s", got)
	}
	closed, untouched := privatePort(t)
	k.inside("nc -w 5 10.0.2.2 " + closed + " </dev/null || true")
	untouched()
}

// ports asserts that RootlessKit's client opens, lists and closes ports.
func (k *kit) ports() {
	t := k.rootless.t
	t.Helper()
	port := steadyPort(t)
	for _, proto := range []string{"tcp", "udp"} {
		inner := map[string]string{"tcp": "80", "udp": "53"}[proto]
		spec := fmt.Sprintf("127.0.0.1:%d:%s/%s", port, inner, proto)
		id, err := k.ctl(k.socket, "add-ports", spec)
		k.must(err)
		k.seenAs(proto, fmt.Sprintf("127.0.0.1:%d", port))
		list, err := k.ctl(k.socket, "list-ports")
		k.must(err)
		if !strings.Contains(list, proto) || !strings.Contains(list, fmt.Sprint(port)) {
			t.Errorf("%s is not listed in\n%s", spec, list)
		}
		_, err = k.ctl(k.socket, "remove-ports", strings.TrimSpace(id))
		k.must(err)
		if proto == "tcp" {
			k.silent(port)
		}
	}
}

func TestCompatRealRootlesskitOverSlirp4netns(t *testing.T) {
	for _, c := range []struct{ name, mode, driver string }{
		{"builtin", "", "builtin"},
		{"slirp4netns", "", "slirp4netns"},
		{"builtin detached", "--detach-netns", "builtin"},
		{"slirp4netns detached", "--detach-netns", "slirp4netns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRootless(t)
			port := steadyPort(t)
			flags := []string{"--net=slirp4netns", "--slirp4netns-binary=" + r.ours + "/slirp4netns", "--disable-host-loopback",
				"--port-driver=" + c.driver, fmt.Sprintf("-p=0.0.0.0:%d:80/tcp", port)}
			if c.mode != "" {
				flags = append(flags, c.mode)
			}
			k := r.startKit(r.real("rootlesskit"), flags...)
			if got, want := k.inside("ip -o -4 addr show dev tap0"), "10.0.2.100/24"; !strings.Contains(got, want) {
				t.Errorf("tap0 has %q, want %s", got, want)
			}
			seen := r.seenAs("tcp", net.JoinHostPort(hostAddr(t), fmt.Sprint(port)))
			if c.driver == "slirp4netns" && seen != hostAddr(t) {
				t.Errorf("the server sees %s, want the client's own %s", seen, hostAddr(t))
			}
			k.reaches()
			k.ports()
			k.stop()
			r.silent(port)
		})
	}
}

func TestCompatRealRootlesskitOverSlirp4netnsHasIPv6AndACIDR(t *testing.T) {
	r := newRootless(t)
	k := r.startKit(r.real("rootlesskit"), "--net=slirp4netns", "--slirp4netns-binary="+r.ours+"/slirp4netns", "--ipv6", "--cidr=10.9.8.0/24", "--mtu=1500",
		"--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto", "--disable-host-loopback", "--port-driver=slirp4netns")
	got := k.inside("ip -o addr show dev tap0; ip link show dev tap0; ip route; cat /etc/resolv.conf")
	for _, want := range []string{"10.9.8.100/24", "inet6 fd00::", "mtu 1500", "default via 10.9.8.2", "nameserver 10.9.8.3", "nameserver fd00::3"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q inside:\n%s", want, got)
		}
	}
	k.stop()
}

// The command of the host's loopback is the one thing that the network opens to
// it, unless told not to.
func TestCompatRealRootlesskitMayReachTheHostsLoopback(t *testing.T) {
	r := newRootless(t)
	k := r.startKit(r.real("rootlesskit"), "--net=slirp4netns", "--slirp4netns-binary="+r.ours+"/slirp4netns")
	source, port := sourceOf(t, "127.0.0.1")
	k.inside("nc -w 5 10.0.2.2 " + port + " </dev/null")
	if got := <-source; got != "127.0.0.1" {
		t.Errorf("the host sees a connection from %s", got)
	}
	k.stop()
}
