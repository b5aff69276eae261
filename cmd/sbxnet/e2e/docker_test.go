package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// perHost runs a test under each way to start dockerd.
func perHost(t *testing.T, test func(t *testing.T, d *docker)) {
	for host := range dockerHosts {
		t.Run(host, func(t *testing.T) { test(t, newDocker(t, host)) })
	}
}

func TestCompatDockerPublishedPorts(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		port, host := steadyPort(t), hostAddr(t)
		id := d.serve("-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:53/udp", port))
		for _, network := range []string{"tcp", "udp"} {
			if seen := d.seenAs(network, on(host, port)); seen != host {
				t.Errorf("%s: the container sees %s, want the client's own %s", network, seen, host)
			}
			if seen := d.seenAs(network, on("127.0.0.1", port)); seen != "10.0.2.2" {
				t.Errorf("%s: the container sees a client on the host's loopback as %s, want the gateway", network, seen)
			}
			if loopback6() {
				d.seenAs(network, on("::1", port))
			}
		}
		d.docker("stop", "-t", "0", id)
		for _, network := range []string{"tcp", "tcp6"} { // at once
			l, err := net.Listen(network, fmt.Sprintf(":%d", port))
			if err != nil {
				t.Errorf("after docker stop: %v", err)
				continue
			}
			l.Close()
		}
		pc, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatalf("after docker stop: %v", err)
		}
		pc.Close()
	})
}

func TestCompatDockerPortOfTheLoopbackOnly(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		port := steadyPort(t)
		d.serve("-p", fmt.Sprintf("127.0.0.1:%d:80", port))
		d.seenAs("tcp", on("127.0.0.1", port))
		if seen := whoami("tcp", on(hostAddr(t), port)); seen != "" {
			t.Errorf("the host's other addresses lead to it too: it sees %s", seen)
		}
	})
}

func TestCompatDockerOutbound(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		host := hostAddr(t)
		source, port := sourceOf(t, host)
		udp := serveUDP(t, host)
		closed, untouched := privatePort(t)
		got := d.sh(fmt.Sprintf(`nc -w 5 %s %s </dev/null; /bin/whoami ask udp %s:%s; cat /etc/resolv.conf
			nslookup localhost 10.0.2.3 2>&1; ping -c 1 -W 5 10.0.2.2; nc -w 5 10.0.2.2 %s </dev/null`, host, port, host, udp, closed) + " || true")
		if seen := <-source; seen != host {
			t.Errorf("the host sees a connection from %s", seen)
		}
		for _, want := range []string{"datagram", "nameserver 10.0.2.3", "Address:\t10.0.2.3:53", "1 packets received"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		untouched()
	})
}

func TestCompatDockerRestartedContainerHasItsPort(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		port := steadyPort(t)
		id := d.docker("run", "-d", "-e", sceneOf(t).marker(), "-p", fmt.Sprintf("%d:80", port), image, "/bin/whoami", "80", "53")
		for range 3 {
			d.seenAs("tcp", on("127.0.0.1", port))
			d.docker("restart", "-t", "0", id)
		}
		d.docker("stop", "-t", "0", id)
		if taken(port) {
			t.Error("a stopped container has its port still")
		}
		d.docker("start", id)
		d.seenAs("tcp", on("127.0.0.1", port))
		d.docker("rm", "-f", id)
	})
}

func TestCompatDockerManyContainers(t *testing.T) {
	d := newDocker(t, "rootlesskit")
	port := steadyPort(t)
	for range 10 { // one port, one container after another
		id := d.serve("-p", fmt.Sprintf("%d:80", port))
		d.seenAs("tcp", on("127.0.0.1", port))
		d.docker("stop", "-t", "0", id)
	}
	const n = 10
	ports, ids := make([]int, n), make([]string, n)
	for i := range ports {
		ports[i] = steadyPort(t)
	}
	var starting sync.WaitGroup
	for i := range n {
		starting.Go(func() {
			id, err := d.tryDocker(d.serving([]string{"-p", fmt.Sprintf("%d:80", ports[i])})...)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	for _, port := range ports {
		d.seenAs("tcp", on("127.0.0.1", port))
	}
	d.docker(append([]string{"kill"}, ids...)...)
	for _, port := range ports {
		d.silent(port)
	}
}

func TestCompatDockerTakenPort(t *testing.T) {
	d := newDocker(t, "rootlesskit")
	port := steadyPort(t)
	l, err := net.Listen("tcp4", fmt.Sprint("0.0.0.0:", port))
	d.must(err)
	if out, err := d.tryDocker(d.serving([]string{"-p", fmt.Sprintf("%d:80", port)})...); err == nil || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("a port that somebody on the host has: %s, %v", out, err)
	}
	l.Close()
	d.serve("-p", fmt.Sprintf("%d:80", port))
	d.seenAs("tcp", on("127.0.0.1", port))
}

func TestCompatDockerLeavesNothing(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		port := steadyPort(t)
		d.serve("-p", fmt.Sprintf("%d:80", port))
		d.seenAs("tcp", on("127.0.0.1", port))
		d.endDaemon()
		d.silent(port)
		if left, _ := os.ReadDir(d.runtime() + "/sbxnet"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// When our program is killed, dockerd and the containers go with it, and the
// next one can use the ports.
func TestCompatDockerIsStartedAgainAfterAKill(t *testing.T) {
	perHost(t, func(t *testing.T, d *docker) {
		port := steadyPort(t)
		d.serve("-p", fmt.Sprintf("%d:80", port))
		d.seenAs("tcp", on("127.0.0.1", port))
		args := d.daemon.cmd.Args
		d.kill()
		d.silent(port)
		d.gone()
		d.begin(d.command(args[0], args[1:]...))
		d.serve("-p", fmt.Sprintf("%d:80", port))
		d.seenAs("tcp", on("127.0.0.1", port))
	})
}

// Like systemd with docker.socket: it listens, and dockerd gets the socket.
func TestCompatDockerIsActivatedBySocket(t *testing.T) {
	need(t, "dockerd", "docker")
	d := &docker{rootless: newRootless(t)}
	path := d.runtime() + "/docker.sock"
	l, err := net.Listen("unix", path)
	d.must(err)
	d.own(path)
	socket, err := l.(*net.UnixListener).File()
	d.must(err)
	defer socket.Close()
	cmd := d.command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", dockerScript, "-H", "fd://", "--storage-driver=vfs")
	cmd.ExtraFiles = []*os.File{socket}
	d.begin(cmd)
	if out := d.docker("info", "--format", "{{.SecurityOptions}}"); !strings.Contains(out, "rootless") {
		t.Errorf("it answers, and is not rootless: %s", out)
	}
}

func TestCompatDockerDocumentationIsWhatIsTested(t *testing.T) {
	b, err := os.ReadFile("../../../docs/docker.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(strings.ReplaceAll(string(b), "\\\n", " ")), " ")
	for host, args := range dockerHosts {
		if line := strings.TrimPrefix(strings.Join(args, " "), "env "); !strings.Contains(page, line) {
			t.Errorf("%s: no %q", host, line)
		}
	}
	for _, name := range standsInFor {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("no %s", name)
		}
	}
}
